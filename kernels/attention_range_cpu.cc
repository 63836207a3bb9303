// SPDX-License-Identifier: Apache-2.0
#include "core/base/parallel.h"
#include "kernels/attention_range_check.h"

namespace blockstate::kernels::cpu {

void attention_ranges(const AttentionRanges& args) {
  check_attention_ranges(args);
  const int64_t L = args.position.size[1];
  constexpr int64_t kSteps = 4096;  // at a time
  parallel_for(args.position.elements(), kSteps, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / L, step = i % L;
      const KeyRange range = key_range(args, args.position(b, step), step);
      args.begin(b, step) = range.begin;
      args.end(b, step) = range.end;
    }
  });
}

}  // namespace blockstate::kernels::cpu
