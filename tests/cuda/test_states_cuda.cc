// SPDX-License-Identifier: Apache-2.0
// States at window ends on a GPU against the CPU's in double, and twice the same bits.
#include <catch2/catch.hpp>

#include "tests/support/cuda_array.h"
#include "tests/support/states_case.h"

namespace blockstate::test {
namespace {

constexpr Device kGpu{DeviceKind::kCuda, 0};

std::vector<float> floats(const std::vector<double>& values) { return {values.begin(), values.end()}; }

void check_case(const StatesCase& it, DType activations) {
  const bool low = activations == DType::kBFloat16;
  CAPTURE(it.text(), low);
  const StatesResult wanted = run_states(it, DType::kFloat64, {}, false, low);
  const StatesResult single = run_states(it, DType::kFloat32, {}, false, low);
  const StatesResult found = run_states(it, activations, kGpu), again = run_states(it, activations, kGpu);
  REQUIRE(found.values.size() == wanted.values.size());
  for (size_t i = 0; i < found.values.size(); ++i) {
    const std::string& name = found.names[i];
    const bool rounded = low && (name == "du" || name == "ddelta" || name == "dB");
    const std::vector<float> naive =
        rounded ? rounded_to<BFloat16>(floats(wanted.values[i])) : floats(single.values[i]);
    CHECK(compare_twice_naive(name, floats(found.values[i]), wanted.values[i], naive, 2e-5));
    CHECK(same_bits(name, found.values[i], again.values[i]));
  }
}

TEST_CASE("states at window ends on a GPU", "[states]") {
  for (const StatesCase& shape : {
           StatesCase{.B = 1, .L = 1, .D = 3, .N = 16, .first = 1, .window = 4},
           StatesCase{.B = 2, .L = 12, .D = 5, .N = 3, .first = 4, .window = 4},
           StatesCase{.B = 3, .L = 77, .D = 33, .N = 16, .first = 5, .window = 16},
           StatesCase{.B = 2, .L = 200, .D = 64, .N = 16, .first = 512, .window = 512},
           StatesCase{.B = 2, .L = 1024, .D = 40, .N = 16, .first = 512, .window = 512},
           StatesCase{.B = 1, .L = 2048, .D = 64, .N = 16, .first = 256, .window = 256},
           StatesCase{.B = 1, .L = 3000, .D = 64, .N = 16, .first = 300, .window = 512},
           StatesCase{.B = 3, .L = 1500, .D = 24, .N = 32, .first = 512, .window = 512},
           StatesCase{.B = 2, .L = 900, .D = 17, .N = 40, .first = 256, .window = 256},
           StatesCase{.B = 1, .L = 1000, .D = 64, .N = 16, .first = 100, .window = 333},
           StatesCase{.B = 5, .L = 700, .D = 32, .N = 8, .first = 17, .window = 300},
           StatesCase{.B = 1, .L = 4096, .D = 32, .N = 16, .first = 1024, .window = 1024},
       }) {
    for (const bool selective : {true, false}) {
      for (const bool packed : {false, true}) {
        StatesCase it = shape;
        it.selective = selective;
        it.packed = packed;
        it.initial = packed || shape.B != 2;
        check_case(it, DType::kFloat32);
        check_case(it, DType::kBFloat16);
      }
    }
  }
}

TEST_CASE("states at window ends without gradients", "[states]") {
  GradMode off(false);
  for (const bool selective : {true, false}) {
    for (const int64_t first : {512, 100}) {
      StatesCase it{.selective = selective, .B = 2, .L = 2100, .D = 40, .N = 16, .first = first, .window = 512};
      it.packed = first == 100;
      CAPTURE(it.text());
      const StatesResult wanted = run_states(it, DType::kFloat64, {}), single = run_states(it, DType::kFloat32, {});
      const StatesResult found = run_states(it, DType::kFloat32, kGpu);
      for (size_t i = 0; i < 2; ++i) {
        CHECK(compare_twice_naive(found.names[i], floats(found.values[i]), wanted.values[i], floats(single.values[i]),
                                  2e-5));
      }
    }
  }
}

}  // namespace
}  // namespace blockstate::test
