// SPDX-License-Identifier: Apache-2.0
// The small functions beside pooling: weights from scores, and a factor or a divisor for each row.
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "kernels/pool.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradcheck.h"
#include "tests/support/guard_buffer.h"

namespace blockstate::test {

TEMPLATE_TEST_CASE("pool_weights are exponentials of shifted scores", "[pool]", float, double) {
  using T = TestType;
  constexpr int64_t kBatch = 3, kLength = 41, kRecords = 5;
  const std::vector<int64_t> record = random_ids(1, kBatch * kLength, -1, kRecords);
  const std::vector<T> shift = random_normal<T>(2, kRecords);
  GuardBuffer<T, 2> score({kBatch, kLength}, 2), weight({kBatch, kLength}, 1), dweight({kBatch, kLength});
  GuardBuffer<T, 2> dscore({kBatch, kLength}, 3);
  score.assign(random_normal<T>(3, kBatch * kLength, 2));
  dweight.assign(random_normal<T>(4, kBatch * kLength));
  kernels::cpu::pool_weights_forward(weight.view(), score.cview(), make_view(record.data(), kBatch, kLength),
                                     make_view(shift.data(), kRecords));
  CHECK(weight.fully_written("weight"));
  std::vector<double> expected, gradient;
  for (int64_t i = 0; i < kBatch * kLength; ++i) {
    const int64_t b = i / kLength, t = i % kLength, r = record[static_cast<size_t>(i)];
    expected.push_back(
        r < 0 ? 0 : std::exp(static_cast<double>(score.view()(b, t)) - double{shift[static_cast<size_t>(r)]}));
    gradient.push_back(expected.back() * dweight.view()(b, t));
  }
  CHECK(compare("weight", weight.view(), expected, tolerance_of<T>()));
  kernels::cpu::pool_weights_backward(dscore.view(), dweight.cview(), weight.cview());
  CHECK(dscore.fully_written("dscore"));
  CHECK(compare("dscore", dscore.view(), gradient, tolerance_of<T>()));
}

TEMPLATE_TEST_CASE("divide_rows and scale_rows use one number a row", "[pool]", float, double) {
  using T = TestType;
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{1, 1}, {5, 17}, {0, 3}, {3, 0}, {64, 33}}) {
    CAPTURE(rows, columns);
    const std::vector<T> factor = random_uniform<T>(1, rows, 0.5, 3);
    const auto factors = make_view(factor.data(), rows);
    GuardBuffer<T, 2> x({rows, columns}, 1), y({rows, columns}, 2);
    x.assign(random_normal<T>(2, rows * columns));
    std::vector<double> divided, scaled;
    for (int64_t i = 0; i < rows * columns; ++i) {
      const double value = x.view()(i / columns, i % columns), f = factor[static_cast<size_t>(i / columns)];
      divided.push_back(value / f);
      scaled.push_back(value * f);
    }
    kernels::cpu::divide_rows_forward(y.view(), x.cview(), factors);
    CHECK(y.fully_written("divided"));
    CHECK(compare("divided", y.view(), divided, tolerance_of<T>()));
    y.poison();
    kernels::cpu::scale_rows(y.view(), x.cview(), factors);
    CHECK(y.fully_written("scaled"));
    CHECK(compare("scaled", y.view(), scaled, tolerance_of<T>()));
  }
}

TEST_CASE("gradients of pool_weights and divide_rows agree with differences", "[pool]") {
  const std::vector<int64_t> record{0, 1, -1, 1, 0, 0};
  const std::vector<double> shift{0.3, -0.2}, dweight = random_normal<double>(1, 6), dy = random_normal<double>(2, 12);
  std::vector<double> score = random_normal<double>(3, 6), weight(6), dscore(6);
  const auto dot = [](const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      sum += a[i] * b[i];
    }
    return sum;
  };
  const auto forward = [&] {
    kernels::cpu::pool_weights_forward(make_view(weight.data(), 2, 3), make_view<const double>(score.data(), 2, 3),
                                       make_view(record.data(), 2, 3), make_view(shift.data(), 2));
    return dot(weight, dweight);
  };
  forward();
  kernels::cpu::pool_weights_backward(make_view(dscore.data(), 2, 3), make_view(dweight.data(), 2, 3),
                                      make_view<const double>(weight.data(), 2, 3));
  CHECK(gradcheck({{"score", &score, &dscore}}, forward));

  std::vector<double> x = random_normal<double>(4, 12), divisor = random_uniform<double>(5, 4, 0.5, 2), y(12), dx(12),
                      ddivisor(4);
  const auto divide = [&] {
    kernels::cpu::divide_rows_forward(make_view(y.data(), 4, 3), make_view<const double>(x.data(), 4, 3),
                                      make_view<const double>(divisor.data(), 4));
    return dot(y, dy);
  };
  divide();
  kernels::cpu::divide_rows_backward(make_view(dx.data(), 4, 3), make_view(ddivisor.data(), 4),
                                     make_view(dy.data(), 4, 3), make_view<const double>(y.data(), 4, 3),
                                     make_view<const double>(divisor.data(), 4));
  CHECK(gradcheck({{"x", &x, &dx}, {"weight", &divisor, &ddivisor}}, divide));
}

TEST_CASE("pool_weights and scale_rows name what does not fit", "[pool]") {
  const std::vector<int64_t> record{0, 2};
  const std::vector<float> x(4);
  std::vector<float> y(4);
  CHECK_THROWS_WITH(kernels::cpu::pool_weights_forward(make_view(y.data(), 1, 2), make_view(x.data(), 1, 2),
                                                       make_view(record.data(), 1, 2), make_view(x.data(), 2)),
                    "pool_weights_forward: record[0, 1] is 2, but shift has 2 elements");
  CHECK_THROWS_WITH(
      kernels::cpu::scale_rows(make_view(y.data(), 2, 2), make_view(x.data(), 2, 2), make_view(x.data(), 3)),
      "scale_rows: factor must have shape (2), found (3)");
}

}  // namespace blockstate::test
