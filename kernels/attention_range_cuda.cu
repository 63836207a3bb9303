// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_range_check.h"
#include "kernels/row_map.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) ranges_kernel(const AttentionRanges args, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) {
    const int64_t b = i / args.position.size[1], step = i % args.position.size[1];
    const KeyRange range = key_range(args, args.position(b, step), step);
    args.begin(b, step) = range.begin;
    args.end(b, step) = range.end;
  }
}

}  // namespace

void attention_ranges(const Exec& exec, const AttentionRanges& args) {
  check_attention_ranges(args);
  const int64_t count = args.position.elements();
  if (count > 0) {
    ranges_kernel<<<grid_size(count, kThreads, "attention_ranges"), kThreads, 0, stream_of(exec)>>>(args, count);
    check_launch(exec, "attention_ranges");
  }
}

}  // namespace blockstate::kernels::cuda
