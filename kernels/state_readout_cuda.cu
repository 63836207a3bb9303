// SPDX-License-Identifier: Apache-2.0
// Once a window: the sizes are small, so these are plain kernels whose neighbouring threads read neighbouring numbers.
#include "kernels/row_map.cuh"
#include "kernels/state_readout_check.h"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLanes = 8;  // that share a channel's state

__global__ void __launch_bounds__(kThreads)
    readout_kernel(View<float, 3> y, View<const float, 3> state, View<const float, 3> weight, int64_t channels) {
  const int64_t S = weight.size[0], D = weight.size[1], Q = weight.size[2];
  const int64_t channel = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
  const int lane = threadIdx.x % kLanes;
  const bool inside = channel < channels;  // all threads reach the shuffles
  const int64_t b = inside ? channel / D : 0, d = inside ? channel % D : 0;
  const float* h = state.data + (b * D + d) * Q;
  for (int64_t s = 0; s < S; ++s) {
    const float* w = weight.data + (s * D + d) * Q;
    float sum = 0;
    for (int64_t q = lane; q < Q; q += kLanes) {
      sum += w[q] * h[q];
    }
    sum = warp_sum<kLanes>(sum);
    if (inside && lane == 0) {
      y(b, s, d) = sum;
    }
  }
}

// dstate[b, d, q] = sum over s, a thread each.
__global__ void __launch_bounds__(kThreads)
    readout_dstate_kernel(View<float, 3> dstate, View<const float, 3> dy, View<const float, 3> weight, int64_t count) {
  const int64_t S = weight.size[0], D = weight.size[1], Q = weight.size[2];
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) {
    const int64_t at = i % (D * Q), b = i / (D * Q), d = at / Q;
    float sum = 0;
    for (int64_t s = 0; s < S; ++s) {
      sum += dy(b, s, d) * weight.data[s * D * Q + at];
    }
    dstate.data[i] = sum;
  }
}

// dweight[s, d, q] += sum over b, in order, a thread each.
__global__ void __launch_bounds__(kThreads)
    readout_dweight_kernel(View<float, 3> dweight, View<const float, 3> dy, View<const float, 3> state, int64_t count) {
  const int64_t B = state.size[0], D = state.size[1], Q = state.size[2];
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) {
    const int64_t at = i % (D * Q), s = i / (D * Q), d = at / Q;
    float sum = 0;
#pragma unroll 4
    for (int64_t b = 0; b < B; ++b) {
      sum += dy(b, s, d) * state.data[b * D * Q + at];
    }
    dweight.data[i] += sum;
  }
}

}  // namespace

template <>
void state_readout_forward<float>(const Exec& exec, View<float, 3> y, View<const float, 3> state,
                                  View<const float, 3> weight) {
  check_state_readout("state_readout_forward", "y", y, state, weight);
  if (y.elements() == 0) {
    return;
  }
  const int64_t channels = state.size[0] * state.size[1];
  readout_kernel<<<grid_size(channels, kThreads / kLanes, "state_readout_forward"), kThreads, 0, stream_of(exec)>>>(
      y, state, weight, channels);
  check_launch(exec, "state_readout_forward");
}

template <>
void state_readout_backward<float>(const Exec& exec, View<float, 3> dstate, View<float, 3> dweight,
                                   View<const float, 3> dy, View<const float, 3> state, View<const float, 3> weight) {
  const char* op = "state_readout_backward";
  check_state_readout_backward(dstate, dweight, dy, state, weight);
  if (const int64_t count = dstate.elements(); count > 0) {
    readout_dstate_kernel<<<grid_size(count, kThreads, op), kThreads, 0, stream_of(exec)>>>(dstate, dy, weight, count);
    check_launch(exec, op);
  }
  if (const int64_t count = dweight.elements(); count > 0) {
    readout_dweight_kernel<<<grid_size(count, kThreads, op), kThreads, 0, stream_of(exec)>>>(dweight, dy, state, count);
    check_launch(exec, op);
  }
}

}  // namespace blockstate::kernels::cuda
