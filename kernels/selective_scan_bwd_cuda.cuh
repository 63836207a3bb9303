// SPDX-License-Identifier: Apache-2.0
// What the CUDA kernels of the selective scan's backward share; the equations are in selective_scan_bwd-inl.h.
//
// Time is walked from the right in windows of whole checkpoint tiles. In a window, each block of channels writes its
// own sum of dB and dC to a slab, and a second kernel adds the slabs in their order. Between windows the gradient of
// the state is carried; dA, dD and ddelta_bias are kept for each row of the batch and each segment of a window, and
// added up at the end, in order. No atomics: the same bits on every run.
#pragma once

#include "kernels/cuda_support.cuh"
#include "kernels/selective_scan.h"

namespace blockstate::kernels::cuda::scan_backward {

inline constexpr int kTile = static_cast<int>(kScanCheckpoint);
inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;

/// One window of one call. Rows of the batch go in chunks too where there are many states.
struct Window {
  int64_t batch0, batch;  // first row, rows
  int64_t tile0, tiles;   // first checkpoint tile, tiles
  int64_t steps;          // <= tiles * kTile: the last tile of a call may be short
  int64_t slabs;          // blocks of channels
  int64_t segments;       // pieces of the window that are walked side by side
  int64_t head;           // tiles of the first of them; the others share the rest
  int64_t parts;          // of every segment: for the pass that finds what crosses the segments' edges
  float* slab;            // (slabs, batch, steps, 2 N): dB, then dC
  const float* carry_in;  // (B, D, N): a_t g_t of the step right of the window
  float* carry_out;       // the same, of the window's first step
  float* sums;            // (B, segments, D, N + 2): dA, dD, ddelta_bias so far
};

template <class T>
using Arguments = SelectiveScanBackward<T, float>;

// --- elementwise
// ------------------------------------------------------------------------------------------------------

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// log(1 + v) / v for v in [0, 1]: a minimax polynomial, relative error 2e-7 in all.
__device__ inline float log1p_ratio(float v) {
  float p = 0.005126102f;
  p = fmaf(p, v, -0.029074065f);
  p = fmaf(p, v, 0.077516087f);
  p = fmaf(p, v, -0.13602248f);
  p = fmaf(p, v, 0.19076881f);
  p = fmaf(p, v, -0.24835399f);
  p = fmaf(p, v, 0.33318120f);
  p = fmaf(p, v, -0.49999446f);
  return fmaf(p, v, 1.0f);
}

/// Above 20 this is x in float32, as in the released models.
__device__ inline float softplus(float x) {
  const float v = exp2_fast(-fabsf(x) * kLog2E);
  return fmaf(log1p_ratio(v), v, fmaxf(x, 0.0f));
}

struct ValueAndSlope {
  float value, slope;
};

__device__ inline ValueAndSlope softplus_and_slope(float x) {
  const float v = exp2_fast(-fabsf(x) * kLog2E);
  return {fmaf(log1p_ratio(v), v, fmaxf(x, 0.0f)), (x < 0.0f ? v : 1.0f) * reciprocal(1.0f + v)};
}

__device__ inline float sigmoid(float x) { return reciprocal(1.0f + exp2_fast(-x * kLog2E)); }

__device__ inline float silu(float x) { return fmaxf(x, -3.4028234e38f) * sigmoid(x); }

__device__ inline ValueAndSlope silu_and_slope(float x) {
  const float s = sigmoid(x);
  const float value = fmaxf(x, -3.4028234e38f) * s;
  return {value, fmaf(fminf(value, 3.4028234e38f), 1.0f - s, s)};
}

}  // namespace blockstate::kernels::cuda::scan_backward
