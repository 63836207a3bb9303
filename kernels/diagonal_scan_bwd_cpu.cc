// SPDX-License-Identifier: Apache-2.0
#include "kernels/diagonal_scan.h"
#include "kernels/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/diagonal_scan_bwd_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/diagonal_scan-inl.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {
namespace {

// States are rebuilt kRebuilt at a time, so that the latency of one recurrence hides behind the others; the way back
// needs more registers a state.
constexpr int kRebuilt = kManyRegisters ? 4 : 2;
constexpr int kReversed = kManyRegisters ? 2 : 1;
constexpr int64_t kMaxSlots = 2 * kTile;  // each run keeps the state before it and after each of its steps

/// Runs Q states over the tile and keeps them: history[slot][q][re im][lane], `row` elements a slot.
template <int Q, class D, class T = hn::TFromD<D>>
HWY_INLINE void rebuild(D d, const T* HWY_RESTRICT parameters, const T* HWY_RESTRICT state, const T* HWY_RESTRICT u,
                        const Run* runs, int64_t run_count, T* HWY_RESTRICT history, int64_t row) {
  using V = hn::Vec<D>;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  V ar[Q], ai[Q], hr[Q], hi[Q];
  for (int q = 0; q < Q; ++q) {
    ar[q] = hn::Load(d, parameters + (4 * q) * N);
    ai[q] = hn::Load(d, parameters + (4 * q + 1) * N);
    hr[q] = hn::Load(d, state + (2 * q) * N);
    hi[q] = hn::Load(d, state + (2 * q + 1) * N);
  }
  for (int64_t r = 0; r < run_count; ++r) {
    if (runs[r].padding) {
      continue;
    }
    for (int q = 0; q < Q; ++q) {
      if (runs[r].starts_record) {
        hr[q] = hi[q] = hn::Zero(d);
      }
      hn::Store(hr[q], d, history + (2 * q) * N);
      hn::Store(hi[q], d, history + (2 * q + 1) * N);
    }
    history += row;
    for (int64_t t = runs[r].begin; t < runs[r].end; ++t) {
      const V in = hn::Load(d, u + t * N);
      for (int q = 0; q < Q; ++q) {
        const V next = hn::NegMulAdd(ai[q], hi[q], hn::MulAdd(ar[q], hr[q], in));
        hi[q] = hn::MulAdd(ar[q], hi[q], hn::Mul(ai[q], hr[q]));
        hr[q] = next;
        hn::Store(hr[q], d, history + (2 * q) * N);
        hn::Store(hi[q], d, history + (2 * q + 1) * N);
      }
      history += row;
    }
  }
}

/// The way back for Q states. `adjoint` is the gradient of the state after the tile on entry, before it on return.
/// With g the gradient of h[t]:  g = dy * conj(c) + adjoint;  du += Re g;  dc += dy * conj(h[t]);
/// da += g * conj(h[t-1]);  adjoint = conj(a) * g.   `history_end` is one past the last slot in use.
template <int Q, class D, class T = hn::TFromD<D>>
HWY_INLINE void reverse(D d, const T* HWY_RESTRICT parameters, const T* HWY_RESTRICT history_end, int64_t row,
                        const T* HWY_RESTRICT dy, T* HWY_RESTRICT du, const Run* runs, int64_t run_count,
                        T* HWY_RESTRICT adjoint, T* HWY_RESTRICT gradients) {
  using V = hn::Vec<D>;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  V ar[Q], ai[Q], cr[Q], ci[Q], er[Q], ei[Q], dar[Q], dai[Q], dcr[Q], dci[Q];
  for (int q = 0; q < Q; ++q) {
    ar[q] = hn::Load(d, parameters + (4 * q) * N);
    ai[q] = hn::Load(d, parameters + (4 * q + 1) * N);
    cr[q] = hn::Load(d, parameters + (4 * q + 2) * N);
    ci[q] = hn::Load(d, parameters + (4 * q + 3) * N);
    er[q] = hn::Load(d, adjoint + (2 * q) * N);
    ei[q] = hn::Load(d, adjoint + (2 * q + 1) * N);
    dar[q] = dai[q] = dcr[q] = dci[q] = hn::Zero(d);
  }
  const T* slot = history_end - row;
  for (int64_t r = run_count - 1; r >= 0; --r) {
    if (runs[r].padding) {
      continue;
    }
    for (int64_t t = runs[r].end - 1; t >= runs[r].begin; --t, slot -= row) {
      const V out = hn::Load(d, dy + t * N);
      V in = hn::Load(d, du + t * N);
      for (int q = 0; q < Q; ++q) {
        const V gr = hn::MulAdd(out, cr[q], er[q]);
        const V gi = hn::NegMulAdd(out, ci[q], ei[q]);
        dcr[q] = hn::MulAdd(out, hn::Load(d, slot + (2 * q) * N), dcr[q]);
        dci[q] = hn::NegMulAdd(out, hn::Load(d, slot + (2 * q + 1) * N), dci[q]);
        const V before_r = hn::Load(d, slot - row + (2 * q) * N);
        const V before_i = hn::Load(d, slot - row + (2 * q + 1) * N);
        dar[q] = hn::MulAdd(gi, before_i, hn::MulAdd(gr, before_r, dar[q]));
        dai[q] = hn::NegMulAdd(gr, before_i, hn::MulAdd(gi, before_r, dai[q]));
        in = hn::Add(in, gr);
        er[q] = hn::MulAdd(ai[q], gi, hn::Mul(ar[q], gr));
        ei[q] = hn::NegMulAdd(ai[q], gr, hn::Mul(ar[q], gi));
      }
      hn::Store(in, d, du + t * N);
    }
    slot -= row;
    if (runs[r].starts_record) {
      for (int q = 0; q < Q; ++q) {
        er[q] = ei[q] = hn::Zero(d);
      }
    }
  }
  for (int q = 0; q < Q; ++q) {
    hn::Store(er[q], d, adjoint + (2 * q) * N);
    hn::Store(ei[q], d, adjoint + (2 * q + 1) * N);
    const V sums[4] = {dar[q], dai[q], dcr[q], dci[q]};
    for (int part = 0; part < 4; ++part) {
      T* const total = gradients + (4 * q + part) * N;
      hn::Store(hn::Add(hn::Load(d, total), sums[part]), d, total);
    }
  }
}

/// What one vector of channels keeps from tile to tile.
template <class T>
struct ChannelGradients {
  int64_t first;        // channel of lane 0
  int64_t valid;        // lanes in use
  const T* parameters;  // [p][ar ai cr ci][lane]
  T* adjoint;           // [p][re im][lane]
  T* skip;              // D, [lane]
  T* gradients;         // sums over this row: [p][dar dai dcr dci][lane], then dD [lane]
};

template <class T>
struct TileMemory {
  T* u;        // [t][lane]
  T* dy;       // [t][lane]
  T* du;       // [t][lane]
  T* state;    // [p][re im][lane], before the tile
  T* history;  // [slot][q][re im][lane]
};

template <int kBlock, class D, class T = hn::TFromD<D>>
HWY_INLINE void backward_states(D d, const ChannelGradients<T>& channels, const TileMemory<T>& tile, int64_t p,
                                const Run* runs, int64_t run_count, int64_t slots) {
  constexpr int kStep = kBlock == 1 ? 1 : kReversed;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  const int64_t row = 2 * kBlock * N;
  rebuild<kBlock>(d, channels.parameters + 4 * p * N, tile.state + 2 * p * N, tile.u, runs, run_count, tile.history,
                  row);
  for (int q = 0; q < kBlock; q += kStep) {
    reverse<kStep>(d, channels.parameters + 4 * (p + q) * N, tile.history + slots * row + 2 * q * N, row, tile.dy,
                   tile.du, runs, run_count, channels.adjoint + 2 * (p + q) * N, channels.gradients + 4 * (p + q) * N);
  }
}

template <class D, class T = hn::TFromD<D>>
void backward_tile(D d, const DiagonalScanBackward<T>& args, int64_t b, int64_t t0, const Run* runs, int64_t run_count,
                   const ChannelGradients<T>& channels, const TileMemory<T>& tile) {
  const DiagonalScanForward<T>& in = args.forward;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  const int64_t steps = std::min(kTile, in.u.size[1] - t0), P = in.a.size[1];
  load_rows(d, &in.u(b, t0, channels.first), in.u.stride[1], steps, channels.valid, tile.u);
  load_rows(d, &args.dy(b, t0, channels.first), args.dy.stride[1], steps, channels.valid, tile.dy);
  for (int64_t part = 0; part < 2 * P; ++part) {
    load_rows(d, &in.checkpoint(b, t0 / kTile, part / 2, part % 2, channels.first), 0, 1, channels.valid,
              tile.state + part * N);
  }
  T* const dD = channels.gradients + 4 * P * N;
  const auto skip = hn::Load(d, channels.skip);
  int64_t slots = 0;
  for (int64_t r = 0; r < run_count; ++r) {
    if (runs[r].padding) {
      std::fill(tile.du + runs[r].begin * N, tile.du + runs[r].end * N, T(0));
      continue;
    }
    auto sum = hn::Zero(d);
    for (int64_t t = runs[r].begin; t < runs[r].end; ++t) {
      const auto out = hn::Load(d, tile.dy + t * N);
      sum = hn::MulAdd(out, hn::Load(d, tile.u + t * N), sum);
      hn::Store(hn::Mul(skip, out), d, tile.du + t * N);
    }
    hn::Store(hn::Add(hn::Load(d, dD), sum), d, dD);
    slots += runs[r].end - runs[r].begin + 1;
  }
  int64_t p = 0;
  for (; p + kRebuilt <= P; p += kRebuilt) {
    backward_states<kRebuilt>(d, channels, tile, p, runs, run_count, slots);
  }
  for (; p < P; ++p) {
    backward_states<1>(d, channels, tile, p, runs, run_count, slots);
  }
  store_rows(d, tile.du, steps, channels.valid, &args.du(b, t0, channels.first), args.du.stride[1]);
}

/// One row and the vectors of channels [begin, end), over all steps from the last to the first.
template <class T>
void backward_channels(const DiagonalScanBackward<T>& args, int64_t b, int64_t begin, int64_t end, const T* parameters,
                       T* gradients) {
  const hn::ScalableTag<T> d;
  const DiagonalScanForward<T>& in = args.forward;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  const int64_t L = in.u.size[1], P = in.a.size[1];
  ScratchArrays<T> scratch((3 * kTile + 2 * P + 2 * kRebuilt * kMaxSlots + (end - begin) * (2 * P + 1)) * N,
                           5 + 2 * kMaxVectors);
  const TileMemory<T> tile{scratch.take(kTile * N), scratch.take(kTile * N), scratch.take(kTile * N),
                           scratch.take(2 * P * N), scratch.take(2 * kRebuilt * kMaxSlots * N)};
  ChannelGradients<T> channels[kMaxVectors];
  for (int64_t g = begin; g < end; ++g) {
    ChannelGradients<T>& one = channels[g - begin];
    one = {g * N,           std::min(N, in.u.size[2] - g * N), parameters + g * P * 4 * N, scratch.take(2 * P * N),
           scratch.take(N), gradients + g * (4 * P + 1) * N};
    if (args.dfinal) {
      load_states(row_of(args.dfinal, b), one.first, one.valid, N, one.adjoint, 2 * N);
    } else {
      std::fill_n(one.adjoint, 2 * P * N, T(0));
    }
    load_channels(in.D, one.first, one.valid, N, one.skip);
    std::fill_n(one.gradients, (4 * P + 1) * N, T(0));
  }
  Run runs[kTile];
  for (int64_t t0 = (L - 1) / kTile * kTile; t0 >= 0 && L > 0; t0 -= kTile) {
    const int64_t run_count = find_runs(in.position, b, t0, std::min(kTile, L - t0), runs);
    for (int64_t g = begin; g < end; ++g) {
      backward_tile(d, args, b, t0, runs, run_count, channels[g - begin], tile);
    }
  }
  for (int64_t g = begin; args.dinitial && g < end; ++g) {
    const ChannelGradients<T>& one = channels[g - begin];
    store_states(one.adjoint, one.first, one.valid, N, row_of(args.dinitial, b));
  }
}

/// Adds the rows' sums to da, dc and dD, rows in order.
template <class T>
void add_gradients(const DiagonalScanBackward<T>& args, int64_t groups, const T* rows) {
  const int64_t N = static_cast<int64_t>(hn::Lanes(hn::ScalableTag<T>()));
  const int64_t B = args.forward.u.size[0], D = args.forward.a.size[0], P = args.forward.a.size[1];
  parallel_for(D, N, [&](int64_t begin, int64_t end) {
    const int64_t size = (4 * P + 1) * N;
    const T* const first = rows + begin / N * size;
    for (int64_t channel = begin; channel < end; ++channel) {
      for (int64_t at = 0; at < 4 * P + (args.dD ? 1 : 0); ++at) {
        T sum = 0;
        for (int64_t b = 0; b < B; ++b) {
          sum += first[b * groups * size + at * N + channel - begin];
        }
        T& to = at == 4 * P ? args.dD(channel) : (at % 4 < 2 ? args.da : args.dc)(channel, at / 4, at % 2);
        to += sum;
      }
    }
  });
}

template <class T>
void backward(const DiagonalScanBackward<T>& args) {
  const int64_t N = static_cast<int64_t>(hn::Lanes(hn::ScalableTag<T>()));
  const DiagonalScanForward<T>& in = args.forward;
  const int64_t B = in.u.size[0], P = in.a.size[1];
  const Packed<T> parameters(in.a, in.c);
  const int64_t row = parameters.groups * (4 * P + 1) * N;
  const auto rows = hwy::AllocateAligned<T>(static_cast<size_t>(std::max<int64_t>(1, B * row)));
  require(rows != nullptr, "diagonal_scan: no memory for the gradients of ", B, " rows");
  for_each_block(B, parameters.groups, [&](int64_t b, int64_t begin, int64_t end) {
    backward_channels(args, b, begin, end, parameters.data.get(), rows.get() + b * row);
  });
  add_gradients(args, parameters.groups, rows.get());
}

void diagonal_backward_float(const DiagonalScanBackward<float>& args) { backward(args); }
void diagonal_backward_double(const DiagonalScanBackward<double>& args) { backward(args); }

}  // namespace
}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace blockstate::kernels::cpu {

HWY_EXPORT(diagonal_backward_float);
HWY_EXPORT(diagonal_backward_double);

template <>
void diagonal_scan_backward<float>(const DiagonalScanBackward<float>& args) {
  HWY_DYNAMIC_DISPATCH(diagonal_backward_float)(args);
}

template <>
void diagonal_scan_backward<double>(const DiagonalScanBackward<double>& args) {
  HWY_DYNAMIC_DISPATCH(diagonal_backward_double)(args);
}

}  // namespace blockstate::kernels::cpu
#endif
