// SPDX-License-Identifier: Apache-2.0
// Backward of the selective scan for up to 16 states. A block is four warps of 16 channels; a lane is 2 channels and 4
// states, so that sums over channels (dB, dC) and over states (du, ddelta) both begin inside a lane and end in shared
// memory. A warp walks the tiles of its segment from the right, each in two sweeps:
//   left to right, the states alone: those before every 8th step go to memory of the block (it stays in the L2 cache);
//   right to left, 8 steps at a time: decays and states again, now kept in registers, then the adjoint backwards.
// Where channels do not fill the GPU a window is cut into segments (selective_scan_bwd_edges_cuda.cuh).
#pragma once

#include "kernels/selective_scan_bwd_edges_cuda.cuh"
#include "kernels/selective_scan_bwd_lane_cuda.cuh"
#include "kernels/selective_scan_bwd_states_cuda.cuh"

namespace blockstate::kernels::cuda::scan_backward {

inline constexpr int64_t kBlockScratch = int64_t{kChunks} * 8 * kBlockThreads;  // floats
inline constexpr int kHeld = 8;               // steps whose decays and states are in registers: 8 or 4
inline constexpr int kBlocks = 2;             // a multiprocessor: what registers allow, 3 with 4 steps held
inline constexpr int kPartRow = 3 * 64 + 16;  // padded: two rows side by side touch different banks

struct WarpStage : StepStage {
  float ybar[kChunk][16];
  float products[kHeld][8][32];    // dB and dC of the lanes with the same states
  float parts[kChunk * kPartRow];  // v, sum_n g B, sum_n q A of the lanes with the same channels
  float2 kept[2][3][32];           // a lane's own u, slope of softplus, dy * slope of silu
};
struct BlockStage {
  WarpStage warp[kWarps];
  float sums[2][kWarps][2 * kChunk][32];  // dB and dC of the warps, two chunks at a time
  int64_t item;
};

// -----------------------------------------------------------------------------------------------------

/// Where a lane reads and writes in one tile: a step's pair of channels, or its four states.
template <class T>
struct TileRows {
  const T *u, *delta, *z, *dy, *B, *C;
  T *du, *ddelta, *dz;
  __device__ TileRows(const Arguments<T>& args, const Lane& lane, int64_t b, int64_t t0) {
    const SelectiveScanForward<T, float>& f = args.forward;
    const auto pair_at = [&](auto view) {
      return view.data + b * view.stride[0] + (t0 + lane.row) * view.stride[1] + lane.pair_channel;
    };
    const auto state_at = [&](auto view) {
      return view.data + b * view.stride[0] + (t0 + lane.lane / 4) * view.stride[1] + lane.state;
    };
    u = pair_at(f.u), delta = pair_at(f.delta), z = pair_at(f.z), dy = pair_at(args.dy);
    du = pair_at(args.du), ddelta = pair_at(args.ddelta), dz = pair_at(args.dz);
    B = state_at(f.B), C = state_at(f.C);
  }
};

template <class T>
struct ChunkInputs {
  Raw<T, 2> u[2], delta[2], z[2], dy[2];
  Raw<T, 4> B, C;
};

/// `left`: steps from the chunk's first to the end of the window.
template <class T, bool kVector>
__device__ inline void fetch_chunk(const Arguments<T>& args, const TilePlan& plan, const Lane& lane,
                                   const TileRows<T>& rows, int chunk, int left, ChunkInputs<T>& in) {
  const SelectiveScanForward<T, float>& f = args.forward;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int t = chunk * kChunk + 4 * j;
    const bool inside = lane.row + 4 * j < left && lane.pair_count > 0;
    const int count = lane.pair_count;
    in.u[j] = load_raw<kVector, 2>(row_of<kVector>(rows.u, t, plan.u, f.u.stride[1]), count, inside);
    in.delta[j] =
        load_raw<kVector, 2>(row_of<kVector>(rows.delta, t, plan.delta, f.delta.stride[1]), count, inside, kNoStep);
    in.dy[j] = load_raw<kVector, 2>(row_of<kVector>(rows.dy, t, plan.dy, args.dy.stride[1]), count, inside);
    if (f.z) {
      in.z[j] = load_raw<kVector, 2>(row_of<kVector>(rows.z, t, plan.z, f.z.stride[1]), count, inside);
    }
  }
  const bool inside = lane.lane / 4 < left;
  in.B = load_raw<kVector, 4>(row_of<kVector>(rows.B, chunk * kChunk, plan.B, f.B.stride[1]), lane.state_count, inside);
  in.C = load_raw<kVector, 4>(row_of<kVector>(rows.C, chunk * kChunk, plan.C, f.C.stride[1]), lane.state_count, inside);
}

template <class T, bool kPosition>
__device__ inline void stage_chunk(ChunkInputs<T>& in, const Lane& lane, const Steps& at, const float (&bias)[2],
                                   bool gated, WarpStage& stage) {
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int step = lane.row + 4 * j;
    if constexpr (kPosition) {
      const bool valid = at.valid >> step & 1u;
      ignore_padding(in.delta[j], valid, kNoStep);
      ignore_padding(in.u[j], valid);
      ignore_padding(in.dy[j], valid);
      ignore_padding(in.z[j], valid);
    }
    float delta[2], u[2], dy[2], z[2], gate[2] = {0, 0};
    to_floats(in.delta[j], delta);
    to_floats(in.u[j], u);
    to_floats(in.dy[j], dy);
    const ValueAndSlope dt[2] = {softplus_and_slope(delta[0] + bias[0]), softplus_and_slope(delta[1] + bias[1])};
    if (gated) {
      to_floats(in.z[j], z);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const ValueAndSlope factor = silu_and_slope(z[i]);
        gate[i] = dy[i] * factor.slope;
        dy[i] *= factor.value;
      }
    }
    *reinterpret_cast<float4*>(stage.dtw[step][lane.pair]) =
        make_float4(dt[0].value, dt[1].value, dt[0].value * u[0], dt[1].value * u[1]);
    *reinterpret_cast<float2*>(&stage.ybar[step][2 * lane.pair]) = make_float2(dy[0], dy[1]);
    stage.kept[j][0][lane.lane] = make_float2(u[0], u[1]);
    stage.kept[j][1][lane.lane] = make_float2(dt[0].slope, dt[1].slope);
    stage.kept[j][2][lane.lane] = make_float2(gate[0], gate[1]);
  }
  const bool valid = !kPosition || (at.valid >> (lane.lane / 4) & 1u);
  store_floats(&stage.bc[lane.lane / 4][lane.state], in.B, valid);
  store_floats(&stage.bc[lane.lane / 4][16 + lane.state], in.C, valid);
}

/// Sums over the states end here. The swizzle keeps the four lanes of a pair of channels on different banks.
__device__ inline float* part_at(WarpStage& stage, int step, int which, int state_lane, int channel) {
  return stage.parts + step * kPartRow + (which * 4 + state_lane) * 16 + (channel ^ (state_lane / 2 * 8));
}

/// dB and dC of the steps first .. first + kHeld - 1 of a chunk, over the channels of the warp.
__device__ inline void sum_products(const Lane& lane, const WarpStage& stage, int first, float (*sums)[32]) {
#pragma unroll
  for (int j = 0; j < kHeld; j += 4) {
    const int step = lane.row + j;
    float4 sum = *reinterpret_cast<const float4*>(&stage.products[step][0][4 * lane.pair]);
#pragma unroll
    for (int k = 1; k < 8; ++k) {
      const float4 more = *reinterpret_cast<const float4*>(&stage.products[step][k][(4 * lane.pair) ^ (k % 2 * 16)]);
      sum.x += more.x;
      sum.y += more.y;
      sum.z += more.z;
      sum.w += more.w;
    }
    *reinterpret_cast<float4*>(&sums[first + step][4 * lane.pair]) = sum;
  }
}

/// The decay of one step for a lane's states.
template <bool kPosition>
__device__ inline float decay_of(float dt, float rate, const Steps& at, int t) {
  const float a = exp2_fast(dt * rate);
  return kPosition && (at.starts >> t & 1u) ? 0.0f : a;
}

/// A chunk, kHeld steps at a time from its right end: decays and states into registers, then the adjoint backwards.
/// `start` holds the states before the chunk. `read_next` is called late, when registers are free for what the next
/// chunk starts with.
template <bool kPosition, class ReadNext>
__device__ inline void walk_chunk(const Lane& lane, const Steps& at, const States& rate, const States& start, States& g,
                                  States& dA, WarpStage& stage, float (*sums)[32], ReadNext&& read_next) {
  const int channel_lane = lane.lane / 4, state_lane = lane.lane % 4;
#pragma unroll
  for (int first = kChunk - kHeld; first >= 0; first -= kHeld) {
    States a[kHeld], h[kHeld + 1];
#pragma unroll
    for (int c = 0; c < 2; ++c) {
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        h[0][c][s] = start[c][s];
      }
    }
#pragma unroll
    for (int t = 0; t < first; ++t) {
      const float4 dtw = *reinterpret_cast<const float4*>(stage.dtw[t][channel_lane]);
      const float4 B4 = *reinterpret_cast<const float4*>(&stage.bc[t][lane.state]);
      const float dt[2] = {dtw.x, dtw.y}, w[2] = {dtw.z, dtw.w}, Bn[4] = {B4.x, B4.y, B4.z, B4.w};
#pragma unroll
      for (int c = 0; c < 2; ++c) {
#pragma unroll
        for (int s = 0; s < 4; ++s) {
          h[0][c][s] = fmaf(w[c], Bn[s], decay_of<kPosition>(dt[c], rate[c][s], at, t) * h[0][c][s]);
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      const int t = first + k;
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
          a[k][c][s] = decay_of<kPosition>(dt[c], rate[c][s], at, t);
          h[k + 1][c][s] = fmaf(w[c], Bn[s], a[k][c][s] * h[k][c][s]);
          v[c] = fmaf(Cn[s], h[k + 1][c][s], v[c]);
        }
      }
      *reinterpret_cast<float2*>(part_at(stage, t, 0, state_lane, 2 * channel_lane)) = make_float2(v[0], v[1]);
    }
#pragma unroll
    for (int k = kHeld - 1; k >= 0; --k) {
      const int t = first + k;
      if (first == 0 && k == kHeld / 2 - 1) {
        read_next();
      }
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
          dC[s] = fmaf(ybar[c], h[k + 1][c][s], dC[s]);
          gB[c] = fmaf(gradient, Bn[s], gB[c]);
          g[c][s] = a[k][c][s] * gradient;
          const float q = g[c][s] * h[k][c][s];
          dA[c][s] = fmaf(q, dt[c], dA[c][s]);
          qA[c] = fmaf(q, rate[c][s], qA[c]);
        }
      }
      const int half = channel_lane % 2 * 16;  // odd lanes swap dB and dC: two rows then fill all banks
      float* row = stage.products[k][channel_lane];
      *reinterpret_cast<float4*>(row + half + lane.state) = make_float4(dB[0], dB[1], dB[2], dB[3]);
      *reinterpret_cast<float4*>(row + (16 - half) + lane.state) = make_float4(dC[0], dC[1], dC[2], dC[3]);
      *reinterpret_cast<float2*>(part_at(stage, t, 1, state_lane, 2 * channel_lane)) = make_float2(gB[0], gB[1]);
      *reinterpret_cast<float2*>(part_at(stage, t, 2, state_lane, 2 * channel_lane)) = make_float2(qA[0], qA[1]);
    }
    __syncwarp();
    sum_products(lane, stage, first, sums);
    if (first > 0) {
      __syncwarp();
    }
  }
}

/// du, ddelta and dz of a chunk.
template <class T, bool kVector>
__device__ inline void write_chunk(const Arguments<T>& args, const TilePlan& plan, const Lane& lane,
                                   const TileRows<T>& rows, int chunk, int left, const float (&skip)[2],
                                   WarpStage& stage, float (&dD)[2], float (&dbias)[2]) {
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int step = lane.row + 4 * j;
    float part[3][2];
#pragma unroll
    for (int which = 0; which < 3; ++which) {
      float2 sum = *reinterpret_cast<const float2*>(part_at(stage, step, which, 0, 2 * lane.pair));
#pragma unroll
      for (int k = 1; k < 4; ++k) {
        const float2 more = *reinterpret_cast<const float2*>(part_at(stage, step, which, k, 2 * lane.pair));
        sum.x += more.x;
        sum.y += more.y;
      }
      part[which][0] = sum.x;
      part[which][1] = sum.y;
    }
    const float4 dtw = *reinterpret_cast<const float4*>(stage.dtw[step][lane.pair]);
    const float2 y2 = *reinterpret_cast<const float2*>(&stage.ybar[step][2 * lane.pair]);
    const float2 u2 = stage.kept[j][0][lane.lane], slope2 = stage.kept[j][1][lane.lane];
    const float2 gate2 = stage.kept[j][2][lane.lane];
    const float dt[2] = {dtw.x, dtw.y}, ybar[2] = {y2.x, y2.y}, u[2] = {u2.x, u2.y};
    const float slope[2] = {slope2.x, slope2.y}, gate[2] = {gate2.x, gate2.y};
    float du[2], ddelta[2], dz[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float v = part[0][i], gB = part[1][i], qA = part[2][i];
      du[i] = fmaf(dt[i], gB, skip[i] * ybar[i]);
      ddelta[i] = fmaf(u[i], gB, kLn2 * qA) * slope[i];
      dz[i] = gate[i] * fmaf(skip[i], u[i], v);
      dD[i] = fmaf(ybar[i], u[i], dD[i]);
    }
    if (step < left && lane.pair_count > 0) {
      dbias[0] += ddelta[0];
      dbias[1] += ddelta[1];
      const int t = chunk * kChunk + 4 * j;
      store_two<kVector>(row_of<kVector>(rows.du, t, plan.du, args.du.stride[1]), du, lane.pair_count);
      store_two<kVector>(row_of<kVector>(rows.ddelta, t, plan.ddelta, args.ddelta.stride[1]), ddelta, lane.pair_count);
      if (args.dz) {
        store_two<kVector>(row_of<kVector>(rows.dz, t, plan.dz, args.dz.stride[1]), dz, lane.pair_count);
      }
    }
  }
}

/// dB and dC of two chunks over the warps, to this block's slab: `rows` is the row of the first of their steps.
template <bool kVector>
__device__ inline void store_sums(const float (&sums)[kWarps][2 * kChunk][32], float* rows, int left, int64_t states) {
  const int step = static_cast<int>(threadIdx.x / 8), column = static_cast<int>(threadIdx.x % 8 * 4);
  float4 sum = *reinterpret_cast<const float4*>(&sums[0][step][column]);
#pragma unroll
  for (int w = 1; w < kWarps; ++w) {
    const float4 more = *reinterpret_cast<const float4*>(&sums[w][step][column]);
    sum.x += more.x;
    sum.y += more.y;
    sum.z += more.z;
    sum.w += more.w;
  }
  if (step >= left) {
    return;
  }
  if constexpr (kVector) {
    __stcs(reinterpret_cast<float4*>(rows + step * 32 + column), sum);
  } else {
    const float value[4] = {sum.x, sum.y, sum.z, sum.w};
    for (int k = 0; k < 4; ++k) {
      const int n = column % 16 + k;
      if (n < states) {
        rows[step * 2 * states + (column < 16 ? n : states + n)] = value[k];
      }
    }
  }
}

/// What a warp sums over a segment.
struct SegmentSums {
  States dA;
  float dD[2], dbias[2];
};

template <class T, bool kPosition, bool kVector>
__device__ inline void walk_tile(const Arguments<T>& args, const TilePlan& plan, const Lane& lane, int64_t b,
                                 int64_t tile, int steps, const States& rate, const float (&skip)[2],
                                 const float (&bias)[2], float4* own, float* slab, BlockStage& block, States& g,
                                 SegmentSums& sums, int& parity) {
  const SelectiveScanForward<T, float>& f = args.forward;
  const int64_t t0 = tile * kTile, states = f.A.size[1];
  const int warp = static_cast<int>(threadIdx.x / 32);
  WarpStage& stage = block.warp[warp];
  const int chunks = ceil_div(steps, kChunk);
  sweep_states<T, kPosition, kVector>(args, plan, lane, b, tile, chunks, rate, bias, stage, own);
  const TileRows<T> rows(args, lane, b, t0);
  ChunkInputs<T> in;
  fetch_chunk<T, kVector>(args, plan, lane, rows, chunks - 1, steps - (chunks - 1) * kChunk, in);
  float4 h0, h1;
  const auto read_states = [&](int chunk) {
    h0 = __ldcg(own + 2 * chunk * kBlockThreads);
    h1 = __ldcg(own + (2 * chunk + 1) * kBlockThreads);
  };
  read_states(chunks - 1);
#pragma unroll 1
  for (int chunk = chunks - 1; chunk >= 0; --chunk) {
    const int left = steps - chunk * kChunk;
    const Steps at = look_at_steps<kPosition>(f.position, b, t0 + chunk * kChunk, left, lane.lane);
    __syncwarp();
    stage_chunk<T, kPosition>(in, lane, at, bias, bool(f.z), stage);
    __syncwarp();
    if (chunk > 0) {
      fetch_chunk<T, kVector>(args, plan, lane, rows, chunk - 1, kChunk, in);
    }
    const States start = {{h0.x, h0.y, h0.z, h0.w}, {h1.x, h1.y, h1.z, h1.w}};
    walk_chunk<kPosition>(lane, at, rate, start, g, sums.dA, stage, block.sums[parity][warp] + chunk % 2 * kChunk,
                          [&] { read_states(max(chunk - 1, 0)); });
    write_chunk<T, kVector>(args, plan, lane, rows, chunk, left, skip, stage, sums.dD, sums.dbias);
    if (chunk % 2 == 0) {
      __syncthreads();
      store_sums<kVector>(block.sums[parity], slab + chunk * kChunk * 2 * states, left, states);
      parity = 1 - parity;  // a warp that is ahead writes to the other half
    }
  }
}

/// Work items (segment, row of the batch, block of channels) are taken as blocks become free, long ones first.
template <class T, bool kPosition, bool kVector>
__global__ void __launch_bounds__(kBlockThreads, kBlocks) tile_kernel(Arguments<T> args, Window window, TilePlan plan) {
  extern __shared__ __align__(16) unsigned char memory[];
  BlockStage& block = *reinterpret_cast<BlockStage*>(memory);
  const SelectiveScanForward<T, float>& f = args.forward;
  const int64_t width = f.u.size[2], states = f.A.size[1];
  float4* own = reinterpret_cast<float4*>(plan.scratch + blockIdx.x * kBlockScratch) + threadIdx.x;
  const int64_t items = window.batch * window.slabs * window.segments;
  int parity = 0;
  while (true) {
    __syncthreads();
    if (threadIdx.x == 0) {
      block.item = atomicAdd(plan.counter, 1u);
    }
    __syncthreads();
    const int64_t item = block.item;
    if (item >= items) {
      return;
    }
    const int64_t slab = item % window.slabs, row = item / window.slabs % window.batch;
    const int64_t segment = item / window.slabs / window.batch;
    const int64_t b = window.batch0 + row;
    const Lane lane(slab, width, states);
    States rate, g;
    SegmentSums sums = {};
    load_lane(rate, lane, [&](int64_t d, int64_t n) { return f.A(d, n) * kLog2E; });
    fold_edges(window, plan, lane, b, row, segment, width, states, g);
    float skip[2], bias[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      skip[i] = i < lane.pair_count && f.D ? f.D(lane.pair_channel + i) : 0.0f;
      bias[i] = i < lane.pair_count && f.delta_bias ? f.delta_bias(lane.pair_channel + i) : 0.0f;
    }
    const int64_t first = first_tile(window, segment);
    for (int64_t tile = first_tile(window, segment + 1) - 1; tile >= first; --tile) {
      const int steps = static_cast<int>(min(int64_t{kTile}, window.steps - tile * kTile));
      float* rows = window.slab + ((slab * window.batch + row) * window.steps + tile * kTile) * 2 * states;
      walk_tile<T, kPosition, kVector>(args, plan, lane, b, window.tile0 + tile, steps, rate, skip, bias, own, rows,
                                       block, g, sums, parity);
    }
    float* total = window.sums + (b * window.segments + segment) * width * (states + 2);
    for_lane(lane, [&](int c, int s, int64_t d, int64_t n) {
      total[d * (states + 2) + n] += sums.dA[c][s];
      if (segment == 0) {
        window.carry_out[(b * width + d) * states + n] = g[c][s];
      }
    });
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      for (int other = 8; other < 32; other *= 2) {
        sums.dD[i] += __shfl_xor_sync(~0u, sums.dD[i], other);
        sums.dbias[i] += __shfl_xor_sync(~0u, sums.dbias[i], other);
      }
      if (lane.row == 0 && i < lane.pair_count) {
        total[(lane.pair_channel + i) * (states + 2) + states] += sums.dD[i];
        total[(lane.pair_channel + i) * (states + 2) + states + 1] += sums.dbias[i];
      }
    }
  }
}

}  // namespace blockstate::kernels::cuda::scan_backward
