// SPDX-License-Identifier: Apache-2.0
#include "kernels/diagonal_scan.h"
#include "kernels/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/diagonal_scan_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/diagonal_scan-inl.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {
namespace {

/// Moves Q states of one vector of channels over a tile, adding Re(c h) to y. `parameters`: [q][ar ai cr ci][lane],
/// `state`: [q][re im][lane].
template <int Q, class D, class T = hn::TFromD<D>>
HWY_INLINE void advance(D d, const T* HWY_RESTRICT parameters, T* HWY_RESTRICT state, const T* HWY_RESTRICT u,
                        T* HWY_RESTRICT y, const Run* runs, int64_t run_count) {
  using V = hn::Vec<D>;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  V ar[Q], ai[Q], cr[Q], ci[Q], hr[Q], hi[Q];
  for (int q = 0; q < Q; ++q) {
    ar[q] = hn::Load(d, parameters + (4 * q) * N);
    ai[q] = hn::Load(d, parameters + (4 * q + 1) * N);
    cr[q] = hn::Load(d, parameters + (4 * q + 2) * N);
    ci[q] = hn::Load(d, parameters + (4 * q + 3) * N);
    hr[q] = hn::Load(d, state + (2 * q) * N);
    hi[q] = hn::Load(d, state + (2 * q + 1) * N);
  }
  for (int64_t r = 0; r < run_count; ++r) {
    if (runs[r].padding) {
      continue;
    }
    if (runs[r].starts_record) {
      for (int q = 0; q < Q; ++q) {
        hr[q] = hi[q] = hn::Zero(d);
      }
    }
    for (int64_t t = runs[r].begin; t < runs[r].end; ++t) {
      const V in = hn::Load(d, u + t * N);
      V out_r = hn::Load(d, y + t * N);
      V out_i = hn::Zero(d);
      for (int q = 0; q < Q; ++q) {
        const V next = hn::NegMulAdd(ai[q], hi[q], hn::MulAdd(ar[q], hr[q], in));
        hi[q] = hn::MulAdd(ar[q], hi[q], hn::Mul(ai[q], hr[q]));
        hr[q] = next;
        out_r = hn::MulAdd(cr[q], hr[q], out_r);
        out_i = hn::NegMulAdd(ci[q], hi[q], out_i);
      }
      hn::Store(hn::Add(out_r, out_i), d, y + t * N);
    }
  }
  for (int q = 0; q < Q; ++q) {
    hn::Store(hr[q], d, state + (2 * q) * N);
    hn::Store(hi[q], d, state + (2 * q + 1) * N);
  }
}

template <class D, class T = hn::TFromD<D>>
void advance_all(D d, int64_t P, const T* parameters, T* state, const T* u, T* y, const Run* runs, int64_t run_count) {
  constexpr int kStates = kManyRegisters ? 4 : 2;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  int64_t p = 0;
  for (; p + kStates <= P; p += kStates) {
    advance<kStates>(d, parameters + 4 * p * N, state + 2 * p * N, u, y, runs, run_count);
  }
  for (; p < P; ++p) {
    advance<1>(d, parameters + 4 * p * N, state + 2 * p * N, u, y, runs, run_count);
  }
}

/// What one vector of channels keeps from tile to tile.
template <class T>
struct Channels {
  int64_t first;        // channel of lane 0
  int64_t valid;        // lanes in use
  const T* parameters;  // [p][ar ai cr ci][lane]
  T* state;             // [p][re im][lane]
  T* skip;              // D, [lane]
};

template <class D, class T = hn::TFromD<D>>
void forward_tile(D d, const DiagonalScanForward<T>& args, int64_t b, int64_t t0, const Run* runs, int64_t run_count,
                  const Channels<T>& channels, T* u, T* y) {
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  const int64_t steps = std::min(kTile, args.u.size[1] - t0);
  const int64_t P = args.a.size[1];
  load_rows(d, &args.u(b, t0, channels.first), args.u.stride[1], steps, channels.valid, u);
  for (int64_t part = 0; args.checkpoint && part < 2 * P; ++part) {
    store_rows(d, channels.state + part * N, 1, channels.valid,
               &args.checkpoint(b, t0 / kTile, part / 2, part % 2, channels.first), 0);
  }
  const auto skip = hn::Load(d, channels.skip);
  for (int64_t t = 0; t < steps; ++t) {
    hn::Store(hn::Mul(skip, hn::Load(d, u + t * N)), d, y + t * N);
  }
  advance_all(d, P, channels.parameters, channels.state, u, y, runs, run_count);
  for (int64_t r = 0; r < run_count; ++r) {
    if (runs[r].padding) {
      std::fill(y + runs[r].begin * N, y + runs[r].end * N, T(0));
    }
  }
  store_rows(d, y, steps, channels.valid, &args.y(b, t0, channels.first), args.y.stride[1]);
}

/// One row and the vectors of channels [begin, end), over all steps.
template <class T>
void forward_channels(const DiagonalScanForward<T>& args, int64_t b, int64_t begin, int64_t end, const T* parameters) {
  const hn::ScalableTag<T> d;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  const int64_t L = args.u.size[1], P = args.a.size[1];
  ScratchArrays<T> scratch((end - begin) * (2 * P + 1) * N + 2 * kTile * N, 2 * kMaxVectors + 2);
  T* const u = scratch.take(kTile * N);
  T* const y = scratch.take(kTile * N);
  Channels<T> channels[kMaxVectors];
  for (int64_t g = begin; g < end; ++g) {
    Channels<T>& one = channels[g - begin];
    one = {g * N, std::min(N, args.u.size[2] - g * N), parameters + g * P * 4 * N, scratch.take(2 * P * N),
           scratch.take(N)};
    if (args.initial) {
      load_states(row_of(args.initial, b), one.first, one.valid, N, one.state, 2 * N);
    } else {
      std::fill_n(one.state, 2 * P * N, T(0));
    }
    load_channels(args.D, one.first, one.valid, N, one.skip);
  }
  Run runs[kTile];
  for (int64_t t0 = 0; t0 < L; t0 += kTile) {
    const int64_t run_count = find_runs(args.position, b, t0, std::min(kTile, L - t0), runs);
    for (int64_t g = begin; g < end; ++g) {
      forward_tile(d, args, b, t0, runs, run_count, channels[g - begin], u, y);
    }
  }
  for (int64_t g = begin; args.final && g < end; ++g) {
    const Channels<T>& one = channels[g - begin];
    store_states(one.state, one.first, one.valid, N, row_of(args.final, b));
  }
}

template <class T>
void forward(const DiagonalScanForward<T>& args) {
  const Packed<T> parameters(args.a, args.c);
  const int64_t B = args.u.size[0];
  for_each_block(B, parameters.groups, [&](int64_t b, int64_t begin, int64_t end) {
    forward_channels(args, b, begin, end, parameters.data.get());
  });
}

void diagonal_forward_float(const DiagonalScanForward<float>& args) { forward(args); }
void diagonal_forward_double(const DiagonalScanForward<double>& args) { forward(args); }

}  // namespace
}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace blockstate::kernels::cpu {

HWY_EXPORT(diagonal_forward_float);
HWY_EXPORT(diagonal_forward_double);

template <>
void diagonal_scan_forward<float>(const DiagonalScanForward<float>& args) {
  HWY_DYNAMIC_DISPATCH(diagonal_forward_float)(args);
}

template <>
void diagonal_scan_forward<double>(const DiagonalScanForward<double>& args) {
  HWY_DYNAMIC_DISPATCH(diagonal_forward_double)(args);
}

}  // namespace blockstate::kernels::cpu
#endif
