// SPDX-License-Identifier: Apache-2.0
// The helpers must be able to say no: each check here has a case that has to fail.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradcheck.h"
#include "tests/support/guard_buffer.h"
#include "tests/support/sparse_buffer.h"

namespace blockstate::test {

TEST_CASE("compare names the first bad and the worst element", "[support]") {
  const std::vector<float> found{1, 2.1f, 3, 9};
  const std::vector<double> expected{1, 2, 3, 4};
  const Comparison outcome = compare("x", found, expected, kFloat32);
  CHECK_FALSE(outcome);
  CHECK(outcome.bad == 2);
  CHECK(outcome.first_bad == 1);
  CHECK(outcome.worst == 3);
  CHECK(outcome.text.find("x[1] = 2.0999999") != std::string::npos);
  CHECK(compare("x", expected, expected, {0, 0}));
  std::vector<double> poisoned = expected;
  poisoned[2] = std::numeric_limits<double>::quiet_NaN();
  CHECK_FALSE(compare("x", poisoned, expected, {1, 1}));
  CHECK_FALSE(compare("x", poisoned, poisoned, {1, 1}));
  CHECK_FALSE(compare("x", std::vector<double>{1}, expected, {1, 1}));
}

TEST_CASE("compare reads strided views and prints their indices", "[support]") {
  std::vector<float> storage{1, 2, 99, 3, 4, 99};
  View<const float, 2> view{storage.data(), {2, 2}, {3, 1}};
  CHECK(compare("x", view, std::vector<double>{1, 2, 3, 4}, {0, 0}));
  const Comparison outcome = compare("x", view, std::vector<double>{1, 2, 3, 5}, kFloat32);
  CHECK(outcome.text.find("x[1, 1] = 4") != std::string::npos);
}

TEST_CASE("same_bits tells the zeros apart", "[support]") {
  CHECK_FALSE(same_bits("x", std::vector<float>{0.0f}, std::vector<float>{-0.0f}));
  CHECK(same_bits("x", std::vector<float>{0.5f}, std::vector<float>{0.5f}));
}

TEST_CASE("GuardBuffer sees missing and stray writes", "[support]") {
  GuardBuffer<float, 2> buffer({3, 5}, 2);
  CHECK(buffer.bands_intact());
  CHECK_FALSE(buffer.fully_written());
  buffer.assign(random_normal<float>(1, 15));
  CHECK(buffer.fully_written());
  buffer.view().data[5] = 1;  // in the gap after the first row
  CHECK_FALSE(buffer.bands_intact());
  buffer.poison();
  buffer.view().data[-1] = 1;
  CHECK_FALSE(buffer.bands_intact());
  CHECK(std::isnan(buffer.view()(0, 0)));
}

TEST_CASE("gradcheck accepts a right gradient and names a wrong one", "[support]") {
  std::vector<double> x = random_normal<double>(1, 5);
  std::vector<double> w = random_normal<double>(2, 5);
  const auto loss = [&] {
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      sum += std::sin(x[i]) * w[i] * w[i];
    }
    return sum;
  };
  std::vector<double> dx(5), dw(5);
  for (size_t i = 0; i < 5; ++i) {
    dx[i] = std::cos(x[i]) * w[i] * w[i];
    dw[i] = 2 * std::sin(x[i]) * w[i];
  }
  CHECK(gradcheck({{"x", &x, &dx}, {"w", &w, &dw}}, loss));
  dw[3] += 1e-6;
  const Comparison outcome = gradcheck({{"x", &x, &dx}, {"w", &w, &dw}}, loss);
  CHECK_FALSE(outcome);
  CHECK(outcome.text.find("w[3]") != std::string::npos);
}

TEST_CASE("SparseBuffer holds elements past 2^32", "[support]") {
  SparseBuffer<float> buffer(int64_t{1} << 33);
  buffer.data()[(int64_t{1} << 32) + 5] = 3;
  CHECK(buffer.data()[(int64_t{1} << 32) + 5] == 3);
  CHECK(buffer.data()[5] == 0);
}

}  // namespace blockstate::test
