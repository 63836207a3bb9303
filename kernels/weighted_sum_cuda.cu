// SPDX-License-Identifier: Apache-2.0
// Sums in double, in an order that the length alone decides: a block sums a piece, the last step adds the pieces.
#include <algorithm>

#include "kernels/cuda_support.cuh"
#include "kernels/weighted_sum_check.h"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kAtOnce = 8;
constexpr int64_t kMostPieces = 256;

// The block's sum, in thread 0.
__device__ double sum_of_block(double value) {
  __shared__ double shared[kThreads / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_down_sync(0xffffffffu, value, offset);
  }
  if (threadIdx.x % 32 == 0) {
    shared[threadIdx.x / 32] = value;
  }
  __syncthreads();
  double total = 0;
  if (threadIdx.x == 0) {
    for (int warp = 0; warp < kThreads / 32; ++warp) {
      total += shared[warp];
    }
  }
  return total;
}

__global__ void __launch_bounds__(kThreads)
    sum_kernel(double* partial, View<float, 1> y, View<const float, 1> x, View<const float, 1> weight, int64_t piece) {
  const int64_t begin = blockIdx.x * piece, end = begin + piece < x.size[0] ? begin + piece : x.size[0];
  double sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kAtOnce * kThreads) {
    float value[kAtOnce], factor[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int64_t at = i + k * kThreads;
      value[k] = at < end ? x(at) : 0.0f;
      factor[k] = at < end && weight ? weight(at) : 1.0f;
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      sum += static_cast<double>(value[k]) * static_cast<double>(factor[k]);
    }
  }
  sum = sum_of_block(sum);
  if (threadIdx.x == 0) {
    if (gridDim.x == 1) {
      y.data[0] = static_cast<float>(sum);
    } else {
      partial[blockIdx.x] = sum;
    }
  }
}

__global__ void __launch_bounds__(kThreads) add_kernel(View<float, 1> y, const double* partial, int pieces) {
  const double sum = sum_of_block(static_cast<int>(threadIdx.x) < pieces ? partial[threadIdx.x] : 0.0);
  if (threadIdx.x == 0) {
    y.data[0] = static_cast<float>(sum);
  }
}
static_assert(kMostPieces <= kThreads, "add_kernel takes a piece a thread");

__global__ void __launch_bounds__(kThreads)
    spread_kernel(View<float, 1> dx, View<const float, 1> dy, View<const float, 1> weight) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < dx.size[0]) {
    dx(i) = weight ? dy.data[0] * weight(i) : dy.data[0];
  }
}

}  // namespace

template <>
void weighted_sum_forward<float>(const Exec& exec, View<float, 1> y, View<const float, 1> x,
                                 View<const float, 1> weight) {
  check_weighted_sum_forward(y, x, weight);
  constexpr int64_t kLeast = kThreads * kAtOnce;
  const int64_t piece = std::max(kLeast, ceil_div(ceil_div(x.size[0], kMostPieces), kLeast) * kLeast);
  const int64_t pieces = std::max<int64_t>(1, ceil_div(x.size[0], piece));
  const Scratch<double> partial(exec, pieces);
  sum_kernel<<<static_cast<unsigned>(pieces), kThreads, 0, stream_of(exec)>>>(partial.get(), y, x, weight, piece);
  check_launch(exec, "weighted_sum_forward");
  if (pieces > 1) {
    add_kernel<<<1, kThreads, 0, stream_of(exec)>>>(y, partial.get(), static_cast<int>(pieces));
    check_launch(exec, "weighted_sum_forward");
  }
}

template <>
void weighted_sum_backward<float>(const Exec& exec, View<float, 1> dx, View<const float, 1> dy,
                                  View<const float, 1> weight) {
  check_weighted_sum_backward(dx, dy, weight);
  if (dx.size[0] == 0) {
    return;
  }
  const int64_t blocks = ceil_div<int64_t>(dx.size[0], kThreads);
  require(blocks <= INT32_MAX, "weighted_sum_backward: ", dx.size[0], " elements are too many for one launch");
  spread_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream_of(exec)>>>(dx, dy, weight);
  check_launch(exec, "weighted_sum_backward");
}

}  // namespace blockstate::kernels::cuda
