// SPDX-License-Identifier: Apache-2.0
// What forward and backward of the diagonal scan share. Included once for each instruction set.
#if defined(BLOCKSTATE_KERNELS_DIAGONAL_SCAN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BLOCKSTATE_KERNELS_DIAGONAL_SCAN_INL_H_
#undef BLOCKSTATE_KERNELS_DIAGONAL_SCAN_INL_H_
#else
#define BLOCKSTATE_KERNELS_DIAGONAL_SCAN_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "hwy/aligned_allocator.h"
#include "hwy/highway.h"
#include "kernels/diagonal_scan.h"
#include "kernels/flush_denormals.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// One vector holds the same state of neighbouring channels; a tile is the steps between two checkpoints, so that its
// inputs and outputs stay in L1 while all states pass over it, a few of them in registers at a time.
constexpr int64_t kTile = kDiagonalCheckpoint;
constexpr bool kManyRegisters = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64;

/// Steps [begin, end) of a tile that are all valid or all padding; only the first may start a record.
struct Run {
  int64_t begin;
  int64_t end;
  bool starts_record;
  bool padding;
};

/// Cuts the `steps` steps of the tile at t0 into runs; returns their number. `position` absent: one run.
[[maybe_unused]] int64_t find_runs(View<const int64_t, 2> position, int64_t b, int64_t t0, int64_t steps, Run* runs) {
  if (!position) {
    runs[0] = {0, steps, false, false};
    return 1;
  }
  int64_t count = 0;
  for (int64_t t = 0; t < steps; ++t) {
    const int64_t at = position(b, t0 + t);
    const bool padding = at < 0;
    if (count == 0 || at == 0 || padding != runs[count - 1].padding) {
      runs[count++] = {t, t + 1, at == 0, padding};
    } else {
      runs[count - 1].end = t + 1;
    }
  }
  return count;
}

/// `steps` rows of `valid` channels into rows of N, the rest 0.
template <class D, class T = hn::TFromD<D>>
void load_rows(D d, const T* from, int64_t stride, int64_t steps, int64_t valid, T* to) {
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t t = 0; t < steps; ++t) {
    if (valid == N) {
      hn::Store(hn::LoadU(d, from + t * stride), d, to + t * N);
    } else {
      hn::Store(hn::Zero(d), d, to + t * N);
      std::copy_n(from + t * stride, valid, to + t * N);
    }
  }
}

template <class D, class T = hn::TFromD<D>>
void store_rows(D d, const T* from, int64_t steps, int64_t valid, T* to, int64_t stride) {
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t t = 0; t < steps; ++t) {
    if (valid == N) {
      hn::StoreU(hn::Load(d, from + t * N), d, to + t * stride);
    } else {
      std::copy_n(from + t * N, valid, to + t * stride);
    }
  }
}

/// (D, P, 2) from channel d0 on, into [p][part][lane] with `row` elements a state, the lanes past `valid` 0.
template <class T>
void load_states(View<const T, 3> from, int64_t d0, int64_t valid, int64_t N, T* to, int64_t row) {
  for (int64_t p = 0; p < from.size[1]; ++p) {
    std::fill_n(to + p * row, 2 * N, T(0));
  }
  for (int64_t lane = 0; lane < valid; ++lane) {
    for (int64_t p = 0; p < from.size[1]; ++p) {
      to[p * row + lane] = from(d0 + lane, p, 0);
      to[p * row + N + lane] = from(d0 + lane, p, 1);
    }
  }
}

template <class T>
void store_states(const T* from, int64_t d0, int64_t valid, int64_t N, View<T, 3> to) {
  for (int64_t lane = 0; lane < valid; ++lane) {
    for (int64_t p = 0; p < to.size[1]; ++p) {
      to(d0 + lane, p, 0) = from[(2 * p) * N + lane];
      to(d0 + lane, p, 1) = from[(2 * p + 1) * N + lane];
    }
  }
}

/// `valid` values from channel d0 on, then zeros. An absent view gives zeros.
template <class T>
void load_channels(View<const T, 1> from, int64_t d0, int64_t valid, int64_t N, T* to) {
  for (int64_t lane = 0; lane < N; ++lane) {
    to[lane] = from && lane < valid ? from(d0 + lane) : T(0);
  }
}

/// a and c as the inner loops want them: [group of channels][p][ar ai cr ci][lane].
template <class T>
struct Packed {
  Packed(View<const T, 3> a, View<const T, 3> c) {
    const int64_t N = static_cast<int64_t>(hn::Lanes(hn::ScalableTag<T>()));
    const int64_t D = a.size[0], P = a.size[1];
    groups = (D + N - 1) / N;
    data = hwy::AllocateAligned<T>(static_cast<size_t>(std::max<int64_t>(1, groups * P * 4 * N)));
    require(data != nullptr, "diagonal_scan: no memory for the parameters of ", D, " channels");
    parallel_for(groups, 1, [&](int64_t g, int64_t) {
      T* const to = data.get() + g * P * 4 * N;
      load_states(a, g * N, std::min(N, D - g * N), N, to, 4 * N);
      load_states(c, g * N, std::min(N, D - g * N), N, to + 2 * N, 4 * N);
    });
  }
  int64_t groups;
  hwy::AlignedFreeUniquePtr<T[]> data;
};

// Vectors of channels that one task takes through time together: a row of (B, L, D) then gives it 512 bytes instead
// of 64, and far fewer pages are touched for the same data.
constexpr int64_t kMaxVectors = 8;

/// Calls body(b, begin, end) for every row and block of groups. Channels are independent, so the block may follow the
/// thread count without changing a bit.
template <class Body>
void for_each_block(int64_t B, int64_t groups, const Body& body) {
  const int64_t block = std::clamp<int64_t>(B * groups / (2 * thread_count()), 1, kMaxVectors);
  const int64_t blocks = (groups + block - 1) / block;
  parallel_for(B * blocks, 1, [&](int64_t task, int64_t) {
    const FlushDenormals scope;
    const int64_t begin = task % blocks * block;
    body(task / blocks, begin, std::min(groups, begin + block));
  });
}

/// One row of a (B, ...) view.
template <class T>
View<T, 3> row_of(View<T, 4> view, int64_t b) {
  View<T, 3> out;
  if (view) {
    out.data = view.data + b * view.stride[0];
    for (int i = 0; i < 3; ++i) {
      out.size[i] = view.size[i + 1];
      out.stride[i] = view.stride[i + 1];
    }
  }
  return out;
}

}  // namespace
}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
