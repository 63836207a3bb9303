// SPDX-License-Identifier: Apache-2.0
// The last step of sums over many rows that were cut into pieces by their shape: the pieces are added in a fixed order,
// in double.
#pragma once

#include "core/base/view.h"
#include "kernels/cuda_support.cuh"

namespace blockstate::kernels::cuda {

/// Blocks that a sum over many rows is cut into, at most: some waves on any GPU. Constant, so that the order of a sum
/// follows from the shape alone.
inline constexpr int64_t kSumBlocks = 1056;

/// sum(r, c) += the sum over p of partial[p, r, c]: 32 interleaved sums over p, then those in order.
template <class P>
__global__ void __launch_bounds__(1024) add_pieces_kernel(View<float, 2> sum, const P* partial, int64_t pieces) {
  const int64_t columns = sum.size[1], area = sum.size[0] * columns;
  const int64_t i = blockIdx.x * int64_t{32} + threadIdx.x % 32;
  const int slot = threadIdx.x / 32;
  double total = 0;
  if (i < area) {
#pragma unroll 4
    for (int64_t p = slot; p < pieces; p += 32) {
      total += static_cast<double>(partial[p * area + i]);
    }
  }
  __shared__ double shared[32][33];
  shared[slot][threadIdx.x % 32] = total;
  __syncthreads();
  if (slot == 0 && i < area) {
    float& to = sum(i / columns, i % columns);
    total = static_cast<double>(to);
    for (int s = 0; s < 32; ++s) {
      total += shared[s][threadIdx.x];
    }
    to = static_cast<float>(total);
  }
}

template <class P>
void add_pieces(const Exec& exec, const char* op, View<float, 2> sum, const P* partial, int64_t pieces) {
  const int64_t blocks = ceil_div<int64_t>(sum.elements(), 32);
  require(blocks <= INT32_MAX, op, ": ", sum.elements(), " sums are too many for one launch");
  add_pieces_kernel<P><<<static_cast<unsigned>(blocks), 1024, 0, stream_of(exec)>>>(sum, partial, pieces);
  check_launch(exec, op);
}

}  // namespace blockstate::kernels::cuda
