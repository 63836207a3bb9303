// SPDX-License-Identifier: Apache-2.0
#include "core/nn/attention_range.h"

#include "core/tensor/place.h"
#include "kernels/attention_range.h"

namespace blockstate::nn {
namespace {

ops::AttentionRange build(const Sequence& sequence, kernels::AttentionRanges args) {
  ops::AttentionRange result;
  result.offset = args.carried;
  result.begin = Tensor::empty(sequence.position.shape(), DType::kInt64, sequence.position.device());
  result.end = Tensor::empty(sequence.position.shape(), DType::kInt64, sequence.position.device());
  args.begin = result.begin.view<int64_t, 2>();
  args.end = result.end.view<int64_t, 2>();
  args.position = sequence.position.view<int64_t, 2>();
  if (sequence.position.device().kind == DeviceKind::kCuda) {
    kernels::cuda::attention_ranges(kernels::cuda::exec(sequence.position.device().index), args);
  } else {
    kernels::cpu::attention_ranges(args);
  }
  return result;
}

}  // namespace

ops::AttentionRange sliding_range(const Sequence& sequence, int64_t carried, int64_t window, bool sees_self) {
  kernels::AttentionRanges args;
  args.kind = kernels::RangeKind::kSliding;
  args.carried = carried;
  args.window = window;
  args.sees_self = sees_self;
  return build(sequence, args);
}

ops::AttentionRange block_range(const Sequence& sequence, int64_t carried, int64_t window) {
  kernels::AttentionRanges args;
  args.kind = kernels::RangeKind::kBlock;
  args.carried = carried;
  args.window = window;
  return build(sequence, args);
}

ops::AttentionRange previous_window_range(const Sequence& sequence, int64_t window, int64_t states) {
  kernels::AttentionRanges args;
  args.kind = kernels::RangeKind::kPrevious;
  args.window = window;
  args.first = sequence.offset;
  args.states = states;
  return build(sequence, args);
}

}  // namespace blockstate::nn
