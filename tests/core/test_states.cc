// SPDX-License-Identifier: Apache-2.0
// States at window ends against scans window by window, and their gradients against differences, in double.
#include <catch2/catch.hpp>

#include "tests/core/op_check.h"
#include "tests/support/compare.h"
#include "tests/support/states_case.h"

namespace blockstate::test {
namespace {

TEST_CASE("states at window ends are those of the scan cut there", "[states]") {
  for (const bool selective : {true, false}) {
    for (const StatesCase& shape : {
             StatesCase{.B = 1, .L = 1, .D = 1, .N = 1, .first = 1, .window = 1},
             StatesCase{.B = 2, .L = 12, .D = 5, .N = 3, .first = 4, .window = 4},
             StatesCase{.B = 2, .L = 13, .D = 5, .N = 3, .first = 3, .window = 5},
             StatesCase{.B = 3, .L = 4, .D = 5, .N = 3, .first = 7, .window = 9},
             StatesCase{.B = 2, .L = 350, .D = 19, .N = 6, .first = 100, .window = 100},
             StatesCase{.B = 1, .L = 400, .D = 19, .N = 6, .first = 33, .window = 150},
             StatesCase{.B = 2, .L = 9, .D = 5, .N = 3, .first = 1, .window = 1},
         }) {
      for (const bool packed : {false, true}) {
        StatesCase it = shape;
        it.selective = selective;
        it.packed = packed;
        it.initial = packed || shape.L != 12;
        CAPTURE(it.text());
        const StatesResult found = run_states(it, DType::kFloat64, {});
        const StatesResult wanted = run_states(it, DType::kFloat64, {}, true);
        REQUIRE(found.values.size() == wanted.values.size());
        for (size_t i = 0; i < found.values.size(); ++i) {
          CHECK(compare(found.names[i], found.values[i], wanted.values[i], kFloat64));
        }
      }
    }
  }
}

TEST_CASE("gradients of states at window ends", "[states]") {
  const Tensor position = Tensor::from<int64_t>({2, 7}, {3, 4, 0, 1, 2, -1, -1, 0, 1, 2, 3, 4, 0, 1});
  const auto both = [](const ops::States& states) { return std::vector<Variable>{states.at_ends, states.final}; };
  const auto check = [](const Op& op, const std::vector<Leaf>& leaves) {
    for (const unsigned reached : {1u, 2u, 3u}) {
      CHECK(OpCheck(op, leaves).against_differences(reached));
    }
    OpCheck one(op, leaves);
    for (const Layout layout : {Layout::kColumns, Layout::kSteps}) {
      const auto found = one.gradients(layout, 3u, ~0u), wanted = one.gradients(Layout::kPlain, 3u, ~0u);
      for (size_t i = 0; i < found.size(); ++i) {
        CHECK(compare("gradient", found[i], wanted[i], kFloat64));
      }
    }
  };
  Leaf A = parameter("A", {3, 4}, 21), a = parameter("a", {3, 2, 2}, 30);
  for (double& x : A.value) {
    x = -std::exp(x);
  }
  for (double& x : a.value) {
    x = 0.6 * std::tanh(x);
  }
  const Leaf u = activation("u", {2, 7, 3}, 22), delta = activation("delta", {2, 7, 3}, 23);
  const Leaf B = activation("B", {2, 7, 4}, 24), bias = parameter("delta_bias", {3}, 28);
  const Leaf initial = parameter("initial", {2, 3, 4}, 29), complex = parameter("initial", {2, 3, 2, 2}, 33);
  for (const int64_t first : {1, 2, 3}) {
    CAPTURE(first);
    check(
        [&](const std::vector<Variable>& in) {
          return both(
              ops::selective_scan_states({in[0], in[1], in[2], in[3], {}, {}, {}, in[4], in[5]}, position, first, 3));
        },
        {u, delta, A, B, bias, initial});
    check(
        [&](const std::vector<Variable>& in) {
          return both(ops::selective_scan_states({in[0], in[1], in[2], in[3], {}, {}, {}, {}, {}}, {}, first, 3));
        },
        {u, delta, A, B});
    check(
        [&](const std::vector<Variable>& in) {
          return both(ops::diagonal_scan_states(in[0], in[1], in[2], position, first, 3));
        },
        {u, a, complex});
    check(
        [&](const std::vector<Variable>& in) {
          return both(ops::diagonal_scan_states(in[0], in[1], {}, {}, first, 3));
        },
        {u, a});
  }
}

}  // namespace
}  // namespace blockstate::test
