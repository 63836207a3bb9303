// SPDX-License-Identifier: Apache-2.0
// What the steps of a piece of time leave in the state, and the factor of the state before them, for all pieces side by
// side:
//   left[n] = sum over steps t of dt[t] u[t] B[t, n] exp(A[n] since[t]),  since[t]: the sum of dt after t,
//   factor[n] = exp(A[n] * the sum of all dt).
// The walk goes back from a piece's end in chunks of steps. A warp takes one channel of a chunk, its lanes runs of
// steps, so that each state of each channel is summed up only as far back as it remembers: what is forgotten differs by
// orders of magnitude between channels and between states.
#pragma once

#include "kernels/scan_windows.h"
#include "kernels/selective_scan_pieces_tile.cuh"

namespace blockstate::kernels::cuda::scan {

/// Chunks are left out of a state's sum as long as all of them together can add no more than 2^-kNegligible of it.
inline constexpr float kNegligible = 24.0f;
/// What is behind a decay of 2^-kForgotten is multiplied by 0.
inline constexpr float kForgotten = 127.0f;

/// Windows of time, each cut into pieces of `steps` from its start, the last of them shorter or empty. The first
/// `count` of all pieces are walked.
struct Pieces {
  ScanWindows windows;
  int64_t steps;
  int64_t of_window;
  int64_t count;
  // Where what is found of a piece and a row of the batch goes, in (D, N) arrays.
  int64_t piece_stride;
  int64_t row_stride;

  struct Range {
    int64_t begin, end;
  };
  __device__ Range range(uint32_t piece) const {
    const uint32_t each = static_cast<uint32_t>(of_window), window = piece / each;
    const int64_t last = windows.end(window);
    const int64_t begin = min(windows.begin(window) + piece % each * steps, last);
    return {begin, min(begin + steps, last)};
  }
};

/// The sums over a warp of kCount values, a power of two: lane i has that of value i / (32 / kCount).
template <int kCount>
__device__ inline float warp_sums(float (&value)[kCount], int lane) {
  int width = 16;
#pragma unroll
  for (int half = kCount / 2; half > 0; half /= 2, width /= 2) {
    const bool upper = (lane & width) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const float other = upper ? value[i] : value[i + half];
      const float own = upper ? value[i + half] : value[i];
      value[i] = own + __shfl_xor_sync(0xffffffffu, other, width);
    }
  }
#pragma unroll
  for (; width > 0; width /= 2) {
    value[0] += __shfl_xor_sync(0xffffffffu, value[0], width);
  }
  return value[0];
}

/// What a chunk adds to pairs of a channel's states, each given by its first: lane i has the sum of the one in place
/// i / (16 / kPairsAtOnce).
template <int kPairsAtOnce, class T>
__device__ inline float chunk_adds(const BackTile<T>& tile, int channel, const int (&pair)[kPairsAtOnce], int lane,
                                   const float (&since)[kRun], const float (&w)[kRun]) {
  float sum[2 * kPairsAtOnce];
#pragma unroll
  for (int p = 0; p < kPairsAtOnce; ++p) {
    float A[2];
    load_pack<2>(&tile.A[channel][pair[p]], A);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sum[2 * p + i] = 0;
#pragma unroll
      for (int part = 0; part < kRunQuads; ++part) {
        const float4 B = tile.B[pair[p] + i][part * kPartStride + lane];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int t = 4 * part + j;
          sum[2 * p + i] = fmaf(exp2_approx(A[i] * since[t]), w[t] * component(B, j), sum[2 * p + i]);
        }
      }
    }
  }
  return warp_sums(sum, lane);
}

/// Takes a chunk of a channel into its states. Called by a warp.
template <class T>
__device__ inline void walk_chunk(BackTile<T>& tile, int channel, float largest_B, int states) {
  const int lane = threadIdx.x % 32, n = lane % kBackStates;
  const float bias = tile.bias[channel], past = tile.past[channel];
  const float A = tile.A[channel][n], skipped = tile.skipped[channel][n];
  float h = tile.h[channel][n];
  float dt[kRun], w[kRun], since[kRun];
  load_run<T>(tile.delta, channel, lane, dt);
  load_run<T>(tile.u, channel, lane, w);
  float sum = 0, largest_w = 0;
#pragma unroll
  for (int t = kRun - 1; t >= 0; --t) {
    dt[t] = softplus(dt[t] + bias);
    w[t] *= dt[t];
    sum += dt[t];
    largest_w = fmaxf(largest_w, fabsf(w[t]));
  }
#pragma unroll
  for (int width = 1; width < 32; width *= 2) {
    const float later = __shfl_down_sync(0xffffffffu, sum, width);
    sum += lane + width < 32 ? later : 0.0f;
  }
  const float after = __shfl_down_sync(0xffffffffu, sum, 1);
  since[kRun - 1] = past + (lane < 31 ? after : 0.0f);
#pragma unroll
  for (int t = kRun - 1; t > 0; --t) {
    since[t - 1] = since[t] + dt[t];
  }
  const float now_past = past + __shfl_sync(0xffffffffu, sum, 0);

  largest_w = __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(largest_w)));
  const float most = skipped + kBackChunk * largest_w * largest_B * exp2_approx(fmaf(A, past, kNegligible));
  const bool negligible = most <= fabsf(h);
  const uint32_t alive = __ballot_sync(0xffffffffu, n < states && !negligible);
  // Pairs of states of which one is alive, by their first; two pairs at a time.
  for (uint32_t pairs = (alive | alive >> 1) & 0x5555u; pairs != 0;) {
    const int low = __ffs(pairs) - 1;
    pairs &= pairs - 1;
    if (pairs != 0) {
      const int high = __ffs(pairs) - 1;
      pairs &= pairs - 1;
      const float adds = chunk_adds<2>(tile, channel, {low, high}, lane, since, w);
      const bool is_high = (n & ~1) == high;
      const float own = __shfl_sync(0xffffffffu, adds, (n % 2 + (is_high ? 2 : 0)) * 8);
      h += is_high || (n & ~1) == low ? own : 0.0f;
    } else {
      const float adds = chunk_adds<1>(tile, channel, {low}, lane, since, w);
      const float own = __shfl_sync(0xffffffffu, adds, n % 2 * 16);
      h += (n & ~1) == low ? own : 0.0f;
    }
  }
  const bool forgotten = __all_sync(0xffffffffu, n >= states || A * now_past < -kForgotten);
  __syncwarp();  // all have read what is now written
  if (lane < kBackStates) {
    tile.h[channel][n] = h;
    if (negligible) {
      tile.skipped[channel][n] = most;
    }
  }
  if (lane == 0) {
    tile.past[channel] = now_past;
    if (forgotten) {
      atomicOr(&tile.forgotten, 1u << channel);
    }
  }
}

/// The channels that a warp walks, a bit each: its share of those in `live`.
__device__ inline uint32_t channels_of_warp(uint32_t live) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int rank = __popc(live & ((1u << lane) - 1));
  return __ballot_sync(0xffffffffu, (live >> lane & 1u) != 0 && rank % (kBackThreads / 32) == warp);
}

// A block has 32 channels and 16 states of one piece.
template <class T, bool kPosition>
__global__ void __launch_bounds__(kBackThreads, sizeof(T) == 2 ? 3 : 2)
    walk_back_kernel(const __grid_constant__ SelectiveScanForward<T, float> args, uint32_t groups,
                     uint32_t state_blocks, Pieces pieces, float* __restrict__ left, float* __restrict__ factor) {
  extern __shared__ float4 shared_memory[];
  BackTile<T>& tile = *reinterpret_cast<BackTile<T>*>(shared_memory);
  const int64_t width = args.u.size[2];
  uint32_t rest = blockIdx.x;  // and all it is made of is counted in 32 bits, whose divisions are short
  const int64_t first_channel = int64_t{kTileChannels} * (rest % groups);
  rest /= groups;
  const int first_state = kBackStates * static_cast<int>(rest % state_blocks);
  rest /= state_blocks;
  const uint32_t piece = rest % static_cast<uint32_t>(pieces.count), b = rest / static_cast<uint32_t>(pieces.count);
  const auto [begin, end] = pieces.range(piece);
  const int states = min(static_cast<int>(args.A.size[1]) - first_state, kBackStates);
  const int channels = static_cast<int>(min(width - first_channel, int64_t{kTileChannels}));

  for (int i = threadIdx.x; i < kTileChannels * kBackStates; i += kBackThreads) {
    const int c = i / kBackStates, n = i % kBackStates;
    tile.A[c][n] = c < channels && n < states ? base2_decay(args.A(first_channel + c, first_state + n)) : 0.0f;
    tile.h[c][n] = tile.skipped[c][n] = 0;
  }
  if (threadIdx.x < kTileChannels) {
    const int c = threadIdx.x;
    tile.past[c] = 0;
    tile.bias[c] = args.delta_bias && c < channels ? args.delta_bias(first_channel + c) : 0.0f;
  }
  if (threadIdx.x == 0) {
    tile.forgotten = channels < kTileChannels ? ~0u << channels : 0u;  // those that do not exist
    tile.largest_B[0] = tile.largest_B[1] = 0;
  }
  __syncthreads();

  int64_t chunk = ceil_div(end - begin, int64_t{kBackChunk}) - 1;
  BackLoader<T> loader(args, b, first_channel, first_state, begin + chunk * kBackChunk, end);
  bool cut = false;
  uint32_t forgotten;
  for (int buffer = 0; chunk >= 0 && !cut && (forgotten = tile.forgotten) != ~0u; --chunk, buffer ^= 1) {
    cut = loader.template load<kPosition>(tile, begin + chunk * kBackChunk, buffer);
    const float largest_B = __uint_as_float(tile.largest_B[buffer]);
    for (uint32_t rest_of_mine = channels_of_warp(~forgotten); rest_of_mine != 0; rest_of_mine &= rest_of_mine - 1) {
      walk_chunk(tile, __ffs(rest_of_mine) - 1, largest_B, states);
    }
    __syncthreads();
  }

  const int64_t row = (piece * pieces.piece_stride + b * pieces.row_stride) * width + first_channel;
  for (int i = threadIdx.x; i < kTileChannels * kBackStates; i += kBackThreads) {
    const int c = i / kBackStates, n = i % kBackStates;
    if (c < channels && n < states) {
      const int64_t at = (row + c) * args.A.size[1] + first_state + n;
      left[at] = tile.h[c][n];
      factor[at] = cut ? 0.0f : exp2_approx(tile.A[c][n] * tile.past[c]);
    }
  }
}

template <class T>
void walk_back(const Exec& exec, const SelectiveScanForward<T, float>& args, const Pieces& pieces, float* left,
               float* factor) {
  const int64_t groups = ceil_div(args.u.size[2], int64_t{kTileChannels});
  const int64_t state_blocks = ceil_div(args.A.size[1], int64_t{kBackStates});
  const int64_t blocks = groups * state_blocks * pieces.count * args.u.size[0];
  require(blocks <= INT32_MAX, "selective_scan: ", args.u.size[0], " rows in ", pieces.count,
          " pieces of time are too many for one call");
  const auto kernel = args.position ? walk_back_kernel<T, true> : walk_back_kernel<T, false>;
  constexpr int kBytes = static_cast<int>(sizeof(BackTile<T>));
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), "selective_scan");
  kernel<<<static_cast<uint32_t>(blocks), kBackThreads, kBytes, stream_of(exec)>>>(
      args, static_cast<uint32_t>(groups), static_cast<uint32_t>(state_blocks), pieces, left, factor);
  check_launch(exec, "selective_scan");
}

}  // namespace blockstate::kernels::cuda::scan
