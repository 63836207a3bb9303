// SPDX-License-Identifier: Apache-2.0
// A chunk of the walk back over a piece (selective_scan_pieces.cuh) in shared memory, and how it gets there.
#pragma once

#include "kernels/selective_scan.cuh"

namespace blockstate::kernels::cuda::scan {

inline constexpr int kBackThreads = 256;
inline constexpr int kRunQuads = 2;  // of four steps, in a lane's run
inline constexpr int kRun = 4 * kRunQuads;
inline constexpr int kBackChunk = 32 * kRun;
inline constexpr int kBackStates = 16;  // of a block
// Where a lane's second quad lies, and the next row, in quads: threads that write neighbours of either kind meet
// different banks.
inline constexpr int kPartStride = 36;
inline constexpr int kBackRow = 73;

/// A chunk of a block's 32 channels, and what is known of their states. Steps lie in quads; quad q is part q %
/// kRunQuads of lane q / kRunQuads's run, and the lanes' quads of one part are neighbours.
template <class T>
struct BackTile {
  static constexpr int kRows = kTileChannels * static_cast<int>(sizeof(T)) / 4;  // bfloat16: a pair of channels each
  float4 delta[kRows][kBackRow];
  float4 u[kRows][kBackRow];
  float4 B[kBackStates][kBackRow];
  float A[kTileChannels][kBackStates];
  float h[kTileChannels][kBackStates];
  float skipped[kTileChannels][kBackStates];  // what was left out of h, at most; times 2^kNegligible
  float past[kTileChannels];                  // sum of dt from the chunk's end to the piece's
  float bias[kTileChannels];
  uint32_t valid[kBackChunk / 32];
  uint32_t starts[kBackChunk / 32];
  uint32_t largest_B[2];  // the bits of a float; of this chunk and of the next
  uint32_t forgotten;     // channels, a bit each
};
static_assert(sizeof(BackTile<float>) <= 99 * 1024, "a block can have no more on some GPUs");

__device__ constexpr int place_of_quad(int quad) { return quad % kRunQuads * kPartStride + quad / kRunQuads; }

__device__ inline void store_quad(float4 (*rows)[kBackRow], int pair, int place, const ChannelPair<BFloat16> (&x)[4]) {
  rows[pair][place] = make_float4(__uint_as_float(x[0].bits), __uint_as_float(x[1].bits), __uint_as_float(x[2].bits),
                                  __uint_as_float(x[3].bits));
}
__device__ inline void store_quad(float4 (*rows)[kBackRow], int pair, int place, const ChannelPair<float> (&x)[4]) {
  rows[2 * pair][place] = make_float4(x[0].low, x[1].low, x[2].low, x[3].low);
  rows[2 * pair + 1][place] = make_float4(x[0].high, x[1].high, x[2].high, x[3].high);
}

/// A lane's run of one channel's steps.
template <class T>
__device__ inline void load_run(const float4 (*rows)[kBackRow], int channel, int lane, float (&to)[kRun]) {
#pragma unroll
  for (int part = 0; part < kRunQuads; ++part) {
    const float4 quad = rows[sizeof(T) == 2 ? channel / 2 : channel][part * kPartStride + lane];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t bits = __float_as_uint(component(quad, j));
      const uint32_t both = sizeof(T) == 2 ? __byte_perm(bits, 0, channel % 2 == 0 ? 0x1044 : 0x3244) : bits;
      to[4 * part + j] = __uint_as_float(both);
    }
  }
}

/// Asks for a piece's chunks, the last first, and lays them in shared memory: dt's inputs, u and B. A thread has a pair
/// of channels and every so many quads of steps, and for B four states of one quad. Steps that do not count get dt = 0
/// and B = 0.
template <class T>
class BackLoader {
 public:
  /// `t0`: where the first chunk to be loaded begins.
  __device__ BackLoader(const SelectiveScanForward<T, float>& args, int64_t b, int64_t first_channel, int first_state,
                        int64_t t0, int64_t end)
      : args_(args), b_(b), end_(end) {
    const int64_t channel = first_channel + 2 * pair_;
    access_ = pair_access(args.u, channel);
    whole_ = access_.whole && pairs_aligned(args.delta);
    states_ = static_cast<int>(args.A.size[1]);
    state_ = first_state + 4 * state_quad_;
    whole_states_ = states_ % 4 == 0 && quads_aligned(args.B);
    u_ = args.u.data + b * args.u.stride[0] + (t0 + 4 * quad_) * args.u.stride[1] + channel;
    delta_ = args.delta.data + b * args.delta.stride[0] + (t0 + 4 * quad_) * args.delta.stride[1] + channel;
    B_ = args.B.data + b * args.B.stride[0] + (t0 + 4 * B_quad_) * args.B.stride[1];
  }

  /// True where a record starts in the chunk at t0: then nothing before it counts. All threads of the block call it; it
  /// ends with a barrier.
  template <bool kPosition>
  __device__ bool load(BackTile<T>& tile, int64_t t0, int buffer) {
    bool cut = false;
    float largest_B;
    if (!kPosition && t0 + kBackChunk <= end_) {
      largest_B = load_quads<true>(tile, t0, [](int) { return 15u; });
    } else {
      const int64_t from = first_that_counts<kPosition>(tile, t0, cut);
      largest_B = load_quads<false>(tile, t0, [&](int quad) {
        const int64_t t = t0 + 4 * quad;
        uint32_t counts = first_bits(end_ - t) & ~first_bits(from - t);
        if constexpr (kPosition) {
          counts &= tile.valid[quad / 8] >> (4 * (quad % 8));
        }
        return counts;
      });
    }
    u_ -= kBackChunk * args_.u.stride[1];
    delta_ -= kBackChunk * args_.delta.stride[1];
    B_ -= kBackChunk * args_.B.stride[1];
    const uint32_t most = __reduce_max_sync(0xffffffffu, __float_as_uint(largest_B));
    if (threadIdx.x % 32 == 0) {
      atomicMax(&tile.largest_B[buffer], most);
    }
    if (threadIdx.x == 0) {
      tile.largest_B[buffer ^ 1] = 0;
    }
    __syncthreads();
    return cut;
  }

 private:
  static constexpr int kQuadsAtOnce = kBackThreads / kPairs;
  static constexpr int kItems = kBackChunk / 4 / kQuadsAtOnce;
  static_assert(kBackChunk == kBackThreads, "a thread has one quad of four states");

  static __device__ ChannelPair<BFloat16> no_step(BFloat16) { return {0xff80ff80u}; }  // -inf: softplus of it is 0
  static __device__ ChannelPair<float> no_step(float) {
    return {__int_as_float(0xff800000), __int_as_float(0xff800000)};
  }

  /// The lowest `count` of four bits; none and all beyond 0 and 4.
  static __device__ uint32_t first_bits(int64_t count) {
    return count >= 4 ? 15u : count > 0 ? (1u << static_cast<int>(count)) - 1u : 0u;
  }

  /// Of the chunk at t0; `cut` is set where a record starts there.
  template <bool kPosition>
  __device__ int64_t first_that_counts(BackTile<T>& tile, int64_t t0, bool& cut) {
    int64_t from = t0;
    if constexpr (kPosition) {
      const int warp = threadIdx.x / 32;
      if (warp < kBackChunk / 32) {
        const TileSteps steps = tile_steps<true>(args_.position, b_, t0 + 32 * warp, end_ - t0 - 32 * warp);
        tile.valid[warp] = steps.valid;
        tile.starts[warp] = steps.starts;
      }
      __syncthreads();
      for (int i = 0; i < kBackChunk / 32; ++i) {
        if (tile.starts[i] != 0) {
          cut = true;
          from = t0 + 32 * i + 31 - __clz(static_cast<int>(tile.starts[i]));
        }
      }
    }
    return from;
  }

  /// Gives the largest |B| of a thread's. `counting(quad)`: which steps of a quad count, a bit each; kAll: all do.
  template <bool kAll, class Counting>
  __device__ float load_quads(BackTile<T>& tile, int64_t t0, const Counting& counting) {
    ChannelPair<T> u[kItems][4], delta[kItems][4];
    StateQuad<T> B[4];
    const T *u_row = u_, *delta_row = delta_, *B_row = B_;
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const int64_t left = end_ - t0 - 4 * (quad_ + i * kQuadsAtOnce);
      if (whole_ && (kAll || left >= 4)) {
        load_whole_rows(u_row, args_.u.stride[1], u[i]);
        load_whole_rows(delta_row, args_.delta.stride[1], delta[i]);
      } else {
        const int rows = static_cast<int>(max(min(left, int64_t{4}), int64_t{0}));
        load_rows(u_row, args_.u.stride[1], rows, access_, u[i]);
        load_rows(delta_row, args_.delta.stride[1], rows, access_, delta[i]);
      }
      u_row += 4 * kQuadsAtOnce * args_.u.stride[1];
      delta_row += 4 * kQuadsAtOnce * args_.delta.stride[1];
    }
    const uint32_t B_counts = counting(B_quad_);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      B[j] = {};
      if (state_ < states_ && (kAll || (B_counts >> j & 1u) != 0)) {
        B[j].load(B_row, state_, states_, whole_states_);
      }
      B_row += args_.B.stride[1];
    }

#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const int quad = quad_ + i * kQuadsAtOnce;
      const uint32_t counts = counting(quad);
      if (!kAll && counts != 15u) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          if ((counts >> j & 1u) == 0) {  // what lies there may be anything
            u[i][j] = pair_of(T{}, T{});
            delta[i][j] = no_step(T{});
          }
        }
      }
      store_quad(tile.u, pair_, place_of_quad(quad), u[i]);
      store_quad(tile.delta, pair_, place_of_quad(quad), delta[i]);
    }
    float4 row[4];
    float largest = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      row[j] = B[j].as_float();
      largest = fmaxf(fmaxf(largest, fmaxf(fabsf(row[j].x), fabsf(row[j].y))), fmaxf(fabsf(row[j].z), fabsf(row[j].w)));
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      tile.B[4 * state_quad_ + i][place_of_quad(B_quad_)] =
          make_float4(component(row[0], i), component(row[1], i), component(row[2], i), component(row[3], i));
    }
    return largest;
  }

  const SelectiveScanForward<T, float>& args_;
  const int64_t b_, end_;
  const int pair_ = threadIdx.x % kPairs;
  const int quad_ = threadIdx.x / kPairs;
  const int state_quad_ = threadIdx.x % 32 / 8;
  const int B_quad_ = threadIdx.x / 32 * 8 + threadIdx.x % 8;
  int states_, state_;
  PairAccess access_;
  bool whole_, whole_states_;
  const T *u_, *delta_, *B_;  // of the thread's first quads in the next chunk
};

}  // namespace blockstate::kernels::cuda::scan
