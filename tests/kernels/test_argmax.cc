// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "kernels/argmax.h"

namespace blockstate::test {

TEMPLATE_TEST_CASE("argmax finds the first of the largest", "[argmax]", float, double) {
  const std::vector<TestType> x = {1, 3, 2, 3, NAN, -1, NAN, -2, NAN, NAN, NAN, NAN, -INFINITY, -4, -3, NAN};
  std::vector<int64_t> index(4, 9);
  kernels::cpu::argmax<TestType>(make_view(index.data(), 4), make_view(x.data(), 4, 4));
  CHECK(index == std::vector<int64_t>{1, 1, 0, 2});
  CHECK_THROWS_WITH(kernels::cpu::argmax<TestType>(make_view(index.data(), 3), make_view(x.data(), 4, 4)),
                    "argmax: index must have shape (4), found (3)");
}

}  // namespace blockstate::test
