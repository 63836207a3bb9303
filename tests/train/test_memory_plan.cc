// SPDX-License-Identifier: Apache-2.0
// The memory plan against what a step of training takes.
#include <catch2/catch.hpp>

#include "tests/support/planned_memory.h"

namespace blockstate {
namespace {

TEST_CASE("a step of training takes the memory that was planned", "[training]") {
  for (const test::PlannedStep& step : test::planned_steps()) {
    test::check_plan(step, Device{}, DType::kFloat32);
  }
}

TEST_CASE("what backward computes anew takes no memory meanwhile", "[training]") {
  const auto peak = [](model::Recompute what) {
    return test::check_plan({{"mamba * 8"}, 64, 2, 2048, 0, what}, Device{}, DType::kFloat32);
  };
  const double none = peak(model::Recompute::kNone), cheap = peak(model::Recompute::kCheap),
               all = peak(model::Recompute::kAll);
  CAPTURE(none, cheap, all);
  CHECK(cheap < 0.7 * none);
  CHECK(all < 0.8 * cheap);
}

TEST_CASE("a chunk is chosen where a sequence does not fit", "[training]") {
  const auto model = test::planned_model({{"mamba"}, 32, 1, 1024, 0}, Device{}, DType::kFloat32);
  CHECK(train::choose_chunk(*model, 1, 2048) == 0);
  const int64_t length = int64_t{1} << 40;  // of which no machine holds the activations
  const int64_t chunk = train::choose_chunk(*model, 1, length);
  CHECK(chunk > 0);
  CHECK(chunk < length);
  CHECK((chunk & (chunk - 1)) == 0);
}

}  // namespace
}  // namespace blockstate
