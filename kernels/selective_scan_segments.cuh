// SPDX-License-Identifier: Apache-2.0
// Time cut into segments that are scanned side by side. The state before each is found first: a walk back from a
// segment's end gives what its own steps leave there, and the factor of the state before it; a fold over the segments
// gives the states.
#pragma once

#include <algorithm>

#include "kernels/selective_scan_pieces.cuh"

namespace blockstate::kernels::cuda::scan {

/// Steps of a segment that are worth its cost.
inline constexpr int64_t kShortestSegment = 1024;

/// Steps of a segment when `blocks` blocks (of all rows) walk `length` steps and `places` run at once: the whole length
/// where that fills the GPU.
inline int64_t segment_steps(int64_t places, int64_t blocks, int64_t length) {
  if (2 * blocks > places || length < 2 * kShortestSegment) {
    return length;
  }
  const int64_t wanted = std::min(places / blocks, length / kShortestSegment);
  return ceil_div(ceil_div(length, wanted), kScanCheckpoint) * kScanCheckpoint;
}

/// entry[k + 1] = factor[k] * entry[k] + left[k], elementwise over (B, D, N).
static __global__ void __launch_bounds__(256)
    fold_kernel(View<const float, 3> initial, int64_t width, int64_t states, int64_t count, int64_t segments,
                const float* __restrict__ left, const float* __restrict__ factor, float* __restrict__ entry) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) {
    return;
  }
  float h = initial ? initial(i / states / width, i / states % width, i % states) : 0.0f;
  entry[i] = h;
#pragma unroll 8
  for (int64_t k = 0; k + 1 < segments; ++k) {
    h = fmaf(factor[k * count + i], h, left[k * count + i]);
    entry[(k + 1) * count + i] = h;
  }
}

/// Writes the state before each segment, (segments, B, D, N).
template <class T>
void find_entries(const Exec& exec, const SelectiveScanForward<T, float>& args, int64_t segments, int64_t steps,
                  float* entry) {
  const int64_t batch = args.u.size[0], width = args.u.size[2], states = args.A.size[1];
  const int64_t count = batch * width * states;
  const Scratch<float> left(exec, (segments - 1) * count);
  const Scratch<float> factor(exec, (segments - 1) * count);
  // What the last one leaves is not needed.
  const Pieces pieces{{steps, steps, args.u.size[1]}, steps, 1, segments - 1, batch, 1};
  walk_back(exec, args, pieces, left.get(), factor.get());
  fold_kernel<<<static_cast<unsigned>(ceil_div(count, int64_t{256})), 256, 0, stream_of(exec)>>>(
      args.initial, width, states, count, segments, left.get(), factor.get(), entry);
  check_launch(exec, "selective_scan");
}

}  // namespace blockstate::kernels::cuda::scan
