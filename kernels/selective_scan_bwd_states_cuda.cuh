// SPDX-License-Identifier: Apache-2.0
// The first sweep over a tile in the selective scan's backward: from its checkpoint, the states before every chunk.
#pragma once

#include "kernels/selective_scan_bwd_lane_cuda.cuh"

namespace blockstate::kernels::cuda::scan_backward {

// ------------------------------------------------------------------------------------------------------

template <class T>
struct StateInputs {
  Raw<T, 2> u[2], delta[2];
  Raw<T, 4> B;
};

/// Where a lane reads in one tile.
template <class T>
struct StateRows {
  const T *u, *delta, *B;
};

template <class T, bool kVector>
__device__ inline void fetch_states(const Arguments<T>& args, const TilePlan& plan, const Lane& lane,
                                    const StateRows<T>& rows, int t0, StateInputs<T>& in) {
  const SelectiveScanForward<T, float>& f = args.forward;
  const bool exists = lane.pair_count > 0;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int t = t0 + 4 * j;
    in.u[j] = load_raw<kVector, 2>(row_of<kVector>(rows.u, t, plan.u, f.u.stride[1]), lane.pair_count, exists);
    in.delta[j] = load_raw<kVector, 2>(row_of<kVector>(rows.delta, t, plan.delta, f.delta.stride[1]), lane.pair_count,
                                       exists, kNoStep);
  }
  in.B = load_raw<kVector, 4>(row_of<kVector>(rows.B, t0, plan.B, f.B.stride[1]), lane.state_count, true);
}

template <class T, bool kPosition>
__device__ inline void stage_states(StateInputs<T>& in, const Lane& lane, const Steps& at, const float (&bias)[2],
                                    StepStage& stage) {
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int step = lane.row + 4 * j;
    if constexpr (kPosition) {
      ignore_padding(in.delta[j], at.valid >> step & 1u, kNoStep);
      ignore_padding(in.u[j], at.valid >> step & 1u);
    }
    float delta[2], u[2];
    to_floats(in.delta[j], delta);
    to_floats(in.u[j], u);
    const float dt[2] = {softplus(delta[0] + bias[0]), softplus(delta[1] + bias[1])};
    *reinterpret_cast<float4*>(stage.dtw[step][lane.pair]) = make_float4(dt[0], dt[1], dt[0] * u[0], dt[1] * u[1]);
  }
  store_floats(&stage.bc[lane.lane / 4][lane.state], in.B, !kPosition || (at.valid >> (lane.lane / 4) & 1u));
}

/// to[chunk] of this thread gets the states before the chunk.
template <class T, bool kPosition, bool kVector>
__device__ inline void sweep_states(const Arguments<T>& args, const TilePlan& plan, const Lane& lane, int64_t b,
                                    int64_t tile, int chunks, const States& rate, const float (&bias)[2],
                                    StepStage& stage, float4* to) {
  const SelectiveScanForward<T, float>& f = args.forward;
  const int64_t t0 = tile * kTile;
  const StateRows<T> rows{
      f.u.data + b * f.u.stride[0] + (t0 + lane.row) * f.u.stride[1] + lane.pair_channel,
      f.delta.data + b * f.delta.stride[0] + (t0 + lane.row) * f.delta.stride[1] + lane.pair_channel,
      f.B.data + b * f.B.stride[0] + (t0 + lane.lane / 4) * f.B.stride[1] + lane.state};
  States h;
  load_lane(h, lane, [&](int64_t d, int64_t n) { return f.checkpoint(b, tile, d, n); });
  const auto keep = [&](int chunk) {
    __stcg(to + 2 * chunk * kBlockThreads, make_float4(h[0][0], h[0][1], h[0][2], h[0][3]));
    __stcg(to + (2 * chunk + 1) * kBlockThreads, make_float4(h[1][0], h[1][1], h[1][2], h[1][3]));
  };
  // The last chunk is not walked; all others are whole.
  StateInputs<T> in[2];
  const auto fetch = [&](int chunk, StateInputs<T>& to_inputs) {  // at the end the same once more: no branch
    fetch_states<T, kVector>(args, plan, lane, rows, min(chunk, chunks - 2) * kChunk, to_inputs);
  };
  const auto walk = [&](int chunk, StateInputs<T>& inputs) {
    const Steps at = look_at_steps<kPosition>(f.position, b, t0 + chunk * kChunk, kChunk, lane.lane);
    __syncwarp();
    stage_states<T, kPosition>(inputs, lane, at, bias, stage);
    __syncwarp();
    fetch(chunk + 2, inputs);
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
    keep(chunk + 1);
  };
  if (chunks > 1) {
    fetch(0, in[0]);
    fetch(1, in[1]);
  }
  keep(0);
  for (int chunk = 0; chunk < chunks - 1; chunk += 2) {
    walk(chunk, in[0]);
    if (chunk + 1 < chunks - 1) {
      walk(chunk + 1, in[1]);
    }
  }
}

}  // namespace blockstate::kernels::cuda::scan_backward
