// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "tests/support/planned_memory.h"

namespace blockstate {
namespace {

TEST_CASE("a step of training on a GPU takes the memory that was planned", "[cuda]") {
  const Device device{DeviceKind::kCuda, 0};
  for (test::PlannedStep step : test::planned_steps()) {
    step.d_model = 256;
    step.batch *= 4;
    test::check_plan(step, device, DType::kBFloat16);
  }
  test::check_plan({{"mamba * 8"}, 768, 8, 2048, 0}, device, DType::kBFloat16);
}

TEST_CASE("steps of training that are recorded take the memory that was planned for one", "[cuda]") {
  const Device device{DeviceKind::kCuda, 0};
  for (test::PlannedStep step : test::planned_steps()) {
    step.d_model = 256;
    step.batch *= 4;
    test::check_plan(step, device, DType::kBFloat16, 4);
  }
}

}  // namespace
}  // namespace blockstate
