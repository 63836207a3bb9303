// SPDX-License-Identifier: Apache-2.0
// Backward of the selective scan for any number of states: plain, for shapes that the fast kernel does not take. A warp
// is 32 channels of one row of the batch; it walks the tiles of a window from the right, four states at a time, and
// keeps what belongs to a tile in memory of its own.
#pragma once

#include "kernels/selective_scan_bwd_cuda.cuh"

namespace blockstate::kernels::cuda::scan_backward {

inline constexpr int kAnyStates = 4;  // in registers at a time
enum AnyArray { kDt, kW, kYbar, kV, kGB, kQA, kSlope, kGate, kH, kAnyArrays = kH + kAnyStates };
inline constexpr int64_t kAnyScratch = int64_t{kAnyArrays} * kTile * 32;  // floats of a warp

template <class T>
__device__ void stage_any(const Arguments<T>& args, int64_t b, int64_t t0, int steps, int64_t d, float* own) {
  const SelectiveScanForward<T, float>& f = args.forward;
  const bool inside = d < f.u.size[2];
  const float skip = inside && f.D ? f.D(d) : 0.0f;
  const float bias = inside && f.delta_bias ? f.delta_bias(d) : 0.0f;
  for (int t = 0; t < steps; ++t) {
    float value[kH] = {};
    if (inside && (!f.position || f.position(b, t0 + t) >= 0)) {
      const float u = to_float(f.u(b, t0 + t, d));
      const float dy = to_float(args.dy(b, t0 + t, d));
      const ValueAndSlope dt = softplus_and_slope(to_float(f.delta(b, t0 + t, d)) + bias);
      const ValueAndSlope gate = f.z ? silu_and_slope(to_float(f.z(b, t0 + t, d))) : ValueAndSlope{1.0f, 0.0f};
      value[kDt] = dt.value;
      value[kSlope] = dt.slope;
      value[kW] = dt.value * u;
      value[kYbar] = dy * gate.value;
      value[kGate] = dy * gate.slope;
      value[kV] = skip * u;
    }
#pragma unroll
    for (int i = 0; i < kH; ++i) {
      own[(i * kTile + t) * 32] = value[i];
    }
  }
}

// The states n .. n + 3 of one tile, forward and back. `slab` points at this tile's rows of 2 N sums.
template <class T>
__device__ void pass_any(const Arguments<T>& args, int64_t b, int64_t tile, int steps, int64_t d, int64_t n, float* own,
                         float* slab, float* carry, float* sums) {
  const SelectiveScanForward<T, float>& f = args.forward;
  const int64_t states = f.A.size[1];
  const int64_t t0 = tile * kTile;
  const bool inside = d < f.u.size[2];
  float rate[kAnyStates] = {}, start[kAnyStates] = {}, h[kAnyStates], g[kAnyStates] = {}, dA[kAnyStates] = {};
#pragma unroll
  for (int s = 0; s < kAnyStates; ++s) {
    if (inside && n + s < states) {
      rate[s] = f.A(d, n + s) * kLog2E;
      start[s] = f.checkpoint(b, tile, d, n + s);
      g[s] = carry[n + s];
    }
    h[s] = start[s];
  }
  const auto at = [&](int array, int t) -> float& { return own[(array * kTile + t) * 32]; };
  for (int t = 0; t < steps; ++t) {
    const int64_t position = f.position ? f.position(b, t0 + t) : 1;
    const float dt = at(kDt, t), w = at(kW, t);
    float v = at(kV, t);
#pragma unroll
    for (int s = 0; s < kAnyStates; ++s) {
      if (n + s < states && position >= 0) {
        const float decayed = position == 0 ? 0.0f : exp2_fast(dt * rate[s]) * h[s];
        h[s] = fmaf(w, to_float(f.B(b, t0 + t, n + s)), decayed);
        v = fmaf(to_float(f.C(b, t0 + t, n + s)), h[s], v);
      }
      at(kH + s, t) = h[s];
    }
    at(kV, t) = v;
  }
  for (int t = steps - 1; t >= 0; --t) {
    const int64_t position = f.position ? f.position(b, t0 + t) : 1;
    const float dt = at(kDt, t), w = at(kW, t), ybar = at(kYbar, t);
    float gB = at(kGB, t), qA = at(kQA, t);
#pragma unroll
    for (int s = 0; s < kAnyStates; ++s) {
      if (n + s >= states) {
        continue;
      }
      float dB = 0, dC = 0;
      if (position >= 0) {
        g[s] = fmaf(ybar, to_float(f.C(b, t0 + t, n + s)), g[s]);
        dB = g[s] * w;
        dC = ybar * at(kH + s, t);
        gB = fmaf(g[s], to_float(f.B(b, t0 + t, n + s)), gB);
        g[s] = position == 0 ? 0.0f : exp2_fast(dt * rate[s]) * g[s];
        const float q = position == 0 ? 0.0f : g[s] * (t > 0 ? at(kH + s, t - 1) : start[s]);
        dA[s] = fmaf(q, dt, dA[s]);
        qA = fmaf(q, rate[s], qA);
      }
      dB = warp_sum(dB);
      dC = warp_sum(dC);
      if (threadIdx.x == 0) {
        slab[t * 2 * states + n + s] = dB;
        slab[t * 2 * states + states + n + s] = dC;
      }
    }
    at(kGB, t) = gB;
    at(kQA, t) = qA;
  }
#pragma unroll
  for (int s = 0; s < kAnyStates; ++s) {
    if (inside && n + s < states) {
      carry[n + s] = g[s];
      sums[n + s] += dA[s];
    }
  }
}

template <class T>
__device__ void finish_any(const Arguments<T>& args, int64_t b, int64_t t0, int steps, int64_t d, const float* own,
                           float* sums) {
  const SelectiveScanForward<T, float>& f = args.forward;
  if (d >= f.u.size[2]) {
    return;
  }
  const float skip = f.D ? f.D(d) : 0.0f;
  float dD = 0, dbias = 0;
  for (int t = 0; t < steps; ++t) {
    const auto at = [&](int array) { return own[(array * kTile + t) * 32]; };
    const bool valid = !f.position || f.position(b, t0 + t) >= 0;
    const float u = valid ? to_float(f.u(b, t0 + t, d)) : 0.0f;
    const float ddelta = fmaf(u, at(kGB), kLn2 * at(kQA)) * at(kSlope);
    args.du(b, t0 + t, d) = from_float<T>(valid ? fmaf(at(kDt), at(kGB), skip * at(kYbar)) : 0.0f);
    args.ddelta(b, t0 + t, d) = from_float<T>(valid ? ddelta : 0.0f);
    if (args.dz) {
      args.dz(b, t0 + t, d) = from_float<T>(valid ? at(kGate) * at(kV) : 0.0f);
    }
    if (valid) {
      dD = fmaf(at(kYbar), u, dD);
      dbias += ddelta;
    }
  }
  const int64_t states = f.A.size[1];
  sums[states] += dD;
  sums[states + 1] += dbias;
}

/// Blocks of one warp. `scratch` holds kAnyScratch floats for each of them.
template <class T>
__global__ void __launch_bounds__(32) any_states_kernel(Arguments<T> args, Window window, float* scratch) {
  const SelectiveScanForward<T, float>& f = args.forward;
  const int64_t width = f.u.size[2], states = f.A.size[1];
  float* own = scratch + blockIdx.x * kAnyScratch + threadIdx.x;
  for (int64_t item = blockIdx.x; item < window.batch * window.slabs; item += gridDim.x) {
    const int64_t row = item / window.slabs, slab = item % window.slabs;
    const int64_t b = window.batch0 + row;
    const int64_t d = slab * 32 + threadIdx.x;
    float* carry = window.carry_out + (b * width + d) * states;
    float* sums = window.sums + (b * width + d) * (states + 2);
    for (int64_t n = 0; d < width && n < states; ++n) {
      carry[n] = window.carry_in[(b * width + d) * states + n];
    }
    for (int64_t tile = window.tiles - 1; tile >= 0; --tile) {
      const int64_t t0 = (window.tile0 + tile) * kTile;
      const int steps = static_cast<int>(min(int64_t{kTile}, window.steps - tile * kTile));
      float* rows = window.slab + ((slab * window.batch + row) * window.steps + tile * kTile) * 2 * states;
      stage_any(args, b, t0, steps, d, own);
      for (int64_t n = 0; n < states; n += kAnyStates) {
        pass_any(args, b, window.tile0 + tile, steps, d, n, own, rows, carry, sums);
      }
      finish_any(args, b, t0, steps, d, own, sums);
    }
  }
}

}  // namespace blockstate::kernels::cuda::scan_backward
