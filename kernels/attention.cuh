// SPDX-License-Identifier: Apache-2.0
// What forward and backward of range attention share on the device (kernels/attention.h).
#pragma once

#include <climits>
#include <cstdint>

#include "kernels/attention.h"
#include "kernels/cuda_support.cuh"

namespace blockstate::kernels::cuda {

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;

/// Keys of a tile of queries. Only queries with a non-empty range count; where there is none, low == high == 0.
struct KeyRange {
  int low;  // keys [low, high) are seen by some query
  int high;
  int all_begin;  // keys [all_begin, all_end) are seen by every query: no mask is needed there
  int all_end;
};

/// By all lanes of a warp: queries [first, min(first + count, L)) of row b, 32 at a time. `each(query - first, begin,
/// end)` is called with the range of each query by one lane, an empty one (0, 0) past the end.
template <class Each>
__device__ KeyRange warp_key_range(const View<const int64_t, 2>& begin, const View<const int64_t, 2>& end, int64_t b,
                                   int64_t first, int count, Each each) {
  int low = INT_MAX, high = 0, all_begin = 0, all_end = INT_MAX;
  for (int i = static_cast<int>(threadIdx.x % 32); i < count; i += 32) {
    int from = 0, to = 0;
    if (first + i < begin.size[1]) {
      from = static_cast<int>(begin(b, first + i));
      to = static_cast<int>(end(b, first + i));
    }
    if (from < to) {
      low = min(low, from);
      high = max(high, to);
      all_begin = max(all_begin, from);
      all_end = min(all_end, to);
    } else {
      from = to = 0;
    }
    each(i, from, to);
  }
  KeyRange range;
  range.low = __reduce_min_sync(0xffffffffu, low);
  range.high = __reduce_max_sync(0xffffffffu, high);
  range.all_begin = __reduce_max_sync(0xffffffffu, all_begin);
  range.all_end = __reduce_min_sync(0xffffffffu, all_end);
  range.low = range.high == 0 ? 0 : range.low;
  return range;
}

/// Which queries see any of the keys [low, high) of row b: [first, last) holds all of them. Ranges move forward, but
/// empty ones stand between, so that a search would have to step over them: every thread of the block looks at some
/// queries. `shared` holds 2 ints. Ends with __syncthreads.
__device__ inline void block_query_range(const View<const int64_t, 2>& begin, const View<const int64_t, 2>& end,
                                         int64_t b, int64_t low, int64_t high, int* shared, int* first, int* last) {
  if (threadIdx.x == 0) {
    shared[0] = INT_MAX;
    shared[1] = 0;
  }
  __syncthreads();
  int from = INT_MAX, to = 0;
  for (int64_t i = threadIdx.x; i < begin.size[1]; i += blockDim.x) {
    const int64_t one = begin(b, i), other = end(b, i);
    if (one < other && one < high && other > low) {
      from = min(from, static_cast<int>(i));
      to = static_cast<int>(i) + 1;
    }
  }
  from = __reduce_min_sync(0xffffffffu, from);
  to = __reduce_max_sync(0xffffffffu, to);
  if (threadIdx.x % 32 == 0) {
    atomicMin(&shared[0], from);
    atomicMax(&shared[1], to);
  }
  __syncthreads();
  *first = shared[0] == INT_MAX ? 0 : shared[0];
  *last = shared[1];
  __syncthreads();
}

/// 2^x; x at most a few hundred in size, or -infinity.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace blockstate::kernels::cuda
