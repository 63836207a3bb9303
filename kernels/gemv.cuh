// SPDX-License-Identifier: Apache-2.0
// Products of very few rows with a weight, where gemm_few_rows.cuh does not serve: a warp takes one row of the weight
// and keeps the sums of all rows of x.
#pragma once

#include "kernels/cuda_launch.cuh"
#include "kernels/gemm.h"

namespace blockstate::kernels::cuda {

inline constexpr int64_t kGemvRows = 4;  // rows of a; beyond, a product of tiles is faster

/// c (M, N) = a (M, K) b (N, K) transposed (+ bias). kRows >= M; K a multiple of kPack, rows of a and b aligned to
/// packs.
template <class T, class C, int kRows, int kPack>
__global__ void __launch_bounds__(128) gemv_kernel(const Gemm<T, C, float> args) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t n = int64_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32;
  const int64_t K = args.a.size[1];
  const T* weight = args.b.data + n * args.b.stride[0];
  let_next_begin();
  if (n < args.c.size[1]) {
    prefetch_to_l2(weight, K, lane, 32);
  }
  wait_for_earlier_work();
  if (n >= args.c.size[1]) {
    return;
  }
  float sum[kRows] = {};
#pragma unroll 4
  for (int64_t k = int64_t{lane} * kPack; k < K; k += 32 * kPack) {
    float w[kPack];
    load_pack<kPack>(weight + k, w);
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      if (m < args.c.size[0]) {
        float x[kPack];
        load_pack<kPack>(args.a.data + m * args.a.stride[0] + k, x);
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          sum[m] += w[i] * x[i];
        }
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
    sum[m] = warp_sum(sum[m]);
    if (lane == 0 && m < args.c.size[0]) {
      const float bias = args.bias ? args.bias.data[n] : 0.0f;
      args.c.data[m * args.c.stride[0] + n] = from_float<C>(args.alpha * sum[m] + bias);
    }
  }
}

/// Whether gemv serves this product.
template <class T, class C>
bool serves_gemv(const Gemm<T, C, float>& args) {
  return args.c.size[0] <= kGemvRows && args.transpose_b && !args.transpose_a && args.beta == 0;
}

template <class T, class C, int kRows>
void launch_gemv(const Exec& exec, const Gemm<T, C, float>& args) {
  constexpr int kPack = 16 / static_cast<int>(sizeof(T));
  const auto whole = [](const View<const T, 2>& rows) {
    return reinterpret_cast<uintptr_t>(rows.data) % 16 == 0 && (rows.size[0] <= 1 || rows.stride[0] % kPack == 0);
  };
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(args.c.size[1], 4)));
  if (args.a.size[1] % kPack == 0 && whole(args.a) && whole(args.b)) {
    launch_early<gemv_kernel<T, C, kRows, kPack>>(exec, "gemm", grid, 128, 0, args);
  } else {
    launch_early<gemv_kernel<T, C, kRows, 1>>(exec, "gemm", grid, 128, 0, args);
  }
}

template <class T, class C>
void gemv(const Exec& exec, const Gemm<T, C, float>& args) {
  args.c.size[0] == 1 ? launch_gemv<T, C, 1>(exec, args) : launch_gemv<T, C, static_cast<int>(kGemvRows)>(exec, args);
}

}  // namespace blockstate::kernels::cuda
