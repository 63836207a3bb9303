// SPDX-License-Identifier: Apache-2.0
// Device code that the kernels of the selective scan share: its functions, and how a tile of steps is read.
#pragma once

#include <cstdint>

#include "kernels/cuda_support.cuh"
#include "kernels/selective_scan.h"

namespace blockstate::kernels::cuda::scan {

inline constexpr float kLog2E = 1.4426950408889634f;

/// 2^x by the special-function unit; 0 below the normal numbers.
__device__ inline float exp2_approx(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

/// log(1 + e^x) = max(x, 0) + log1p(q), q = e^-|x|; log1p(q) = q P(q), to 1.2e-7 of itself on [0, 1].
__device__ inline float softplus(float x) {
  const float q = exp2_approx(fabsf(x) * -kLog2E);
  float p = -3.1760570127516985e-3f;
  p = fmaf(p, q, 1.9542526453733444e-2f);
  p = fmaf(p, q, -5.6373611092567444e-2f);
  p = fmaf(p, q, 1.0543623566627502e-1f);
  p = fmaf(p, q, -1.5269666910171509e-1f);
  p = fmaf(p, q, 1.9663274288177490e-1f);
  p = fmaf(p, q, -2.4951615929603577e-1f);
  p = fmaf(p, q, 3.3329710364341736e-1f);
  p = fmaf(p, q, -4.9999892711639404e-1f);
  p = fmaf(p, q, 1.0f);
  return fmaf(q, p, fmaxf(x, 0.0f));
}

/// 1 / (1 + e^-x); 0 and 1 at the ends.
__device__ inline float sigmoid(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(1.0f + exp2_approx(x * -kLog2E)));
  return result;
}
__device__ inline float silu(float x) { return x * sigmoid(x); }

/// A in base-2 units. Clamped so that a step of 0 (padding) times it is 0.
__device__ inline float base2_decay(float a) { return fmaxf(a * kLog2E, -3.0e38f); }

// --- a tile: kTileSteps steps of kTileChannels channels, read by kTileThreads threads
// -----------------------------------
//
// Thread i reads 2 neighbouring channels, pair i % 16, in 4 neighbouring steps, block i / 16. In shared memory what it
// computes lies as [block][slot] float4 over the 4 steps, where the even channels take the first 16 slots: the lanes of
// a warp then write neighbours.

inline constexpr int kTileSteps = 32;
inline constexpr int kTileChannels = 32;
inline constexpr int kTileThreads = 128;
inline constexpr int kPairs = kTileChannels / 2;
inline constexpr int kBlocks = kTileSteps / 4;
static_assert(kPairs * kBlocks == kTileThreads, "a thread has one pair and one block");

__device__ constexpr int channel_of_slot(int slot) { return 2 * (slot % kPairs) + slot / kPairs; }

template <class T>
struct ChannelPair {
  T low, high;
};
template <>
struct ChannelPair<BFloat16> {
  uint32_t bits;
};
__device__ inline float low_of(ChannelPair<float> pair) { return pair.low; }
__device__ inline float high_of(ChannelPair<float> pair) { return pair.high; }
__device__ inline float low_of(ChannelPair<BFloat16> pair) { return __uint_as_float(pair.bits << 16); }
__device__ inline float high_of(ChannelPair<BFloat16> pair) { return __uint_as_float(pair.bits & 0xffff0000u); }
__device__ inline ChannelPair<float> pair_of(float low, float high) { return {low, high}; }
__device__ inline ChannelPair<BFloat16> pair_of(BFloat16 low, BFloat16 high) {
  return {static_cast<uint32_t>(low.bits) | static_cast<uint32_t>(high.bits) << 16};
}

/// How a thread reads its channels: both by one load, or those that exist one by one.
struct PairAccess {
  int channels;  // 0, 1 or 2
  bool whole;
};

/// True where pairs of channels can be moved as one: even rows, and a start on a multiple of a pair.
template <class T>
__device__ bool pairs_aligned(const View<T, 3>& view) {
  return (view.stride[0] | view.stride[1]) % 2 == 0 && reinterpret_cast<uintptr_t>(view.data) % (2 * sizeof(T)) == 0;
}

template <class T>
__device__ PairAccess pair_access(const View<T, 3>& view, int64_t channel) {
  const int64_t left = view.size[2] - channel;
  const int channels = left >= 2 ? 2 : left == 1 ? 1 : 0;
  return {channels, channels == 2 && pairs_aligned(view)};
}

/// Four rows of a pair, all there.
template <class T>
__device__ inline void load_whole_rows(const T* from, int64_t stride, ChannelPair<T> (&to)[4]) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    to[j] = *reinterpret_cast<const ChannelPair<T>*>(from + j * stride);
  }
}

/// Four rows of a pair; rows from `rows` on, and absent channels, read as 0.
template <class T>
__device__ inline void load_rows(const T* from, int64_t stride, int rows, PairAccess access, ChannelPair<T> (&to)[4]) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const T* row = from + j * stride;
    const T low = j < rows && access.channels >= 1 ? row[0] : T{};
    const T high = j < rows && access.channels == 2 ? row[1] : T{};
    to[j] = pair_of(low, high);
  }
}

/// dt and dt * u of a pair in four steps, written where scanning lanes read them. Bit j of `valid`: step j counts. With
/// kWhole all do.
template <bool kWhole, class T>
__device__ inline void prepare_steps(const ChannelPair<T> (&u)[4], const ChannelPair<T> (&delta)[4], float bias_low,
                                     float bias_high, uint32_t valid, float4* dt, float4* w) {
  float dt_low[4], dt_high[4], w_low[4], w_high[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    dt_low[j] = softplus(low_of(delta[j]) + bias_low);
    dt_high[j] = softplus(high_of(delta[j]) + bias_high);
    w_low[j] = dt_low[j] * low_of(u[j]);
    w_high[j] = dt_high[j] * high_of(u[j]);
    if (!kWhole && (valid >> j & 1u) == 0) {  // what lies there may be anything
      dt_low[j] = dt_high[j] = w_low[j] = w_high[j] = 0;
    }
  }
  dt[0] = make_float4(dt_low[0], dt_low[1], dt_low[2], dt_low[3]);
  dt[kPairs] = make_float4(dt_high[0], dt_high[1], dt_high[2], dt_high[3]);
  w[0] = make_float4(w_low[0], w_low[1], w_low[2], w_low[3]);
  w[kPairs] = make_float4(w_high[0], w_high[1], w_high[2], w_high[3]);
}

template <class T>
__device__ ChannelPair<T> rounded_pair(float low, float high);
template <>
__device__ inline ChannelPair<float> rounded_pair<float>(float low, float high) {
  return {low, high};
}
template <>
__device__ inline ChannelPair<BFloat16> rounded_pair<BFloat16>(float low, float high) {
  const __nv_bfloat162 rounded = __floats2bfloat162_rn(low, high);
  return {*reinterpret_cast<const uint32_t*>(&rounded)};
}

/// Which steps of a tile count, and which start a record: a bit each.
struct TileSteps {
  uint32_t valid;
  uint32_t starts;
};

/// Called by whole warps. `steps`: how many steps the tile has.
template <bool kPosition>
__device__ TileSteps tile_steps(const View<const int64_t, 2>& position, int64_t b, int64_t t0, int64_t steps) {
  static_assert(kTileSteps == 32, "a lane for each step");
  if constexpr (kPosition) {
    const int lane = threadIdx.x % 32;
    const int64_t at = lane < steps ? position(b, t0 + lane) : -1;
    return {__ballot_sync(0xffffffffu, at >= 0), __ballot_sync(0xffffffffu, at == 0)};
  } else {
    return {steps >= 32 ? 0xffffffffu : (1u << steps) - 1u, 0u};
  }
}

/// Four neighbouring states of one step, as they lie in memory; states from `states` on read as 0.
template <class T>
struct StateQuad;
template <>
struct StateQuad<float> {
  float4 value;
  __device__ float4 as_float() const { return value; }
  __device__ void load(const float* row, int first, int states, bool whole) {
    if (whole) {
      value = *reinterpret_cast<const float4*>(row + first);
    } else {
      value.x = first < states ? row[first] : 0.0f;
      value.y = first + 1 < states ? row[first + 1] : 0.0f;
      value.z = first + 2 < states ? row[first + 2] : 0.0f;
      value.w = first + 3 < states ? row[first + 3] : 0.0f;
    }
  }
};
template <>
struct StateQuad<BFloat16> {
  uint2 bits;
  __device__ float4 as_float() const {
    return make_float4(__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000u),
                       __uint_as_float(bits.y << 16), __uint_as_float(bits.y & 0xffff0000u));
  }
  __device__ void load(const BFloat16* row, int first, int states, bool whole) {
    if (whole) {
      bits = *reinterpret_cast<const uint2*>(row + first);
    } else {
      const auto at = [&](int i) { return first + i < states ? static_cast<uint32_t>(row[first + i].bits) : 0u; };
      bits.x = at(0) | at(1) << 16;
      bits.y = at(2) | at(3) << 16;
    }
  }
};

/// True where every fourth element of the last dimension starts on a multiple of four elements.
template <class T, int R>
__device__ __host__ bool quads_aligned(const View<T, R>& view) {
  int64_t strides = 0;
  for (int i = 0; i < R - 1; ++i) {
    strides |= view.stride[i];
  }
  return view.stride[R - 1] == 1 && strides % 4 == 0 && reinterpret_cast<uintptr_t>(view.data) % (4 * sizeof(T)) == 0;
}

__device__ inline float component(const float4& value, int i) {
  return i == 0 ? value.x : i == 1 ? value.y : i == 2 ? value.z : value.w;
}

}  // namespace blockstate::kernels::cuda::scan
