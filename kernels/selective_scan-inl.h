// SPDX-License-Identifier: Apache-2.0
// What the forward and the backward of the selective scan share. Vector lanes are channels; a work item is one row of
// the batch and one group of `lanes` channels; time goes in tiles of kScanCheckpoint steps. Inside a tile four states
// at a time stay in registers over all its steps ("a pass"), while dt and w = dt * u of the tile lie in the first-level
// cache. Arrays of states are (padded N, lanes); arrays of a tile are (kScanCheckpoint, lanes).
#if defined(BLOCKSTATE_KERNELS_SELECTIVE_SCAN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BLOCKSTATE_KERNELS_SELECTIVE_SCAN_INL_H_
#undef BLOCKSTATE_KERNELS_SELECTIVE_SCAN_INL_H_
#else
#define BLOCKSTATE_KERNELS_SELECTIVE_SCAN_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/base/view.h"
#include "hwy/aligned_allocator.h"
#include "hwy/cache_control.h"
#include "kernels/scan_runs.h"
#include "kernels/selective_scan.h"
#include "kernels/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {

inline constexpr int64_t kTile = kScanCheckpoint;
inline constexpr int64_t kPass = 4;  // states in registers at a time
inline constexpr double kLog2E = 1.44269504088896340736;
inline constexpr double kLn2 = 0.693147180559945309417;

inline int64_t padded_states(int64_t states) { return (states + kPass - 1) / kPass * kPass; }

/// Reads `count` <= lanes elements; the other lanes are 0.
template <class D, class T>
HWY_INLINE hn::Vec<D> LoadRow(D d, const T* from, int64_t count) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  if (HWY_LIKELY(count >= lanes)) {
    return hn::LoadU(d, from);
  }
  HWY_ALIGN T row[hn::MaxLanes(d)] = {};
  std::copy(from, from + count, row);
  return hn::Load(d, row);
}

template <class D, class T>
HWY_INLINE void StoreRow(D d, hn::Vec<D> value, T* to, int64_t count) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  if (HWY_LIKELY(count >= lanes)) {
    hn::StoreU(value, d, to);
    return;
  }
  HWY_ALIGN T row[hn::MaxLanes(d)];
  hn::Store(value, d, row);
  std::copy(row, row + count, to);
}

/// Rows of B or C of one tile: N values a step, the padding states included.
template <class T>
struct StateRows {
  const T* data;
  int64_t stride;
};

/// `from` points at the first channel of the group in a (D, N) matrix; unused lanes and states become 0.
template <class T>
void load_states(T* states, int64_t lanes, int64_t padded, const T* from, int64_t channel_stride, int64_t state_stride,
                 int64_t channels, int64_t count, T scale = 1) {
  if (channels < lanes || count < padded) {
    std::fill(states, states + padded * lanes, T{0});
  }
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t n = 0; n < count; ++n) {
      states[n * lanes + c] = from[c * channel_stride + n * state_stride] * scale;
    }
  }
}

template <class T>
void store_states(const T* states, int64_t lanes, T* to, int64_t channel_stride, int64_t state_stride, int64_t channels,
                  int64_t count) {
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t n = 0; n < count; ++n) {
      to[c * channel_stride + n * state_stride] = states[n * lanes + c];
    }
  }
}

/// The rows of one tile: as they lie where the number of states fits the passes, else copied and padded with 0.
template <class T>
StateRows<T> stage_rows(View<const T, 3> rows, int64_t b, int64_t t0, int64_t steps, T* copy) {
  const int64_t count = rows.size[2];
  const int64_t padded = padded_states(count);
  const T* first = rows.data + b * rows.stride[0] + t0 * rows.stride[1];
  if (count == padded) {
    return {first, rows.stride[1]};
  }
  for (int64_t t = 0; t < steps; ++t) {
    std::copy(first + t * rows.stride[1], first + t * rows.stride[1] + count, copy + t * padded);
    std::fill(copy + t * padded + count, copy + (t + 1) * padded, T{0});
  }
  return {copy, padded};
}

/// The largest |A| of each pass, which with the largest dt of a tile tells whether the exponentials need bounds.
template <class T>
void pass_bounds(const T* decay, int64_t lanes, int64_t padded, T* bound) {
  for (int64_t pass = 0; pass < padded / kPass; ++pass) {
    T largest = 0;
    for (int64_t i = pass * kPass * lanes; i < (pass + 1) * kPass * lanes; ++i) {
      const T size = std::abs(decay[i]);
      largest = size <= largest ? largest : std::isnan(size) ? std::numeric_limits<T>::infinity() : size;
    }
    bound[pass] = largest;
  }
}

template <class D>
constexpr hn::TFromD<D> fast_exp2_limit(D d) {
  return HasScaleExponent(d) ? hn::TFromD<D>(1 << 20) : hn::TFromD<D>(kFastExp2);
}

/// 2^(dt * decay), the decay in base-2 units.
template <bool kFast, class D, class V>
HWY_INLINE V Decay(D d, V dt, V decay) {
  if constexpr (kFast) {
    return Exp2ProductFast(d, dt, decay);
  } else {
    return Exp2(d, hn::Mul(dt, decay));
  }
}

/// One row of the batch, one group of channels.
template <class T>
struct ScanGroup {
  int64_t b;
  int64_t channel;   // the first
  int64_t channels;  // <= lanes
};

template <class T>
T* row_of(View<T, 3> view, const ScanGroup<std::remove_const_t<T>>& group, int64_t t) {
  return view.data + group.b * view.stride[0] + t * view.stride[1] + group.channel * view.stride[2];
}

template <class D, class T>
HWY_INLINE hn::Vec<D> LoadChannels(D d, View<const T, 1> view, const ScanGroup<T>& group) {
  HWY_ALIGN T row[hn::MaxLanes(d)] = {};
  for (int64_t c = 0; view && c < group.channels; ++c) {
    row[c] = view.data[(group.channel + c) * view.stride[0]];
  }
  return hn::Load(d, row);
}

}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard of the target
