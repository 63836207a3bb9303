// SPDX-License-Identifier: Apache-2.0
// How room is given to what a first pass leaves for the second.
#include <catch2/catch.hpp>

#include "core/autograd/kept.h"

namespace blockstate {
namespace {

Tensor number(float value) { return Tensor::from({1}, std::vector<float>{value}); }

}  // namespace

TEST_CASE("outside a pass that keeps there is no room, and nothing to take") {
  CHECK(room_to_keep(1) == Keeping::kNothing);
  keep_outputs("op", {number(1)});
  Tensor taken;
  CHECK_FALSE(take_kept("op", {&taken}));
  CHECK_FALSE(taken.defined());
}

TEST_CASE("all of an op is kept while there is room beside what was promised, then a little") {
  Kept kept;
  KeepRoom room{.bytes = 100, .promised = 20};
  const LeaveScope scope(kept, room);
  CHECK(room_to_keep(70, 5) == Keeping::kAll);
  CHECK(room.bytes == 30);
  CHECK(room_to_keep(11, 5) == Keeping::kLittle);  // 10 are free
  CHECK(room.bytes == 25);
  CHECK(room_to_keep(11) == Keeping::kNothing);  // this op has no little
  CHECK(room_to_keep(5, 5) == Keeping::kAll);
  CHECK(room_to_keep(21, 20) == Keeping::kLittle);  // down to the last byte
  CHECK(room.bytes == 0);
  CHECK(room_to_keep(1, 1) == Keeping::kNothing);
}

TEST_CASE("while the little of a chunk is not known, nothing else is kept") {
  Kept kept;
  KeepRoom room{.bytes = 100, .little_only = true};
  const LeaveScope scope(kept, room);
  CHECK(room_to_keep(10, 3) == Keeping::kLittle);
  CHECK(room_to_keep(10) == Keeping::kNothing);
  CHECK(room.bytes == 97);
}

TEST_CASE("the second pass takes what the first left, in its order") {
  Kept kept;
  KeepRoom room{.bytes = 100};
  {
    const LeaveScope scope(kept, room);
    keep_outputs("scan", {number(1), number(2)});
    keep_outputs("scan", {});  // there was no room
    keep_outputs("attention", {Tensor(), number(3)});
    CHECK(room_to_keep(1) == Keeping::kAll);
    Tensor taken;
    CHECK_FALSE(take_kept("scan", {&taken}));  // a pass that keeps takes nothing
  }
  const TakeScope scope(kept);
  CHECK(room_to_keep(1) == Keeping::kNothing);
  keep_outputs("scan", {number(9)});  // a pass that takes keeps nothing
  CHECK(kept.entries.size() == 3);
  Tensor first, second;
  REQUIRE(take_kept("scan", {&first, &second}));
  CHECK(first.item() == 1);
  CHECK(second.item() == 2);
  CHECK_FALSE(take_kept("scan", {&first, &second}));
  CHECK_FALSE(take_kept("scan", {&first, &second}));  // the next is another op's
  REQUIRE(take_kept("attention", {&first, &second}));
  CHECK_FALSE(first.defined());
  CHECK(second.item() == 3);
  CHECK_FALSE(take_kept("attention", {&first, &second}));
}

TEST_CASE("a first pass that repeats another takes from that, and leaves for its own second") {
  Kept outer, inner;
  outer.entries.push_back({"scan", {number(1)}});
  outer.entries.push_back({"scan", {number(2)}});
  KeepRoom room{.bytes = 4};
  Tensor taken;
  {
    const TakeScope repeating(outer);
    {
      const LeaveScope first(inner, room);
      REQUIRE(take_kept("scan", {&taken}));
      REQUIRE(room_to_keep(4) == Keeping::kAll);
      keep_outputs("scan", {taken});
    }
    {
      const TakeScope second(inner);
      REQUIRE(take_kept("scan", {&taken}));
      CHECK(taken.item() == 1);
      CHECK_FALSE(take_kept("scan", {&taken}));  // nothing of the outer
    }
    REQUIRE(take_kept("scan", {&taken}));
    CHECK(taken.item() == 2);
    CHECK(room_to_keep(1) == Keeping::kNothing);
  }
  CHECK_FALSE(take_kept("scan", {&taken}));
}

}  // namespace blockstate
