// SPDX-License-Identifier: Apache-2.0
// How the fast kernels of the selective scan's backward are laid out over lanes, and how a lane reads and writes.
#pragma once

#include <type_traits>

#include "kernels/selective_scan_bwd_cuda.cuh"

namespace blockstate::kernels::cuda::scan_backward {

inline constexpr int kMostStates = 16;
inline constexpr int kWarps = 4;
inline constexpr int kBlockThreads = 32 * kWarps;
inline constexpr int kBlockChannels = 16 * kWarps;
inline constexpr int kChunk = 8;                // steps in registers
inline constexpr int kChunks = kTile / kChunk;  // of a tile

/// What the fast kernels need beyond Window.
struct TilePlan {
  // Bytes from step to step where `vector` holds: pairs of channels and fours of states are moved as one.
  uint32_t u, delta, z, dy, du, ddelta, dz, B, C;
  float* scratch;  // kBlockScratch floats a block
  float* edge;     // (batch, parts of segments, D, N, 2): what one adds to the adjoint at its left edge, and its decay
  unsigned* counter;  // of the work items that have been taken
};

// --- elements as they lie in memory: kept so until they are used, for a conversion would wait for the load -----------

template <class T, int N>
struct alignas(N * sizeof(T)) Raw {
  uint32_t word[N * sizeof(T) / 4];
};

template <int N>
__device__ inline void to_floats(const Raw<BFloat16, N>& raw, float (&to)[N]) {
#pragma unroll
  for (int i = 0; i < N; i += 2) {
    to[i] = __uint_as_float(raw.word[i / 2] << 16);
    to[i + 1] = __uint_as_float(raw.word[i / 2] & 0xffff0000u);
  }
}
template <int N>
__device__ inline void to_floats(const Raw<float, N>& raw, float (&to)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    to[i] = __uint_as_float(raw.word[i]);
  }
}

__device__ inline void put(Raw<float, 2>& raw, int i, float value) { raw.word[i] = __float_as_uint(value); }
__device__ inline void put(Raw<float, 4>& raw, int i, float value) { raw.word[i] = __float_as_uint(value); }
template <int N>
__device__ inline void put(Raw<BFloat16, N>& raw, int i, BFloat16 value) {
  const uint32_t shift = static_cast<uint32_t>(i) % 2 * 16;
  raw.word[i / 2] = (raw.word[i / 2] & ~(0xffffu << shift)) | static_cast<uint32_t>(value.bits) << shift;
}

template <class T, int N>
__device__ inline Raw<T, N> filled(float value) {
  Raw<T, N> raw;
#pragma unroll
  for (uint32_t& word : raw.word) {
    word =
        sizeof(T) == 4 ? __float_as_uint(value) : __float_as_uint(value) >> 16 | (__float_as_uint(value) & 0xffff0000u);
  }
  return raw;
}

/// Neighbours from `from` of which `count` exist; the others, and all where not `inside`, are `other`.
template <bool kVector, int N, class T>
__device__ inline Raw<T, N> load_raw(const T* from, int count, bool inside, float other = 0) {
  Raw<T, N> raw = filled<T, N>(other);
  if constexpr (kVector) {
    if (inside) {
      raw = *reinterpret_cast<const Raw<T, N>*>(from);
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (inside && i < count) {
        put(raw, i, from[i]);
      }
    }
  }
  return raw;
}

template <bool kVector>
__device__ inline void store_two(BFloat16* to, const float (&from)[2], int count) {
  if constexpr (kVector) {
    const __nv_bfloat162 two = __floats2bfloat162_rn(from[0], from[1]);
    __stcs(reinterpret_cast<unsigned*>(to), *reinterpret_cast<const unsigned*>(&two));
  } else {
    for (int i = 0; i < count; ++i) {
      to[i] = from_float<BFloat16>(from[i]);
    }
  }
}
template <bool kVector>
__device__ inline void store_two(float* to, const float (&from)[2], int count) {
  if constexpr (kVector) {
    __stcs(reinterpret_cast<float2*>(to), make_float2(from[0], from[1]));
  } else {
    for (int i = 0; i < count; ++i) {
      to[i] = from[i];
    }
  }
}

/// Row `t` behind `from`: 32-bit strides where the plan has them, for one multiplication an address.
template <bool kVector, class T>
__device__ inline T* row_of(T* from, int t, uint32_t bytes, int64_t stride) {
  if constexpr (kVector) {
    using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
    return reinterpret_cast<T*>(reinterpret_cast<Byte*>(from) +
                                static_cast<uint64_t>(static_cast<uint32_t>(t)) * bytes);
  } else {
    return from + t * stride;
  }
}

// --- lanes
// ------------------------------------------------------------------------------------------------------------

/// Where a lane stands. For arrays it is a pair of neighbouring channels at steps `row` and `row + 4` of a chunk; in
/// the recurrences it is the channels `channel`, `channel + 1` and the states `state` .. `state + 3`; for B and C, step
/// lane / 4 of a chunk and the same states.
struct Lane {
  int lane, row, pair, pair_count;
  int64_t pair_channel, channel;
  int state, count, state_count;  // counts: those that exist
  __device__ Lane(int64_t slab, int64_t width, int64_t states) {
    lane = static_cast<int>(threadIdx.x % 32);
    const int64_t first = slab * kBlockChannels + threadIdx.x / 32 * 16;
    row = lane / 8;
    pair = lane % 8;
    pair_channel = first + 2 * pair;
    pair_count = static_cast<int>(max(int64_t{0}, min(int64_t{2}, width - pair_channel)));
    channel = first + 2 * (lane / 4);
    count = static_cast<int>(max(int64_t{0}, min(int64_t{2}, width - channel)));
    state = lane % 4 * 4;
    state_count = static_cast<int>(states) - state;
  }
};

/// A lane's states or sums: two channels, four states.
using States = float[2][4];

template <class Use>
__device__ inline void for_lane(const Lane& lane, Use&& use) {
#pragma unroll
  for (int c = 0; c < 2; ++c) {
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      if (c < lane.count && s < lane.state_count) {
        use(c, s, lane.channel + c, int64_t{lane.state + s});
      }
    }
  }
}

template <class Load>
__device__ inline void load_lane(States& to, const Lane& lane, Load&& load) {
#pragma unroll
  for (int c = 0; c < 2; ++c) {
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      to[c][s] = c < lane.count && s < lane.state_count ? load(lane.channel + c, int64_t{lane.state + s}) : 0.0f;
    }
  }
}

/// Of the steps of one chunk: which are no padding, and which start a record.
struct Steps {
  unsigned valid, starts;
};

template <bool kPosition>
__device__ inline Steps look_at_steps(View<const int64_t, 2> position, int64_t b, int64_t t0, int count, int lane) {
  Steps steps{(1u << kChunk) - 1u, 0u};
  if (kPosition && position) {
    const int64_t at = lane < min(count, kChunk) ? position(b, t0 + lane) : 1;
    steps.starts = __ballot_sync(~0u, at == 0);
    steps.valid &= ~__ballot_sync(~0u, at < 0);
  }
  return steps;
}

/// The first tile of a segment of a window; that of segment `segments` is the window's end.
__device__ inline int64_t first_tile(const Window& window, int64_t segment) {
  return segment == 0
             ? 0
             : window.head + (window.tiles - window.head) * (segment - 1) / max(window.segments - 1, int64_t{1});
}

/// The same for the `parts` that the edges' pass cuts every segment into; they are numbered through.
__device__ inline int64_t first_tile_of_part(const Window& window, int64_t part) {
  const int64_t segment = part / window.parts;
  const int64_t first = first_tile(window, segment);
  const int64_t within = part % window.parts;
  return within == 0 ? first : first + (first_tile(window, segment + 1) - first) * within / window.parts;
}

/// Of one warp: what both sweeps and the edges' pass read. Channels are local to the warp.
struct StepStage {
  float dtw[kChunk][8][4];  // dt of two channels, then dt * u of them
  float bc[kChunk][32];     // B, then C
};

template <class T>
__device__ inline void store_floats(float* to, const Raw<T, 4>& raw, bool valid) {
  float x[4];
  to_floats(raw, x);
  *reinterpret_cast<float4*>(to) = valid ? make_float4(x[0], x[1], x[2], x[3]) : make_float4(0, 0, 0, 0);
}

/// This delta makes dt = 0 and its slope 0: the step passes the state and its gradient unchanged.
inline constexpr float kNoStep = -1e30f;

template <class T>
__device__ inline void ignore_padding(Raw<T, 2>& raw, bool valid, float other = 0) {
  if (!valid) {
    raw = filled<T, 2>(other);
  }
}

}  // namespace blockstate::kernels::cuda::scan_backward
