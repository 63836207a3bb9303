// SPDX-License-Identifier: Apache-2.0
// The adjoint at the edges of segments. It is linear in what lies to the right: what segment k passes to its left is
//   added_k + through_k * (what enters it from the right),
// so that with both known for each segment, a fold from the right gives every one its adjoint, and all can be walked
// side by side.
#pragma once

#include "kernels/selective_scan_bwd_lane_cuda.cuh"

namespace blockstate::kernels::cuda::scan_backward {

inline constexpr float kForgotten = 1e-35f;  // a decay below this lets nothing through

template <class T>
struct EdgeInputs {
  Raw<T, 2> delta[2], z[2], dy[2];
  Raw<T, 4> C;
};

template <class T, bool kVector>
__device__ inline void fetch_edge(const Arguments<T>& args, const Lane& lane, int64_t b, int64_t t0, int64_t steps,
                                  EdgeInputs<T>& in) {
  const SelectiveScanForward<T, float>& f = args.forward;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int64_t t = t0 + lane.row + 4 * j;
    const bool inside = lane.row + 4 * j < steps && lane.pair_count > 0;
    const int64_t d = lane.pair_channel;
    in.delta[j] = load_raw<kVector, 2>(f.delta.data + b * f.delta.stride[0] + t * f.delta.stride[1] + d,
                                       lane.pair_count, inside, kNoStep);
    in.dy[j] =
        load_raw<kVector, 2>(args.dy.data + b * args.dy.stride[0] + t * args.dy.stride[1] + d, lane.pair_count, inside);
    if (f.z) {
      in.z[j] = load_raw<kVector, 2>(f.z.data + b * f.z.stride[0] + t * f.z.stride[1] + d, lane.pair_count, inside);
    }
  }
  in.C = load_raw<kVector, 4>(f.C.data + b * f.C.stride[0] + (t0 + lane.lane / 4) * f.C.stride[1] + lane.state,
                              lane.state_count, lane.lane / 4 < steps);
}

/// dt and ybar of a chunk (the latter in the place of dt * u), and C. Steps from the start of a record on add nothing.
template <class T, bool kPosition>
__device__ inline void stage_edge(EdgeInputs<T>& in, const Lane& lane, const Steps& at, const float (&bias)[2],
                                  bool gated, StepStage& stage) {
  const unsigned before_start = at.starts == 0 ? ~0u : (at.starts & (0u - at.starts)) - 1u;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int step = lane.row + 4 * j;
    if constexpr (kPosition) {
      const bool valid = at.valid & before_start & 1u << step;
      ignore_padding(in.delta[j], valid, kNoStep);
      ignore_padding(in.dy[j], valid);
      ignore_padding(in.z[j], valid);
    }
    float delta[2], dy[2], z[2];
    to_floats(in.delta[j], delta);
    to_floats(in.dy[j], dy);
    if (gated) {
      to_floats(in.z[j], z);
      dy[0] *= silu(z[0]);
      dy[1] *= silu(z[1]);
    }
    *reinterpret_cast<float4*>(stage.dtw[step][lane.pair]) =
        make_float4(softplus(delta[0] + bias[0]), softplus(delta[1] + bias[1]), dy[0], dy[1]);
  }
  store_floats(&stage.bc[lane.lane / 4][16 + lane.state], in.C, !kPosition || (at.valid >> (lane.lane / 4) & 1u));
}

/// Whether any of a lane's states remembers what came `elapsed` before.
__device__ inline bool gets_through(const Lane& lane, const float (&elapsed)[2], const States& rate) {
  bool any = false;
  for_lane(lane,
           [&](int c, int s, int64_t, int64_t) { any = any || !(exp2_fast(elapsed[c] * rate[c][s]) < kForgotten); });
  return any;
}

/// For every part of every segment but the first: the adjoint at its left edge when none enters from the right, and
/// what gets through it. Walked from the left with the decay since the edge, so that it ends where nothing gets through
/// any more.
template <class T, bool kPosition, bool kVector>
__global__ void __launch_bounds__(kBlockThreads, 4) edges_kernel(Arguments<T> args, Window window, TilePlan plan) {
  __shared__ StepStage stages[kWarps];
  const SelectiveScanForward<T, float>& f = args.forward;
  StepStage& stage = stages[threadIdx.x / 32];
  const int64_t width = f.u.size[2], states = f.A.size[1];
  const int64_t wanted = (window.segments - 1) * window.parts;
  const int64_t part = window.parts + blockIdx.x % wanted;
  const int64_t slab = blockIdx.x / wanted % window.slabs;
  const int64_t row = blockIdx.x / wanted / window.slabs;
  const int64_t b = window.batch0 + row;
  const Lane lane(slab, width, states);
  States rate, added = {};
  load_lane(rate, lane, [&](int64_t d, int64_t n) { return f.A(d, n) * kLog2E; });
  float bias[2], elapsed[2] = {0, 0};  // elapsed: the sum of dt since the edge
  bool started = false;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    bias[i] = i < lane.pair_count && f.delta_bias ? f.delta_bias(lane.pair_channel + i) : 0.0f;
  }
  const int64_t t0 = window.tile0 * kTile;
  const int64_t begin = first_tile_of_part(window, part) * kTile;
  const int64_t end = min(window.steps, first_tile_of_part(window, part + 1) * kTile);
  EdgeInputs<T> in;
  if (begin < end) {
    fetch_edge<T, kVector>(args, lane, b, t0 + begin, end - begin, in);
  }
  for (int64_t first = begin; first < end; first += kChunk) {
    const int left = static_cast<int>(min(int64_t{kChunk}, end - first));
    const Steps at = look_at_steps<kPosition>(f.position, b, t0 + first, left, lane.lane);
    __syncwarp();
    stage_edge<T, kPosition>(in, lane, at, bias, bool(f.z), stage);
    __syncwarp();
    if (first + kChunk < end) {
      fetch_edge<T, kVector>(args, lane, b, t0 + first + kChunk, end - first - kChunk, in);
    }
#pragma unroll
    for (int t = 0; t < kChunk; ++t) {
      const float4 dty = *reinterpret_cast<const float4*>(stage.dtw[t][lane.lane / 4]);
      const float4 C4 = *reinterpret_cast<const float4*>(&stage.bc[t][16 + lane.state]);
      const float ybar[2] = {dty.z, dty.w}, Cn[4] = {C4.x, C4.y, C4.z, C4.w};
      elapsed[0] += dty.x;
      elapsed[1] += dty.y;
#pragma unroll
      for (int c = 0; c < 2; ++c) {
#pragma unroll
        for (int s = 0; s < 4; ++s) {
          const float decay = exp2_fast(elapsed[c] * rate[c][s]);
          added[c][s] = fmaf(decay * ybar[c], Cn[s], added[c][s]);
        }
      }
    }
    if (kPosition && at.starts != 0) {
      started = true;
      break;
    }
    if ((first - begin) % kTile == kTile - kChunk && !__any_sync(~0u, gets_through(lane, elapsed, rate))) {
      break;
    }
  }
  float* edge = plan.edge + (row * window.segments * window.parts + part) * width * states * 2;
  for_lane(lane, [&](int c, int s, int64_t d, int64_t n) {
    const float decay = exp2_fast(elapsed[c] * rate[c][s]);
    *reinterpret_cast<float2*>(edge + (d * states + n) * 2) =
        make_float2(added[c][s], started || decay < kForgotten ? 0.0f : decay);
  });
}

/// The adjoint that enters `segment` from the right.
__device__ inline void fold_edges(const Window& window, const TilePlan& plan, const Lane& lane, int64_t b, int64_t row,
                                  int64_t segment, int64_t width, int64_t states, States& g) {
  load_lane(g, lane, [&](int64_t d, int64_t n) { return window.carry_in[(b * width + d) * states + n]; });
  const int64_t parts = window.segments * window.parts;
  for (int64_t right = parts - 1; right >= (segment + 1) * window.parts; --right) {
    const float* edge = plan.edge + (row * parts + right) * width * states * 2;
    for_lane(lane, [&](int c, int s, int64_t d, int64_t n) {
      const float2 at = *reinterpret_cast<const float2*>(edge + (d * states + n) * 2);
      g[c][s] = at.y == 0.0f ? at.x : fmaf(at.y, g[c][s], at.x);
    });
  }
}

}  // namespace blockstate::kernels::cuda::scan_backward
