// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <vector>

#include "kernels/weighted_sum.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradcheck.h"
#include "tests/support/guard_buffer.h"

namespace blockstate::test {

TEMPLATE_TEST_CASE("weighted_sum adds up values times weights", "[weighted_sum]", float, double) {
  using T = TestType;
  for (const int64_t count : {0, 1, 2, 31, 1024, 5003}) {
    for (const bool weighted : {false, true}) {
      CAPTURE(count, weighted);
      GuardBuffer<T, 1> y({1}), dx({count});
      const std::vector<T> x = random_normal<T>(1, count), weight = random_normal<T>(2, count);
      const auto weights = weighted ? make_view(weight.data(), count) : View<const T, 1>();
      double sum = 0, scale = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const double term = static_cast<double>(x[i]) * (weighted ? weight[i] : 1);
        sum += term;
        scale += std::abs(term);
      }
      kernels::cpu::weighted_sum_forward(y.view(), make_view(x.data(), count), weights);
      CHECK(y.fully_written("y"));
      CHECK(compare_scaled("y", y.view(), std::vector<double>{sum}, {scale}, tolerance_of<T>()));
      const T dy = T(-1.5);
      kernels::cpu::weighted_sum_backward(dx.view(), make_view(&dy, 1), weights);
      CHECK(dx.fully_written("dx"));
      std::vector<T> expected;
      for (size_t i = 0; i < x.size(); ++i) {
        expected.push_back(weighted ? dy * weight[i] : dy);
      }
      CHECK(same_bits("dx", dx.view(), expected));
    }
  }
}

TEST_CASE("weighted_sum keeps small terms beside large ones", "[weighted_sum]") {
  // In float, 2^25 + 1 is 2^25.
  std::vector<float> x(10001, 1);
  x[0] = 0x1p25f;
  x[10000] = -0x1p25f;
  float y = 0;
  kernels::cpu::weighted_sum_forward(make_view(&y, 1), make_view<const float>(x.data(), 10001), {});
  CHECK(y == 9999);
}

TEST_CASE("weighted_sum takes strides, and its gradient agrees with differences", "[weighted_sum]") {
  std::vector<double> x = random_normal<double>(1, 12), weight = random_normal<double>(2, 6), dx(12, 0);
  const View<const double, 1> from{x.data(), {6}, {2}};
  const auto weights = make_view<const double>(weight.data(), 6);
  const double dy = 1;
  double y = 0;
  kernels::cpu::weighted_sum_backward(View<double, 1>{dx.data(), {6}, {2}}, make_view(&dy, 1), weights);
  CHECK(gradcheck({{"x", &x, &dx}}, [&] {
    kernels::cpu::weighted_sum_forward(make_view(&y, 1), from, weights);
    return y;
  }));
}

TEST_CASE("weighted_sum refuses weights of another length", "[weighted_sum]") {
  const std::vector<float> x(4);
  float y = 0;
  CHECK_THROWS_WITH(
      kernels::cpu::weighted_sum_forward(make_view(&y, 1), make_view(x.data(), 4), make_view(x.data(), 3)),
      "weighted_sum_forward: weight must have shape (4), found (3)");
}

}  // namespace blockstate::test
