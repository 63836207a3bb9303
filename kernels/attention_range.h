// SPDX-License-Identifier: Apache-2.0
// Which keys each step of a chunk sees (kernels/attention.h): the ranges of sliding windows, of blocks, and of the
// context states of the window before. They follow from the step's position in its record.
//
// `carried` keys stand before the chunk's, so the key of step i is self = carried + i; p is position[b, i]:
//   sliding:   [self - min(reach, p), self + (sees_self ? 1 : 0))    reach: window - 1, or window without itself;
//                                                                    window 0: all of the record
//   block:     [self - p % window, self + 1)
//   previous:  group g = (first + i) / window - first / window of `states` keys each, first the index in the row of the
//              chunk's step 0: [g * states, (g + 1) * states), empty where p < window
// Padding (p < 0) sees nothing: [0, 0). No range begins before the first key, though a position says that more of its
// record went before than was carried. Shapes: begin, end, position (B, L).
#pragma once

#include <cstdint>

#include "core/base/view.h"
#include "kernels/cuda_exec.h"

namespace blockstate::kernels {

enum class RangeKind : uint8_t { kSliding, kBlock, kPrevious };

struct AttentionRanges {
  View<int64_t, 2> begin;
  View<int64_t, 2> end;
  View<const int64_t, 2> position;
  RangeKind kind = RangeKind::kSliding;
  int64_t window = 0;
  int64_t carried = 0;
  bool sees_self = true;  // kSliding
  int64_t first = 0;      // kPrevious
  int64_t states = 0;     // kPrevious
};

struct KeyRange {
  int64_t begin;
  int64_t end;
};

BLOCKSTATE_HOST_DEVICE inline KeyRange key_range(const AttentionRanges& args, int64_t position, int64_t step) {
  if (position < 0) {
    return {0, 0};
  }
  const int64_t self = args.carried + step;
  if (args.kind == RangeKind::kSliding) {
    const int64_t reach = args.sees_self ? args.window - 1 : args.window;
    const int64_t back = args.window > 0 && reach < position ? reach : position;
    return {back < self ? self - back : 0, args.sees_self ? self + 1 : self};
  }
  if (args.kind == RangeKind::kBlock) {
    const int64_t back = position % args.window;
    return {back < self ? self - back : 0, self + 1};
  }
  const int64_t group = (args.first + step) / args.window - args.first / args.window;
  return {group * args.states, position < args.window ? group * args.states : (group + 1) * args.states};
}

namespace cpu {
void attention_ranges(const AttentionRanges& args);
}
namespace cuda {
void attention_ranges(const Exec& exec, const AttentionRanges& args);
}

}  // namespace blockstate::kernels
