// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/attention_range.h"
#include "kernels/view_check.h"

namespace blockstate::kernels {

inline void check_attention_ranges(const AttentionRanges& args) {
  const int64_t shape[] = {args.position.size[0], args.position.size[1]};
  check_view("attention_ranges", "position", args.position, shape);
  check_view("attention_ranges", "begin", args.begin, shape);
  check_view("attention_ranges", "end", args.end, shape);
  require(args.kind == RangeKind::kSliding ? args.window >= 0 : args.window > 0,
          "attention_ranges: the window must be positive (or, where it slides, 0 for all of the record), found ",
          args.window);
  require(args.carried >= 0 && args.first >= 0 && args.states >= 0,
          "attention_ranges: carried, first and states must not be negative, found ", args.carried, ", ", args.first,
          " and ", args.states);
}

}  // namespace blockstate::kernels
