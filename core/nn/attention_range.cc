// SPDX-License-Identifier: Apache-2.0
#include "core/nn/attention_range.h"

#include <algorithm>

namespace blockstate::nn {
namespace {

/// begin and end from range(position, step) -> {first key, past the last key}; padding sees nothing.
template <class Range>
ops::AttentionRange build(const Sequence& sequence, int64_t offset, const Range& range) {
  ops::AttentionRange result;
  result.offset = offset;
  result.begin = Tensor::empty(sequence.position.shape(), DType::kInt64);
  result.end = Tensor::empty(sequence.position.shape(), DType::kInt64);
  const int64_t L = sequence.length();
  const int64_t* position = sequence.position.data<int64_t>();
  for (int64_t i = 0; i < sequence.position.elements(); ++i) {
    const auto [begin, end] = position[i] < 0 ? std::pair<int64_t, int64_t>{0, 0} : range(position[i], i % L);
    result.begin.data<int64_t>()[i] = begin;
    result.end.data<int64_t>()[i] = end;
  }
  return result;
}

}  // namespace

ops::AttentionRange sliding_range(const Sequence& sequence, int64_t carried, int64_t window, bool sees_self) {
  const int64_t reach = window == 0 ? INT64_MAX : (sees_self ? window - 1 : window);
  return build(sequence, carried, [&](int64_t position, int64_t step) {
    const int64_t self = carried + step;
    return std::pair{self - std::min(reach, position), sees_self ? self + 1 : self};
  });
}

ops::AttentionRange block_range(const Sequence& sequence, int64_t carried, int64_t window) {
  return build(sequence, carried, [&](int64_t position, int64_t step) {
    const int64_t self = carried + step;
    return std::pair{self - position % window, self + 1};
  });
}

ops::AttentionRange previous_window_range(const Sequence& sequence, int64_t window, int64_t states) {
  const int64_t first = sequence.offset / window;
  return build(sequence, 0, [&](int64_t position, int64_t step) {
    const int64_t group = (sequence.offset + step) / window - first;
    return std::pair{group * states, position < window ? group * states : (group + 1) * states};
  });
}

}  // namespace blockstate::nn
