// SPDX-License-Identifier: Apache-2.0
// What both directions of the causal convolution share on a GPU. A thread owns kWidth neighbouring channels of one
// segment of time and walks it with the last inputs in registers; the threads of a block are channels (x) and
// consecutive segments (y).
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/causal_conv1d.h"
#include "kernels/causal_conv1d_rows.h"
#include "kernels/cuda_packs.cuh"

namespace blockstate::kernels::cuda {

inline constexpr int kConvThreads = 256;
inline constexpr int kConvUnroll = 4;  // at least the taps of the fast path: the past then needs no moving about

inline constexpr int64_t kConvEnoughBlocks = 264;     // two for each multiprocessor of an H100
inline constexpr int64_t kConvMostItemBlocks = 4096;  // rows of partial sums

/// How the work of one call is cut. Depends on the shape alone: so do the bits of the weights' gradients.
struct ConvPlan {
  int channel_threads;     // of a block
  int segment_threads;     // of a block
  int64_t channel_blocks;  // blocks side by side over the channels
  int64_t segments;        // of a row of the batch
  int64_t steps;           // of a segment, a multiple of kConvUnroll
  int64_t items;           // rows of the batch times segments
  int64_t item_blocks;     // blocks over those

  ConvPlan(int64_t batch, int64_t length, int64_t width, int channels_a_thread, int64_t most_steps) {
    const int64_t groups = ceil_div<int64_t>(width, channels_a_thread);
    channel_threads = 1;
    while (channel_threads < 32 && channel_threads < groups) {
      channel_threads *= 2;
    }
    segment_threads = kConvThreads / channel_threads;
    channel_blocks = ceil_div<int64_t>(groups, channel_threads);
    // Short enough that all multiprocessors have work and that blocks which run together lie close in memory; not
    // shorter, because a segment reads the kept inputs of its neighbours again; and never so many that what blocks
    // say of the weights takes much memory.
    const int64_t wanted =
        ceil_div<int64_t>(kConvEnoughBlocks * segment_threads, std::max<int64_t>(1, channel_blocks * batch));
    const int64_t least = ceil_div<int64_t>(batch * length, kConvMostItemBlocks * segment_threads);
    steps = std::max(std::clamp<int64_t>(ceil_div<int64_t>(length, wanted), 16, most_steps), least);
    steps = ceil_div<int64_t>(steps, kConvUnroll) * kConvUnroll;
    segments = std::max<int64_t>(1, ceil_div<int64_t>(length, steps));
    items = batch * segments;
    item_blocks = ceil_div<int64_t>(items, segment_threads);
  }
  dim3 threads() const { return dim3(static_cast<unsigned>(channel_threads), static_cast<unsigned>(segment_threads)); }
  unsigned blocks() const { return static_cast<unsigned>(channel_blocks * item_blocks); }
};

/// The thread's channels and steps.
struct ConvPlace {
  int64_t channel;     // the first
  int64_t item_block;  // which of ConvPlan::item_blocks
  int64_t b, t0;
  int count;  // steps from t0 on
  bool active;

  __device__ ConvPlace(const ConvPlan& plan, int64_t length, int64_t width, int channels_a_thread) {
    const int64_t side = blockIdx.x % plan.channel_blocks;
    item_block = blockIdx.x / plan.channel_blocks;
    channel = (side * blockDim.x + threadIdx.x) * channels_a_thread;
    const int64_t item = item_block * blockDim.y + threadIdx.y;
    active = channel < width && item < plan.items;
    b = item / plan.segments;
    t0 = item % plan.segments * plan.steps;
    count = static_cast<int>(length - t0 < plan.steps ? length - t0 : plan.steps);
  }
};

/// tap[j] multiplies the input j steps ago; those beyond the weights are 0.
template <int kTaps, int kWidth>
__device__ inline void load_taps(const View<const float, 2>& weight, const View<const float, 1>& bias, int64_t channel,
                                 float (&tap)[kTaps][kWidth], float (&constant)[kWidth]) {
  const int taps = static_cast<int>(weight.size[1]);
  const bool quads = kTaps == 4 && taps == 4 && weight.stride[0] == 4 && weight.stride[1] == 1 &&
                     reinterpret_cast<uintptr_t>(weight.data) % 16 == 0;
#pragma unroll
  for (int c = 0; c < kWidth; ++c) {
    constant[c] = bias ? bias(channel + c) : 0.0f;
    if (quads) {
      const Raw<float, 4> all = load_raw<float, 4>(weight.data + (channel + c) * 4);
#pragma unroll
      for (int j = 0; j < kTaps; ++j) {
        tap[j][c] = element(all, 3 - j & 3);
      }
    } else {
#pragma unroll
      for (int j = 0; j < kTaps; ++j) {
        tap[j][c] = j < taps ? weight(channel + c, taps - 1 - j) : 0.0f;
      }
    }
  }
}

/// past[j] becomes input t - j of row b for j from 1 on; past[0] is left alone.
template <class T, int kTaps, int kWidth>
__device__ inline void load_past(const View<const T, 3>& x, const View<const T, 3>& initial, int kept, int64_t b,
                                 int64_t t, int64_t channel, float (&past)[kTaps][kWidth]) {
#pragma unroll
  for (int j = 1; j < kTaps; ++j) {
    Raw<T, kWidth> raw = zero_raw<T, kWidth>();
    const int64_t at = t - j;
    if (at >= 0) {
      raw = load_raw<T, kWidth>(&x(b, at, channel));
    } else if (initial && at >= -kept) {
      raw = load_raw<T, kWidth>(&initial(b, kept + at, channel));
    }
#pragma unroll
    for (int c = 0; c < kWidth; ++c) {
      past[j][c] = element(raw, c);
    }
  }
}

/// The rows that a thread reads, copied to shared memory some steps before they are wanted: as many bytes under way as
/// the memory needs, in no registers. Each thread reads what it copied itself: no barrier. `kArrays` of T (x, or x and
/// dy), and the positions where kLimited. Packs of two bytes cannot be copied so: they are read when wanted.
template <class T, int kWidth, int kArrays, bool kLimited>
struct ConvFeed {
  static constexpr int kBytes = kWidth * static_cast<int>(sizeof(T));
  static constexpr bool kCopies = kBytes >= 4;
  static constexpr int kStages = kArrays * kBytes <= 16 ? 8 : 4;  // a power of two; 32 KiB a block
  using Pack = Raw<T, kWidth>;

  struct Storage {
    Pack packs[kCopies ? kStages : 1][kArrays][kConvThreads];
    int64_t positions[kCopies && kLimited ? kStages : 1][kCopies && kLimited ? kConvThreads : 1];
  };
  struct Row {
    Pack pack[kArrays];
    int limit;
  };

  Storage& storage;
  const int thread, kept, rows;
  const T* from[kArrays];
  int64_t stride[kArrays];
  const int64_t* position;
  int64_t position_stride;

  /// Of steps [t0, t0 + rows) of row b.
  __device__ ConvFeed(Storage& shared, const View<const T, 3> (&views)[kArrays],
                      const View<const int64_t, 2>& positions, int last_tap, const ConvPlace& place, int row_count)
      : storage(shared),
        thread(static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x)),
        kept(last_tap),
        rows(row_count) {
#pragma unroll
    for (int a = 0; a < kArrays; ++a) {
      stride[a] = views[a].stride[1];
      from[a] = views[a].data + place.b * views[a].stride[0] + place.t0 * stride[a] + place.channel;
    }
    position_stride = positions.stride[1];
    position =
        kLimited && positions ? positions.data + place.b * positions.stride[0] + place.t0 * position_stride : nullptr;
    if constexpr (kCopies) {
#pragma unroll
      for (int i = 0; i < kStages - 1; ++i) {
        request(i);
      }
    }
  }

  __device__ void request(int i) {
    if (i < rows) {
#pragma unroll
      for (int a = 0; a < kArrays; ++a) {
        copy_async<kBytes>(&storage.packs[i % kStages][a][thread], from[a] + i * stride[a]);
      }
      if (kLimited && position) {
        copy_async<8>(&storage.positions[i % kStages][thread], position + i * position_stride);
      }
    }
    end_copies();
  }

  /// Row i; to be called for each in turn.
  __device__ Row take(int i) {
    Row row;
    if constexpr (kCopies) {
      request(i + kStages - 1);
      wait_for_copies<kStages - 1>();
    }
#pragma unroll
    for (int a = 0; a < kArrays; ++a) {
      row.pack[a] = kCopies ? storage.packs[i % kStages][a][thread] : load_raw<T, kWidth>(from[a] + i * stride[a]);
    }
    row.limit = kept;
    if (kLimited && position) {
      const int64_t at = kCopies ? storage.positions[i % kStages][thread] : position[i * position_stride];
      row.limit = at < kept ? static_cast<int>(at) : kept;
    }
    return row;
  }
};

/// find_row_end by all threads of a block, each of which gets it.
__device__ inline ConvRowEnd find_row_end_on_device(const View<const int64_t, 2>& position, int64_t b, int64_t length,
                                                    int64_t kept) {
  __shared__ int nearest;
  int64_t end = length - 1;
  if (position) {
    for (; end >= 0; end -= blockDim.x) {
      __syncthreads();
      if (threadIdx.x == 0) {
        nearest = static_cast<int>(blockDim.x);
      }
      __syncthreads();
      const int64_t t = end - threadIdx.x;
      if (t >= 0 && position(b, t) >= 0) {
        atomicMin(&nearest, static_cast<int>(threadIdx.x));
      }
      __syncthreads();
      if (nearest < static_cast<int>(blockDim.x)) {
        end -= nearest;
        break;
      }
    }
    end = end < 0 ? -1 : end;
  }
  if (!position || end < 0) {
    return {end + 1 - kept, 0};
  }
  const int64_t before = kept - 1 - position(b, end);
  return {end + 1 - kept, before > 0 ? before : 0};
}

}  // namespace blockstate::kernels::cuda
