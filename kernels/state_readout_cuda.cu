// SPDX-License-Identifier: Apache-2.0
// Once a window: the sizes are small, so these are plain kernels.
#include "kernels/row_map.cuh"
#include "kernels/state_readout_check.h"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 4;

// A thread sums for one channel, kTile filters and kTile rows of the batch, so that each number it reads serves four
// sums.
template <int kPack>
__global__ void __launch_bounds__(kThreads)
    readout_kernel(View<float, 3> y, View<const float, 3> state, View<const float, 3> weight, int64_t count) {
  const int64_t B = state.size[0], S = weight.size[0], D = weight.size[1], Q = weight.size[2];
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) {
    return;
  }
  const int64_t tiles = ceil_div<int64_t>(S, kTile), d = i % D, s = i / D % tiles * kTile, b = i / (D * tiles) * kTile;
  const float *h[kTile], *w[kTile];
#pragma unroll
  for (int k = 0; k < kTile; ++k) {  // the last tile may hold a row twice
    h[k] = state.data + ((b + k < B ? b + k : b) * D + d) * Q;
    w[k] = weight.data + ((s + k < S ? s + k : s) * D + d) * Q;
  }
  float sum[kTile][kTile] = {};
  for (int64_t q = 0; q < Q; q += kPack) {
    float value[kTile][kPack], factor[kTile][kPack];
#pragma unroll
    for (int k = 0; k < kTile; ++k) {
      load_pack<kPack>(h[k] + q, value[k]);
      load_pack<kPack>(w[k] + q, factor[k]);
    }
#pragma unroll
    for (int k = 0; k < kTile; ++k) {
#pragma unroll
      for (int m = 0; m < kTile; ++m) {
#pragma unroll
        for (int j = 0; j < kPack; ++j) {
          sum[k][m] = fmaf(factor[m][j], value[k][j], sum[k][m]);
        }
      }
    }
  }
#pragma unroll
  for (int k = 0; k < kTile; ++k) {
#pragma unroll
    for (int m = 0; m < kTile; ++m) {
      if (b + k < B && s + m < S) {
        y(b + k, s + m, d) = sum[k][m];
      }
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
  const int64_t count = ceil_div<int64_t>(state.size[0], kTile) * ceil_div<int64_t>(weight.size[0], kTile) * y.size[2];
  const auto kernel = rows_packed(state) && rows_packed(weight) ? readout_kernel<4> : readout_kernel<1>;
  kernel<<<grid_size(count, kThreads, "state_readout_forward"), kThreads, 0, stream_of(exec)>>>(y, state, weight,
                                                                                                count);
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
