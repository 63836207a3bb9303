// SPDX-License-Identifier: Apache-2.0
// As on the CPU, except that a bucket outside of the table reads as 0 and gives no gradient: who makes the buckets, on
// the host, answers for them.
#include "kernels/relative_bias_check.h"
#include "kernels/row_map.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    gather_kernel(View<float, 2> bias, View<const float, 2> table, View<const int64_t, 1> bucket) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, M = bias.size[1];
  if (i < bias.size[0] * M) {
    const int64_t u = bucket(i % M);
    bias(i / M, i % M) = u >= 0 && u < table.size[0] ? table(u, i / M) : 0.0f;
  }
}

// A block sums one entry of the table: each thread every 256th distance, then the threads in order.
__global__ void __launch_bounds__(kThreads)
    scatter_kernel(View<float, 2> dtable, View<const float, 2> dbias, View<const int64_t, 1> bucket) {
  const int64_t u = blockIdx.x / dtable.size[1], h = blockIdx.x % dtable.size[1];
  float sum = 0;
  for (int64_t m = threadIdx.x; m < bucket.size[0]; m += kThreads) {
    if (bucket(m) == u) {
      sum += dbias(h, m);
    }
  }
  __shared__ float shared[kThreads / 32];
  sum = block_sum<kThreads>(sum, shared);
  if (threadIdx.x == 0) {
    dtable(u, h) += sum;
  }
}

}  // namespace

template <>
void relative_bias_forward<float>(const Exec& exec, View<float, 2> bias, View<const float, 2> table,
                                  View<const int64_t, 1> bucket) {
  check_relative_bias("relative_bias_forward", "bias", bias, "table", table, bucket);
  if (bias.elements() == 0) {
    return;
  }
  gather_kernel<<<grid_size(bias.elements(), kThreads, "relative_bias_forward"), kThreads, 0, stream_of(exec)>>>(
      bias, table, bucket);
  check_launch(exec, "relative_bias_forward");
}

template <>
void relative_bias_backward<float>(const Exec& exec, View<float, 2> dtable, View<const float, 2> dbias,
                                   View<const int64_t, 1> bucket) {
  check_relative_bias("relative_bias_backward", "dbias", dbias, "dtable", dtable, bucket);
  if (dbias.elements() == 0 || dtable.elements() == 0) {
    return;
  }
  scatter_kernel<<<grid_size(dtable.elements(), 1, "relative_bias_backward"), kThreads, 0, stream_of(exec)>>>(
      dtable, dbias, bucket);
  check_launch(exec, "relative_bias_backward");
}

}  // namespace blockstate::kernels::cuda
