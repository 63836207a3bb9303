// SPDX-License-Identifier: Apache-2.0
#include "kernels/argmax.h"
#include "kernels/cuda_launch.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 128;

struct Best {
  float value;
  int64_t index;
};

__device__ inline Best better(Best a, Best b) {
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

/// A block a row.
template <class T>
__global__ void __launch_bounds__(kThreads) argmax_kernel(const View<int64_t, 1> index, const View<const T, 2> x) {
  __shared__ Best shared[kThreads / 32];
  let_next_begin();
  wait_for_earlier_work();
  const T* row = x.data + int64_t{blockIdx.x} * x.stride[0];
  Best best{-INFINITY, x.size[1]};
  for (int64_t v = threadIdx.x; v < x.size[1]; v += kThreads) {
    const float value = to_float(row[v]);
    best = better(best, {value > -INFINITY ? value : -INFINITY, v});
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    best = better(best,
                  {__shfl_xor_sync(0xffffffffu, best.value, offset), __shfl_xor_sync(0xffffffffu, best.index, offset)});
  }
  if (threadIdx.x % 32 == 0) {
    shared[threadIdx.x / 32] = best;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < kThreads / 32; ++warp) {
      best = better(best, shared[warp]);
    }
    index.data[int64_t{blockIdx.x} * index.stride[0]] = best.index;
  }
}

}  // namespace

template <class T>
void argmax(const Exec& exec, View<int64_t, 1> index, View<const T, 2> x) {
  check_argmax(index, x);
  require(x.size[0] < (int64_t{1} << 31), "argmax takes fewer than 2^31 rows, found ", x.size[0]);
  if (x.size[0] > 0) {
    launch_early<argmax_kernel<T>>(exec, "argmax", static_cast<unsigned>(x.size[0]), kThreads, 0, index, x);
  }
}

template void argmax<float>(const Exec&, View<int64_t, 1>, View<const float, 2>);
template void argmax<BFloat16>(const Exec&, View<int64_t, 1>, View<const BFloat16, 2>);

}  // namespace blockstate::kernels::cuda
