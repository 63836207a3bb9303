// SPDX-License-Identifier: Apache-2.0
// Backward of the selective scan for up to 16 states. A block is four warps of 16 channels; a lane is 2 channels and 4
// states, so that sums over channels (dB, dC) and over states (du, ddelta) both begin inside a lane and end in shared
// memory. A warp walks the tiles of its segment from the right, each in two sweeps:
//   left to right, the states alone: those before every 8th step go to memory of the block (it stays in the L2 cache);
//   right to left, 8 steps at a time: decays and states again, now kept in registers, then the adjoint backwards.
// Where channels do not fill the GPU a window is cut into segments. The adjoint that enters a segment from the right is
// linear in what lies there: edges_kernel finds, for each segment, what it adds at its left edge and how much it lets
// through, and the segments right of it are folded in order.
#pragma once

#include "kernels/selective_scan_bwd_cuda.cuh"

namespace blockstate::kernels::cuda::scan_backward {

inline constexpr int kMostStates = 16;
inline constexpr int kWarps = 4;
inline constexpr int kBlockThreads = 32 * kWarps;
inline constexpr int kBlockChannels = 16 * kWarps;
inline constexpr int kChunk = 8;                                                // steps in registers
inline constexpr int kChunks = kTile / kChunk;                                  // of a tile
inline constexpr int64_t kBlockScratch = int64_t{kChunks} * 8 * kBlockThreads;  // floats
inline constexpr int kPartRow = 3 * 64 + 16;  // padded: two rows side by side touch different banks
inline constexpr float kForgotten = 1e-35f;   // a decay below this lets nothing through

/// What the fast kernels need beyond Window.
struct TilePlan {
  bool pairs;      // two neighbouring channels may be moved as one
  bool states;     // 16 states may be moved as vectors
  float* scratch;  // kBlockScratch floats a block
  float* edge;     // (batch, segments, D, N, 2): what a segment adds to the adjoint at its left edge, and its decay
};

/// Of one warp: what both sweeps read. Channels are local to the warp.
struct StepStage {
  float dtw[kChunk][8][4];  // dt of two channels, then dt * u of them
  float bc[kChunk][32];     // B, then C
};
struct WarpStage : StepStage {
  float ybar[kChunk][16];
  float products[kChunk][8][32];   // dB and dC of the lanes with the same states
  float parts[kChunk * kPartRow];  // v, sum_n g B, sum_n q A of the lanes with the same channels
  float2 kept[2][3][32];           // a lane's own u, slope of softplus, dy * slope of silu
};
struct BlockStage {
  WarpStage warp[kWarps];
  float sums[2][kWarps][kChunk][32];  // dB and dC of the warps
};

template <class T>
__device__ inline Pack<T, 2> load_pair(const T* from, int count, bool vector) {
  Pack<T, 2> pair{};
  if (count == 2 && vector) {
    pair = *reinterpret_cast<const Pack<T, 2>*>(from);
  } else {
    if (count > 0) {
      pair.value[0] = from[0];
    }
    if (count > 1) {
      pair.value[1] = from[1];
    }
  }
  return pair;
}

template <class T>
__device__ inline void store_pair(T* to, float first, float second, int count, bool vector) {
  if (count == 2 && vector) {
    const float both[2] = {first, second};
    store_pack<2>(to, both);
  } else {
    if (count > 0) {
      to[0] = from_float<T>(first);
    }
    if (count > 1) {
      to[1] = from_float<T>(second);
    }
  }
}

/// The states n .. n + 3 of a row of B or C.
template <class T>
__device__ inline Pack<T, 4> load_states(const T* row, int64_t n, int64_t states, bool vector) {
  Pack<T, 4> four{};
  if (vector) {
    four = *reinterpret_cast<const Pack<T, 4>*>(row + n);
  } else {
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      if (n + s < states) {
        four.value[s] = row[n + s];
      }
    }
  }
  return four;
}

template <class T>
__device__ inline void store_floats(float* to, const Pack<T, 4>& four, bool valid) {
  *reinterpret_cast<float4*>(to) = valid ? make_float4(to_float(four.value[0]), to_float(four.value[1]),
                                                       to_float(four.value[2]), to_float(four.value[3]))
                                         : make_float4(0, 0, 0, 0);
}

/// Where a lane stands. For arrays it is a pair of neighbouring channels at steps `row` and `row + 4` of a chunk; in
/// the recurrences it is the channels `channel`, `channel + 1` and the states `state` .. `state + 3`.
struct Lane {
  int lane, row, pair, pair_count;
  int64_t pair_channel, channel;
  int state, count;  // count: channels that exist
  __device__ Lane(int64_t slab, int64_t width) {
    lane = static_cast<int>(threadIdx.x % 32);
    const int64_t first = slab * kBlockChannels + threadIdx.x / 32 * 16;
    row = lane / 8;
    pair = lane % 8;
    pair_channel = first + 2 * pair;
    pair_count = static_cast<int>(max(int64_t{0}, min(int64_t{2}, width - pair_channel)));
    channel = first + 2 * (lane / 4);
    count = static_cast<int>(max(int64_t{0}, min(int64_t{2}, width - channel)));
    state = lane % 4 * 4;
  }
};

/// Of the steps of one chunk: which exist and are no padding, and which start a record.
struct Steps {
  unsigned valid, starts;
};

template <bool kPosition>
__device__ inline Steps look_at_steps(View<const int64_t, 2> position, int64_t b, int64_t t0, int count, int lane) {
  Steps steps{(1u << min(count, kChunk)) - 1u, 0u};
  if constexpr (kPosition) {
    const int64_t at = lane < min(count, kChunk) ? position(b, t0 + lane) : 1;
    steps.starts = __ballot_sync(~0u, at == 0);
    steps.valid &= ~__ballot_sync(~0u, at < 0);
  }
  return steps;
}

/// A lane's states or sums: two channels, four states.
using States = float[2][4];

template <class Load>
__device__ inline void load_lane(States& to, const Lane& lane, int64_t states, float other, Load&& load) {
#pragma unroll
  for (int c = 0; c < 2; ++c) {
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      to[c][s] = c < lane.count && lane.state + s < states ? load(lane.channel + c, lane.state + s) : other;
    }
  }
}

template <class Use>
__device__ inline void for_lane(const Lane& lane, int64_t states, Use&& use) {
#pragma unroll
  for (int c = 0; c < 2; ++c) {
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      if (c < lane.count && lane.state + s < states) {
        use(c, s, lane.channel + c, int64_t{lane.state + s});
      }
    }
  }
}

/// The first sweep of a tile: to[chunk] of this thread gets the states before the chunk.
template <class T, bool kPosition>
__device__ inline void sweep_states(const Arguments<T>& args, const TilePlan& plan, const Lane& lane, int64_t b,
                                    int64_t tile, int steps, const States& rate, const float (&bias)[2],
                                    StepStage& stage, float4* to) {
  const SelectiveScanForward<T, float>& f = args.forward;
  const int64_t states = f.A.size[1];
  const int64_t t0 = tile * kTile;
  const int chunks = ceil_div(steps, kChunk);
  const T* u_at = &f.u(b, t0 + lane.row, lane.pair_channel);
  const T* delta_at = &f.delta(b, t0 + lane.row, lane.pair_channel);
  const T* B_at = &f.B(b, t0 + lane.lane / 4, 0);
  const int64_t u_stride = f.u.stride[1], delta_stride = f.delta.stride[1], B_stride = f.B.stride[1];
  Pack<T, 2> u[2], delta[2];
  Pack<T, 4> B;
  const auto fetch = [&](int chunk) {  // only whole chunks are asked for: the last one of a tile is not walked
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int64_t t = chunk * kChunk + 4 * j;
      u[j] = load_pair(u_at + t * u_stride, lane.pair_count, plan.pairs);
      delta[j] = load_pair(delta_at + t * delta_stride, lane.pair_count, plan.pairs);
    }
    B = load_states(B_at + chunk * kChunk * B_stride, lane.state, states, plan.states);
  };
  States h;
  load_lane(h, lane, states, 0.0f, [&](int64_t d, int64_t n) { return f.checkpoint(b, tile, d, n); });
  if (chunks > 1) {
    fetch(0);
  }
  for (int chunk = 0; chunk < chunks; ++chunk) {
    __stcg(to + (2 * chunk) * kBlockThreads, make_float4(h[0][0], h[0][1], h[0][2], h[0][3]));
    __stcg(to + (2 * chunk + 1) * kBlockThreads, make_float4(h[1][0], h[1][1], h[1][2], h[1][3]));
    if (chunk == chunks - 1) {
      break;
    }
    const Steps at = look_at_steps<kPosition>(f.position, b, t0 + chunk * kChunk, kChunk, lane.lane);
    __syncwarp();
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int step = lane.row + 4 * j;
      float dt[2], w[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const bool valid = i < lane.pair_count && (!kPosition || (at.valid >> step & 1u));
        dt[i] = valid ? softplus(to_float(delta[j].value[i]) + bias[i]) : 0.0f;
        w[i] = valid ? dt[i] * to_float(u[j].value[i]) : 0.0f;
      }
      *reinterpret_cast<float4*>(stage.dtw[step][lane.pair]) = make_float4(dt[0], dt[1], w[0], w[1]);
    }
    store_floats(&stage.bc[lane.lane / 4][lane.state], B, !kPosition || (at.valid >> (lane.lane / 4) & 1u));
    __syncwarp();
    if (chunk + 2 < chunks) {
      fetch(chunk + 1);
    }
#pragma unroll
    for (int t = 0; t < kChunk; ++t) {
      const float4 dtw = *reinterpret_cast<const float4*>(stage.dtw[t][lane.lane / 4]);
      const float4 B4 = *reinterpret_cast<const float4*>(&stage.bc[t][lane.state]);
      const float dt[2] = {dtw.x, dtw.y}, w[2] = {dtw.z, dtw.w}, Bn[4] = {B4.x, B4.y, B4.z, B4.w};
#pragma unroll
      for (int c = 0; c < 2; ++c) {
#pragma unroll
        for (int s = 0; s < 4; ++s) {
          float a = exp2_fast(dt[c] * rate[c][s]);
          if (kPosition && (at.starts >> t & 1u)) {
            a = 0;
          }
          h[c][s] = fmaf(w[c], Bn[s], a * h[c][s]);
        }
      }
    }
  }
}

/// What the second sweep reads of one chunk.
template <class T>
struct ChunkInputs {
  Pack<T, 2> u[2], delta[2], z[2], dy[2];
  Pack<T, 4> B, C;
};

template <class T>
__device__ inline void fetch_chunk(const Arguments<T>& args, const TilePlan& plan, const Lane& lane, int64_t b,
                                   int64_t t0, int steps, ChunkInputs<T>& in) {
  const SelectiveScanForward<T, float>& f = args.forward;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int64_t t = t0 + lane.row + 4 * j;
    const int count = lane.row + 4 * j < steps ? lane.pair_count : 0;
    const int64_t d = lane.pair_channel;
    in.u[j] = load_pair(f.u.data + b * f.u.stride[0] + t * f.u.stride[1] + d, count, plan.pairs);
    in.delta[j] = load_pair(f.delta.data + b * f.delta.stride[0] + t * f.delta.stride[1] + d, count, plan.pairs);
    in.dy[j] = load_pair(args.dy.data + b * args.dy.stride[0] + t * args.dy.stride[1] + d, count, plan.pairs);
    if (f.z) {
      in.z[j] = load_pair(f.z.data + b * f.z.stride[0] + t * f.z.stride[1] + d, count, plan.pairs);
    }
  }
  const int step = lane.lane / 4;
  in.B = Pack<T, 4>{};
  in.C = Pack<T, 4>{};
  if (step < steps) {
    in.B = load_states(&f.B(b, t0 + step, 0), lane.state, f.A.size[1], plan.states);
    in.C = load_states(&f.C(b, t0 + step, 0), lane.state, f.A.size[1], plan.states);
  }
}

template <class T>
__device__ inline void stage_chunk(const ChunkInputs<T>& in, const Lane& lane, const Steps& at, const float (&bias)[2],
                                   bool gated, WarpStage& stage) {
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int step = lane.row + 4 * j;
    float dt[2], w[2], ybar[2], u[2], slope[2], gate[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const bool valid = i < lane.pair_count && (at.valid >> step & 1u);
      const ValueAndSlope softened = softplus_and_slope(to_float(in.delta[j].value[i]) + bias[i]);
      const float dy = to_float(in.dy[j].value[i]);
      const ValueAndSlope silu = gated ? silu_and_slope(to_float(in.z[j].value[i])) : ValueAndSlope{1.0f, 0.0f};
      u[i] = valid ? to_float(in.u[j].value[i]) : 0.0f;
      dt[i] = valid ? softened.value : 0.0f;
      slope[i] = valid ? softened.slope : 0.0f;
      w[i] = dt[i] * u[i];
      ybar[i] = valid ? dy * silu.value : 0.0f;
      gate[i] = valid ? dy * silu.slope : 0.0f;
    }
    *reinterpret_cast<float4*>(stage.dtw[step][lane.pair]) = make_float4(dt[0], dt[1], w[0], w[1]);
    *reinterpret_cast<float2*>(&stage.ybar[step][2 * lane.pair]) = make_float2(ybar[0], ybar[1]);
    stage.kept[j][0][lane.lane] = make_float2(u[0], u[1]);
    stage.kept[j][1][lane.lane] = make_float2(slope[0], slope[1]);
    stage.kept[j][2][lane.lane] = make_float2(gate[0], gate[1]);
  }
  const bool valid = at.valid >> (lane.lane / 4) & 1u;
  store_floats(&stage.bc[lane.lane / 4][lane.state], in.B, valid);
  store_floats(&stage.bc[lane.lane / 4][16 + lane.state], in.C, valid);
}

/// Sums over the states end here. The swizzle keeps the four lanes of a pair of channels on different banks.
__device__ inline float* part_at(WarpStage& stage, int step, int which, int state_lane, int channel) {
  return stage.parts + step * kPartRow + (which * 4 + state_lane) * 16 + (channel ^ (state_lane / 2 * 8));
}

/// Decays and states of a chunk into registers, then the adjoint from its right end. `h` holds the states before it.
template <bool kPosition>
__device__ inline void walk_chunk(const Lane& lane, const Steps& at, const States& rate, States (&h)[kChunk + 1],
                                  States& g, States& dA, WarpStage& stage) {
  const int channel_lane = lane.lane / 4, state_lane = lane.lane % 4;
  States a[kChunk];
#pragma unroll
  for (int t = 0; t < kChunk; ++t) {
    const float4 dtw = *reinterpret_cast<const float4*>(stage.dtw[t][channel_lane]);
    const float4 B4 = *reinterpret_cast<const float4*>(&stage.bc[t][lane.state]);
    const float4 C4 = *reinterpret_cast<const float4*>(&stage.bc[t][16 + lane.state]);
    const float dt[2] = {dtw.x, dtw.y}, w[2] = {dtw.z, dtw.w};
    const float Bn[4] = {B4.x, B4.y, B4.z, B4.w}, Cn[4] = {C4.x, C4.y, C4.z, C4.w};
    float v[2] = {0, 0};
#pragma unroll
    for (int c = 0; c < 2; ++c) {
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        a[t][c][s] = exp2_fast(dt[c] * rate[c][s]);
        if (kPosition && (at.starts >> t & 1u)) {
          a[t][c][s] = 0;
        }
        h[t + 1][c][s] = fmaf(w[c], Bn[s], a[t][c][s] * h[t][c][s]);
        v[c] = fmaf(Cn[s], h[t + 1][c][s], v[c]);
      }
    }
    *reinterpret_cast<float2*>(part_at(stage, t, 0, state_lane, 2 * channel_lane)) = make_float2(v[0], v[1]);
  }
#pragma unroll
  for (int t = kChunk - 1; t >= 0; --t) {
    const float4 dtw = *reinterpret_cast<const float4*>(stage.dtw[t][channel_lane]);
    const float2 y2 = *reinterpret_cast<const float2*>(&stage.ybar[t][2 * channel_lane]);
    const float4 B4 = *reinterpret_cast<const float4*>(&stage.bc[t][lane.state]);
    const float4 C4 = *reinterpret_cast<const float4*>(&stage.bc[t][16 + lane.state]);
    const float dt[2] = {dtw.x, dtw.y}, w[2] = {dtw.z, dtw.w}, ybar[2] = {y2.x, y2.y};
    const float Bn[4] = {B4.x, B4.y, B4.z, B4.w}, Cn[4] = {C4.x, C4.y, C4.z, C4.w};
    float dB[4] = {0, 0, 0, 0}, dC[4] = {0, 0, 0, 0}, gB[2] = {0, 0}, qA[2] = {0, 0};
#pragma unroll
    for (int c = 0; c < 2; ++c) {
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        const float gradient = fmaf(ybar[c], Cn[s], g[c][s]);
        dB[s] = fmaf(gradient, w[c], dB[s]);
        dC[s] = fmaf(ybar[c], h[t + 1][c][s], dC[s]);
        gB[c] = fmaf(gradient, Bn[s], gB[c]);
        g[c][s] = a[t][c][s] * gradient;
        const float q = g[c][s] * h[t][c][s];
        dA[c][s] = fmaf(q, dt[c], dA[c][s]);
        qA[c] = fmaf(q, rate[c][s], qA[c]);
      }
    }
    const int half = channel_lane % 2 * 16;  // odd lanes swap dB and dC: two rows then fill all banks
    float* row = stage.products[t][channel_lane];
    *reinterpret_cast<float4*>(row + half + lane.state) = make_float4(dB[0], dB[1], dB[2], dB[3]);
    *reinterpret_cast<float4*>(row + (16 - half) + lane.state) = make_float4(dC[0], dC[1], dC[2], dC[3]);
    *reinterpret_cast<float2*>(part_at(stage, t, 1, state_lane, 2 * channel_lane)) = make_float2(gB[0], gB[1]);
    *reinterpret_cast<float2*>(part_at(stage, t, 2, state_lane, 2 * channel_lane)) = make_float2(qA[0], qA[1]);
  }
}

/// dB and dC of a chunk over the channels of the warp.
__device__ inline void sum_products(const Lane& lane, const WarpStage& stage, float (&sums)[kChunk][32]) {
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int step = lane.row + 4 * j;
    float4 sum = *reinterpret_cast<const float4*>(&stage.products[step][0][4 * lane.pair]);
#pragma unroll
    for (int k = 1; k < 8; ++k) {
      const float4 more = *reinterpret_cast<const float4*>(&stage.products[step][k][(4 * lane.pair) ^ (k % 2 * 16)]);
      sum.x += more.x;
      sum.y += more.y;
      sum.z += more.z;
      sum.w += more.w;
    }
    *reinterpret_cast<float4*>(&sums[step][4 * lane.pair]) = sum;
  }
}

/// du, ddelta and dz of a chunk.
template <class T>
__device__ inline void write_chunk(const Arguments<T>& args, const TilePlan& plan, const Lane& lane, int64_t b,
                                   int64_t t0, int steps, const float (&skip)[2], WarpStage& stage, float (&dD)[2],
                                   float (&dbias)[2]) {
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int step = lane.row + 4 * j;
    float2 part[3];
#pragma unroll
    for (int which = 0; which < 3; ++which) {
      part[which] = *reinterpret_cast<const float2*>(part_at(stage, step, which, 0, 2 * lane.pair));
#pragma unroll
      for (int k = 1; k < 4; ++k) {
        const float2 more = *reinterpret_cast<const float2*>(part_at(stage, step, which, k, 2 * lane.pair));
        part[which].x += more.x;
        part[which].y += more.y;
      }
    }
    const float4 dtw = *reinterpret_cast<const float4*>(stage.dtw[step][lane.pair]);
    const float2 y2 = *reinterpret_cast<const float2*>(&stage.ybar[step][2 * lane.pair]);
    const float2 u2 = stage.kept[j][0][lane.lane], slope2 = stage.kept[j][1][lane.lane];
    const float2 gate2 = stage.kept[j][2][lane.lane];
    const float dt[2] = {dtw.x, dtw.y}, ybar[2] = {y2.x, y2.y}, u[2] = {u2.x, u2.y}, slope[2] = {slope2.x, slope2.y};
    const float gate[2] = {gate2.x, gate2.y}, v[2] = {part[0].x, part[0].y};
    const float gB[2] = {part[1].x, part[1].y}, qA[2] = {part[2].x, part[2].y};
    float du[2], ddelta[2], dz[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      du[i] = fmaf(dt[i], gB[i], skip[i] * ybar[i]);
      ddelta[i] = fmaf(u[i], gB[i], kLn2 * qA[i]) * slope[i];
      dz[i] = gate[i] * fmaf(skip[i], u[i], v[i]);
      dD[i] = fmaf(ybar[i], u[i], dD[i]);
      dbias[i] += ddelta[i];
    }
    const int64_t t = t0 + step;
    const int count = step < steps ? lane.pair_count : 0;
    const int64_t d = lane.pair_channel;
    store_pair(args.du.data + b * args.du.stride[0] + t * args.du.stride[1] + d, du[0], du[1], count, plan.pairs);
    store_pair(args.ddelta.data + b * args.ddelta.stride[0] + t * args.ddelta.stride[1] + d, ddelta[0], ddelta[1],
               count, plan.pairs);
    if (args.dz) {
      store_pair(args.dz.data + b * args.dz.stride[0] + t * args.dz.stride[1] + d, dz[0], dz[1], count, plan.pairs);
    }
  }
}

template <class T, bool kPosition>
__global__ void __launch_bounds__(kBlockThreads, 2) tile_kernel(Arguments<T> args, Window window, TilePlan plan) {
  extern __shared__ __align__(16) unsigned char memory[];
  BlockStage& block = *reinterpret_cast<BlockStage*>(memory);
  const SelectiveScanForward<T, float>& f = args.forward;
  const int warp = static_cast<int>(threadIdx.x / 32);
  WarpStage& stage = block.warp[warp];
  const int64_t width = f.u.size[2], states = f.A.size[1];
  float4* own = reinterpret_cast<float4*>(plan.scratch + blockIdx.x * kBlockScratch) + threadIdx.x;
  const int64_t items = window.batch * window.slabs * window.segments;
  int parity = 0;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int64_t segment = item % window.segments, slab = item / window.segments % window.slabs;
    const int64_t row = item / window.segments / window.slabs;
    const int64_t b = window.batch0 + row;
    const Lane lane(slab, width);
    States rate, g, dA = {};
    load_lane(rate, lane, states, 0.0f, [&](int64_t d, int64_t n) { return f.A(d, n) * kLog2E; });
    load_lane(g, lane, states, 0.0f,
              [&](int64_t d, int64_t n) { return window.carry_in[(b * width + d) * states + n]; });
    for (int64_t right = window.segments - 1; right > segment; --right) {
      const float* edge = plan.edge + (row * window.segments + right) * width * states * 2;
      for_lane(lane, states, [&](int c, int s, int64_t d, int64_t n) {
        const float2 at = *reinterpret_cast<const float2*>(edge + (d * states + n) * 2);
        g[c][s] = fmaf(at.y, g[c][s], at.x);
      });
    }
    float skip[2], bias[2], dD[2] = {0, 0}, dbias[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      skip[i] = i < lane.pair_count && f.D ? f.D(lane.pair_channel + i) : 0.0f;
      bias[i] = i < lane.pair_count && f.delta_bias ? f.delta_bias(lane.pair_channel + i) : 0.0f;
    }
    const int64_t first = window.tiles * segment / window.segments;
    for (int64_t tile = window.tiles * (segment + 1) / window.segments - 1; tile >= first; --tile) {
      const int64_t t0 = (window.tile0 + tile) * kTile;
      const int steps = static_cast<int>(min(int64_t{kTile}, window.steps - tile * kTile));
      float* rows = window.slab + ((slab * window.batch + row) * window.steps + tile * kTile) * 2 * states;
      sweep_states<T, kPosition>(args, plan, lane, b, window.tile0 + tile, steps, rate, bias, stage, own);
      const int chunks = ceil_div(steps, kChunk);
      ChunkInputs<T> in;
      fetch_chunk(args, plan, lane, b, t0 + (chunks - 1) * kChunk, steps - (chunks - 1) * kChunk, in);
      for (int chunk = chunks - 1; chunk >= 0; --chunk) {
        const int left = steps - chunk * kChunk;
        const float4 h0 = __ldcg(own + (2 * chunk) * kBlockThreads);
        const float4 h1 = __ldcg(own + (2 * chunk + 1) * kBlockThreads);
        const Steps at = look_at_steps<kPosition>(f.position, b, t0 + chunk * kChunk, left, lane.lane);
        __syncwarp();
        stage_chunk(in, lane, at, bias, bool(f.z), stage);
        __syncwarp();
        if (chunk > 0) {
          fetch_chunk(args, plan, lane, b, t0 + (chunk - 1) * kChunk, kChunk, in);
        }
        States h[kChunk + 1];
        h[0][0][0] = h0.x, h[0][0][1] = h0.y, h[0][0][2] = h0.z, h[0][0][3] = h0.w;
        h[0][1][0] = h1.x, h[0][1][1] = h1.y, h[0][1][2] = h1.z, h[0][1][3] = h1.w;
        walk_chunk<kPosition>(lane, at, rate, h, g, dA, stage);
        __syncwarp();
        sum_products(lane, stage, block.sums[parity][warp]);
        write_chunk(args, plan, lane, b, t0 + chunk * kChunk, left, skip, stage, dD, dbias);
        __syncthreads();
#pragma unroll
        for (int k = 0; k < kChunk * 32; k += kBlockThreads) {
          const int i = k + static_cast<int>(threadIdx.x);
          float sum = block.sums[parity][0][0][i];
#pragma unroll
          for (int w = 1; w < kWarps; ++w) {
            sum += block.sums[parity][w][0][i];
          }
          const int n = i % 16;
          if (i / 32 < left && n < states) {
            rows[(chunk * kChunk + i / 32) * 2 * states + (i % 32 < 16 ? n : states + n)] = sum;
          }
        }
        parity = 1 - parity;  // a warp that is one chunk ahead writes to the other half
      }
    }
    float* sums = window.sums + (b * window.segments + segment) * width * (states + 2);
    for_lane(lane, states, [&](int c, int s, int64_t d, int64_t n) {
      sums[d * (states + 2) + n] += dA[c][s];
      if (segment == 0) {
        window.carry_out[(b * width + d) * states + n] = g[c][s];
      }
    });
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      for (int other = 8; other < 32; other *= 2) {
        dD[i] += __shfl_xor_sync(~0u, dD[i], other);
        dbias[i] += __shfl_xor_sync(~0u, dbias[i], other);
      }
      if (lane.row == 0 && i < lane.pair_count) {
        sums[(lane.pair_channel + i) * (states + 2) + states] += dD[i];
        sums[(lane.pair_channel + i) * (states + 2) + states + 1] += dbias[i];
      }
    }
  }
}

/// What edges_kernel reads of one chunk.
template <class T>
__device__ inline void fetch_edge(const Arguments<T>& args, const TilePlan& plan, const Lane& lane, int64_t b,
                                  int64_t t0, int steps, ChunkInputs<T>& in) {
  const SelectiveScanForward<T, float>& f = args.forward;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int64_t t = t0 + lane.row + 4 * j;
    const int count = lane.row + 4 * j < steps ? lane.pair_count : 0;
    const int64_t d = lane.pair_channel;
    in.delta[j] = load_pair(f.delta.data + b * f.delta.stride[0] + t * f.delta.stride[1] + d, count, plan.pairs);
    in.dy[j] = load_pair(args.dy.data + b * args.dy.stride[0] + t * args.dy.stride[1] + d, count, plan.pairs);
    if (f.z) {
      in.z[j] = load_pair(f.z.data + b * f.z.stride[0] + t * f.z.stride[1] + d, count, plan.pairs);
    }
  }
  in.C = Pack<T, 4>{};
  if (lane.lane / 4 < steps) {
    in.C = load_states(&f.C(b, t0 + lane.lane / 4, 0), lane.state, f.A.size[1], plan.states);
  }
}

/// dt and ybar (in the place of dt * u) of a chunk, and C.
template <class T>
__device__ inline void stage_edge(const ChunkInputs<T>& in, const Lane& lane, const Steps& at, const float (&bias)[2],
                                  bool gated, StepStage& stage) {
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int step = lane.row + 4 * j;
    float dt[2], ybar[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const bool valid = i < lane.pair_count && (at.valid >> step & 1u);
      const float gate = gated ? silu_and_slope(to_float(in.z[j].value[i])).value : 1.0f;
      dt[i] = valid ? softplus(to_float(in.delta[j].value[i]) + bias[i]) : 0.0f;
      ybar[i] = valid ? to_float(in.dy[j].value[i]) * gate : 0.0f;
    }
    *reinterpret_cast<float4*>(stage.dtw[step][lane.pair]) = make_float4(dt[0], dt[1], ybar[0], ybar[1]);
  }
  store_floats(&stage.bc[lane.lane / 4][16 + lane.state], in.C, at.valid >> (lane.lane / 4) & 1u);
}

/// For every segment but the first: the adjoint at its left edge when none enters from the right, and the product of
/// its decays. Walked from the left, so that it ends where nothing gets through any more.
template <class T, bool kPosition>
__global__ void __launch_bounds__(kBlockThreads, 4) edges_kernel(Arguments<T> args, Window window, TilePlan plan) {
  __shared__ StepStage stages[kWarps];
  const SelectiveScanForward<T, float>& f = args.forward;
  StepStage& stage = stages[threadIdx.x / 32];
  const int64_t width = f.u.size[2], states = f.A.size[1];
  const int64_t segment = 1 + blockIdx.x % (window.segments - 1);
  const int64_t slab = blockIdx.x / (window.segments - 1) % window.slabs;
  const int64_t row = blockIdx.x / (window.segments - 1) / window.slabs;
  const int64_t b = window.batch0 + row;
  const Lane lane(slab, width);
  States rate, through, sum = {};
  load_lane(rate, lane, states, 0.0f, [&](int64_t d, int64_t n) { return f.A(d, n) * kLog2E; });
  load_lane(through, lane, states, 0.0f, [](int64_t, int64_t) { return 1.0f; });  // what does not exist is forgotten
  float bias[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    bias[i] = i < lane.pair_count && f.delta_bias ? f.delta_bias(lane.pair_channel + i) : 0.0f;
  }
  const int64_t begin = window.tiles * segment / window.segments * kTile;
  const int64_t end = min(window.steps, window.tiles * (segment + 1) / window.segments * kTile);
  ChunkInputs<T> in;
  const auto fetch = [&](int64_t at) {
    if (at < end) {
      fetch_edge(args, plan, lane, b, window.tile0 * kTile + at, static_cast<int>(min(int64_t{kChunk}, end - at)), in);
    }
  };
  fetch(begin);
  for (int64_t first = begin; first < end; first += kChunk) {
    const Steps at = look_at_steps<kPosition>(f.position, b, window.tile0 * kTile + first,
                                              static_cast<int>(min(int64_t{kChunk}, end - first)), lane.lane);
    __syncwarp();
    stage_edge(in, lane, at, bias, bool(f.z), stage);
    __syncwarp();
    fetch(first + kChunk);
    float most = 0;
#pragma unroll
    for (int t = 0; t < kChunk; ++t) {
      const float4 dty = *reinterpret_cast<const float4*>(stage.dtw[t][lane.lane / 4]);
      const float4 C4 = *reinterpret_cast<const float4*>(&stage.bc[t][16 + lane.state]);
      const float dt[2] = {dty.x, dty.y}, ybar[2] = {dty.z, dty.w}, Cn[4] = {C4.x, C4.y, C4.z, C4.w};
#pragma unroll
      for (int c = 0; c < 2; ++c) {
#pragma unroll
        for (int s = 0; s < 4; ++s) {
          float a = exp2_fast(dt[c] * rate[c][s]);
          if (kPosition && (at.starts >> t & 1u)) {
            a = 0;
          }
          through[c][s] *= a;
          sum[c][s] = fmaf(through[c][s] * ybar[c], Cn[s], sum[c][s]);
          most = t == kChunk - 1 ? fmaxf(most, fabsf(through[c][s])) : most;
        }
      }
    }
    if (!__any_sync(~0u, !(most < kForgotten))) {
      load_lane(through, lane, states, 0.0f, [](int64_t, int64_t) { return 0.0f; });
      break;
    }
  }
  float* edge = plan.edge + (row * window.segments + segment) * width * states * 2;
  for_lane(lane, states, [&](int c, int s, int64_t d, int64_t n) {
    *reinterpret_cast<float2*>(edge + (d * states + n) * 2) = make_float2(sum[c][s], through[c][s]);
  });
}

}  // namespace blockstate::kernels::cuda::scan_backward
