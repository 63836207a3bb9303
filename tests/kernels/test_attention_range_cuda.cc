// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <vector>

#include "kernels/attention_range.h"
#include "tests/kernels/attention_range_case.h"
#include "tests/support/cuda_array.h"

namespace blockstate::test {

TEST_CASE("attention_ranges on CUDA equal the CPU's", "[attention_range][cuda]") {
  for (const RangeCase& s : kRangeCases) {
    for (const int64_t length : {0, 1, 31, 700}) {
      CAPTURE(static_cast<int>(s.kind), s.window, s.carried, s.sees_self, s.first, s.states, length);
      constexpr int64_t kBatch = 4;
      const std::vector<int64_t> position = range_positions(kBatch, length);
      std::vector<int64_t> begin(position.size(), -7), end(position.size(), -7);
      kernels::AttentionRanges args;
      args.begin = make_view(begin.data(), kBatch, length);
      args.end = make_view(end.data(), kBatch, length);
      args.position = make_view<const int64_t>(position.data(), kBatch, length);
      args.kind = s.kind;
      args.window = s.window;
      args.carried = s.carried;
      args.sees_self = s.sees_self;
      args.first = s.first;
      args.states = s.states;
      kernels::cpu::attention_ranges(args);
      const CudaArray<int64_t> begins(kBatch * length), ends(kBatch * length), positions(position);
      args.begin = begins.view(kBatch, length);
      args.end = ends.view(kBatch, length);
      args.position = positions.cview(kBatch, length);
      kernels::cuda::attention_ranges(gpu(), args);
      CHECK(begins.host() == begin);
      CHECK(ends.host() == end);
    }
  }
}

}  // namespace blockstate::test
