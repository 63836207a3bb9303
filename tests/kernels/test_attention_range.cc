// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <vector>

#include "kernels/attention_range.h"
#include "tests/kernels/attention_range_case.h"
#include "tests/support/compare.h"
#include "tests/support/guard_buffer.h"

namespace blockstate::test {

TEST_CASE("attention_ranges hold the keys that each step sees", "[attention_range]") {
  for (const RangeCase& s : kRangeCases) {
    CAPTURE(static_cast<int>(s.kind), s.window, s.carried, s.sees_self, s.first, s.states);
    constexpr int64_t kBatch = 4, kLength = 31;
    const std::vector<int64_t> position = range_positions(kBatch, kLength);
    std::vector<int64_t> begin(position.size(), -7), end(position.size(), -7);
    kernels::AttentionRanges args;
    args.begin = make_view(begin.data(), kBatch, kLength);
    args.end = make_view(end.data(), kBatch, kLength);
    args.position = make_view<const int64_t>(position.data(), kBatch, kLength);
    args.kind = s.kind;
    args.window = s.window;
    args.carried = s.carried;
    args.sees_self = s.sees_self;
    args.first = s.first;
    args.states = s.states;
    kernels::cpu::attention_ranges(args);
    for (size_t i = 0; i < position.size(); ++i) {
      const int64_t step = static_cast<int64_t>(i) % kLength;
      for (int64_t key = -100; key < 300; ++key) {
        CAPTURE(i, position[i], key, begin[i], end[i]);
        REQUIRE((key >= begin[i] && key < end[i]) == (key >= 0 && sees_key(s, position[i], step, key)));
      }
      REQUIRE((position[i] >= 0 || (begin[i] == 0 && end[i] == 0)));
    }
  }
}

TEST_CASE("attention_ranges of strided and empty rows", "[attention_range]") {
  const std::vector<int64_t> position{0, 9, 1, 9, -1, 9, 5, 9};
  GuardBuffer<int64_t, 2> begin({2, 2}, 3), end({2, 2}, 1);
  kernels::AttentionRanges args;
  args.begin = begin.view();
  args.end = end.view();
  args.position = View<const int64_t, 2>{position.data(), {2, 2}, {4, 2}};
  args.window = 3;
  kernels::cpu::attention_ranges(args);
  CHECK(begin.bands_intact("begin"));
  CHECK(end.bands_intact("end"));
  CHECK(same_bits("begin", begin.elements(), std::vector<int64_t>{0, 0, 0, 0}));
  CHECK(same_bits("end", end.elements(), std::vector<int64_t>{1, 2, 0, 2}));
  kernels::AttentionRanges empty = args;
  empty.begin.size[1] = empty.end.size[1] = empty.position.size[1] = 0;
  CHECK_NOTHROW(kernels::cpu::attention_ranges(empty));
}

TEST_CASE("attention_ranges name what does not fit", "[attention_range]") {
  std::vector<int64_t> data(6);
  kernels::AttentionRanges args;
  args.begin = args.end = make_view(data.data(), 2, 3);
  args.position = make_view<const int64_t>(data.data(), 2, 3);
  args.kind = kernels::RangeKind::kBlock;
  CHECK_THROWS_WITH(kernels::cpu::attention_ranges(args), Catch::Contains("window must be positive"));
  args.window = 4;
  args.end.size[1] = 2;
  CHECK_THROWS_WITH(kernels::cpu::attention_ranges(args), "attention_ranges: end must have shape (2, 3), found (2, 2)");
}

}  // namespace blockstate::test
