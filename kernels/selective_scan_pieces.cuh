// SPDX-License-Identifier: Apache-2.0
// What the steps of a piece of time leave in the state, and the factor of the state before them, for all pieces side by
// side. The walk goes back from a piece's end, and for a group of states stops where nothing earlier can be seen any
// more, so that it is short wherever the scan forgets, and for the fast states in any case.
#pragma once

#include <algorithm>

#include "kernels/scan_windows.h"
#include "kernels/selective_scan.cuh"

namespace blockstate::kernels::cuda::scan {

/// From a decay of 2^-kFaint on, tiles are skipped that can add no more than 2^-kNegligible of a state. From
/// 2^-kForgotten on, what is earlier is multiplied by 0: the walk ends.
inline constexpr float kFaint = 24.0f;
inline constexpr float kNegligible = 36.0f;
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

  __device__ int64_t begin(int64_t piece) const {
    const int64_t window = piece / of_window;
    const int64_t at = windows.begin(window) + piece % of_window * steps;
    return min(at, windows.end(window));
  }
  __device__ int64_t end(int64_t piece) const { return min(begin(piece) + steps, windows.end(piece / of_window)); }
};

// A block has 32 channels and 16 states of one piece; a warp 4 of the states, a lane a channel.
template <class T, bool kPosition>
__global__ void __launch_bounds__(kTileThreads, 4)
    walk_back_kernel(const __grid_constant__ SelectiveScanForward<T, float> args, int64_t groups, int64_t state_blocks,
                     Pieces pieces, float* __restrict__ left, float* __restrict__ factor) {
  __shared__ float4 shared_dt[kBlocks][kTileChannels];
  __shared__ float4 shared_w[kBlocks][kTileChannels];
  __shared__ float4 shared_B[kTileSteps][4];
  const int64_t width = args.u.size[2];
  const int states = static_cast<int>(args.A.size[1]);
  int64_t rest = blockIdx.x;
  const int64_t group = rest % groups;
  rest /= groups;
  const int first_state = static_cast<int>(rest % state_blocks) * 16;
  rest /= state_blocks;
  const int64_t piece = rest % pieces.count;
  const int64_t b = rest / pieces.count;
  const int64_t begin = pieces.begin(piece), end = pieces.end(piece);
  const int64_t tiles = ceil_div(end - begin, int64_t{kTileSteps});  // the last may be short

  const int pair = threadIdx.x % kPairs;
  const int block_of_thread = threadIdx.x / kPairs;
  const int64_t channel = group * kTileChannels + 2 * pair;
  const PairAccess u_access = pair_access(args.u, channel);
  const bool whole_pairs = u_access.whole && pairs_aligned(args.delta);
  const float bias_low = args.delta_bias && channel < width ? args.delta_bias(channel) : 0.0f;
  const float bias_high = args.delta_bias && channel + 1 < width ? args.delta_bias(channel + 1) : 0.0f;
  const bool B_whole = states % 4 == 0 && quads_aligned(args.B);

  const int slot = threadIdx.x % 32;
  const int quad = threadIdx.x / 32;
  const int first = first_state + 4 * quad;
  const int64_t scanned = group * kTileChannels + channel_of_slot(slot);
  float A[4] = {}, h[4] = {};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (scanned < width && first + i < states) {
      A[i] = base2_decay(args.A(scanned, first + i));
    }
  }
  const bool exists = scanned < width && first < states;
  float slowest = -3.0e38f;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    slowest = first + i < states ? fmaxf(slowest, A[i]) : slowest;
  }

  ChannelPair<T> u[4], delta[4];
  StateQuad<T> B;
  const auto load_tile = [&](int64_t t0) {
    const int64_t t = t0 + 4 * block_of_thread;
    const T* u_row = args.u.data + b * args.u.stride[0] + t * args.u.stride[1] + channel;
    const T* delta_row = args.delta.data + b * args.delta.stride[0] + t * args.delta.stride[1] + channel;
    const int rows = static_cast<int>(min(int64_t{4}, end - t));  // or none, below 1
    if (whole_pairs && rows == 4) {
      load_whole_rows(u_row, args.u.stride[1], u);
      load_whole_rows(delta_row, args.delta.stride[1], delta);
    } else {
      load_rows(u_row, args.u.stride[1], rows, u_access, u);
      load_rows(delta_row, args.delta.stride[1], rows, u_access, delta);
    }
    B = {};
    const int n = first_state + threadIdx.x % 4 * 4;
    if (n < states && t0 + threadIdx.x / 4 < end) {
      B.load(args.B.data + b * args.B.stride[0] + (t0 + threadIdx.x / 4) * args.B.stride[1], n, states, B_whole);
    }
  };

  float past = 0;  // sum of dt from the tile's end to the piece's
  bool done = !__any_sync(0xffffffffu, exists);
  bool cut = false;  // a record starts: nothing before it counts
  if (tiles > 0) {
    load_tile(begin + (tiles - 1) * kTileSteps);
  }
  for (int64_t tile = tiles - 1; tile >= 0; --tile) {
    TileSteps steps =
        tile_steps<kPosition>(args.position, b, begin + tile * kTileSteps, end - begin - tile * kTileSteps);
    if (kPosition && steps.starts != 0) {
      cut = true;
      steps.valid &= 0xffffffffu << (31 - __clz(static_cast<int>(steps.starts)));
    }
    if (steps.valid == 0xffffffffu) {
      prepare_steps<true>(u, delta, bias_low, bias_high, ~0u, &shared_dt[block_of_thread][pair],
                          &shared_w[block_of_thread][pair]);
    } else {
      prepare_steps<false>(u, delta, bias_low, bias_high, steps.valid >> (4 * block_of_thread),
                           &shared_dt[block_of_thread][pair], &shared_w[block_of_thread][pair]);
    }
    const bool counts = (steps.valid >> (threadIdx.x / 4) & 1u) != 0;
    shared_B[threadIdx.x / 4][threadIdx.x % 4] = counts ? B.as_float() : make_float4(0, 0, 0, 0);
    __syncthreads();

    if (tile > 0) {
      load_tile(begin + (tile - 1) * kTileSteps);
    }
    if (!done) {
      float since = 0;  // sum of dt from a step to the tile's end
      float offset[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        offset[i] = A[i] * past;
      }
      bool needed = true;
      float sum = 0;
      if (__all_sync(0xffffffffu, !exists || slowest * past < -kFaint)) {
        const float4 own = shared_B[slot][quad];
        const float largest_B = warp_max(fmaxf(fmaxf(fabsf(own.x), fabsf(own.y)), fmaxf(fabsf(own.z), fabsf(own.w))));
        float largest_w = 0;
#pragma unroll
        for (int block = 0; block < kBlocks; ++block) {
          const float4 dt = shared_dt[block][slot];
          const float4 w = shared_w[block][slot];
          sum += (dt.x + dt.y) + (dt.z + dt.w);
          largest_w = fmaxf(fmaxf(largest_w, fmaxf(fabsf(w.x), fabsf(w.y))), fmaxf(fabsf(w.z), fabsf(w.w)));
        }
        bool negligible = true;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float most = kTileSteps * largest_w * largest_B * exp2_approx(offset[i] + kNegligible);
          negligible = negligible && (first + i >= states || most <= fabsf(h[i]));
        }
        needed = __any_sync(0xffffffffu, exists && !negligible);
      }
      if (!needed) {
        since = sum;
      } else {
#pragma unroll 2
        for (int block = kBlocks - 1; block >= 0; --block) {
          const float4 dt = shared_dt[block][slot];
          const float4 w = shared_w[block][slot];
#pragma unroll
          for (int j = 3; j >= 0; --j) {
            const float4 b_of_step = shared_B[4 * block + j][quad];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              const float decay = exp2_approx(fmaf(A[i], since, offset[i]));
              h[i] = fmaf(decay, component(w, j) * component(b_of_step, i), h[i]);
            }
            since += component(dt, j);
          }
        }
      }
      past += since;
      done = __all_sync(0xffffffffu, !exists || slowest * past < -kForgotten);
    }
    if (__syncthreads_and(done || cut)) {
      break;
    }
  }
  if (exists) {
    const int64_t at = ((piece * pieces.piece_stride + b * pieces.row_stride) * width + scanned) * states + first;
    for (int i = 0; i < 4 && first + i < states; ++i) {
      left[at + i] = h[i];
      factor[at + i] = cut ? 0.0f : exp2_approx(A[i] * past);
    }
  }
}

template <class T>
void walk_back(const Exec& exec, const SelectiveScanForward<T, float>& args, const Pieces& pieces, float* left,
               float* factor) {
  const int64_t groups = ceil_div(args.u.size[2], int64_t{kTileChannels});
  const int64_t state_blocks = ceil_div(args.A.size[1], int64_t{16});
  const unsigned blocks = static_cast<unsigned>(groups * state_blocks * pieces.count * args.u.size[0]);
  const auto kernel = args.position ? walk_back_kernel<T, true> : walk_back_kernel<T, false>;
  kernel<<<blocks, kTileThreads, 0, stream_of(exec)>>>(args, groups, state_blocks, pieces, left, factor);
  check_launch(exec, "selective_scan");
}

}  // namespace blockstate::kernels::cuda::scan
