// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <vector>

#include "kernels/relative_bias.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradcheck.h"
#include "tests/support/guard_buffer.h"

namespace blockstate::test {
namespace {

struct Shape {
  int64_t buckets, heads, distances;
};
constexpr Shape kShapes[] = {{1, 1, 1}, {32, 8, 257}, {7, 3, 5}, {4, 0, 3}, {4, 2, 0}, {5, 13, 1000}};

}  // namespace

TEMPLATE_TEST_CASE("relative_bias gathers buckets and its gradient adds them back", "[relative_bias]", float, double) {
  using T = TestType;
  for (const Shape& s : kShapes) {
    CAPTURE(s.buckets, s.heads, s.distances);
    const std::vector<int64_t> bucket = random_ids(1, s.distances, 0, s.buckets);
    const auto buckets = make_view(bucket.data(), s.distances);
    GuardBuffer<T, 2> table({s.buckets, s.heads}, 2), bias({s.heads, s.distances}, 1), dbias({s.heads, s.distances}, 3);
    table.assign(random_normal<T>(2, s.buckets * s.heads));
    dbias.assign(random_normal<T>(3, s.heads * s.distances));
    kernels::cpu::relative_bias_forward(bias.view(), table.cview(), buckets);
    CHECK(bias.fully_written("bias"));
    std::vector<T> expected;
    std::vector<double> sums = converted<double>(table.elements()), scale(sums.size());
    for (int64_t h = 0; h < s.heads; ++h) {
      for (int64_t m = 0; m < s.distances; ++m) {
        const int64_t u = bucket[static_cast<size_t>(m)];
        expected.push_back(table.view()(u, h));
        sums[static_cast<size_t>(u * s.heads + h)] += dbias.view()(h, m);
        scale[static_cast<size_t>(u * s.heads + h)] += std::abs(dbias.view()(h, m));
      }
    }
    CHECK(same_bits("bias", bias.view(), expected));
    // The table serves as the gradient's start: it must be added to.
    kernels::cpu::relative_bias_backward(table.view(), dbias.cview(), buckets);
    CHECK(compare_scaled("dtable", table.view(), sums, scale, tolerance_of<T>()));
    CHECK(table.bands_intact("dtable"));
  }
}

TEST_CASE("relative_bias gradient agrees with differences", "[relative_bias]") {
  const std::vector<int64_t> bucket{2, 0, 2, 3, 3, 3};
  std::vector<double> table = random_normal<double>(1, 4 * 2), bias(2 * 6), dtable(4 * 2);
  const std::vector<double> dbias = random_normal<double>(2, 2 * 6);
  const auto buckets = make_view(bucket.data(), 6);
  kernels::cpu::relative_bias_backward(make_view(dtable.data(), 4, 2), make_view(dbias.data(), 2, 6), buckets);
  CHECK(gradcheck({{"table", &table, &dtable}}, [&] {
    kernels::cpu::relative_bias_forward(make_view(bias.data(), 2, 6), make_view<const double>(table.data(), 4, 2),
                                        buckets);
    double sum = 0;
    for (size_t i = 0; i < bias.size(); ++i) {
      sum += dbias[i] * bias[i];
    }
    return sum;
  }));
}

TEST_CASE("relative_bias names what does not fit", "[relative_bias]") {
  const std::vector<int64_t> bucket{0, 4};
  const std::vector<float> table(8);
  std::vector<float> bias(4);
  CHECK_THROWS_WITH(kernels::cpu::relative_bias_forward(make_view(bias.data(), 2, 2), make_view(table.data(), 4, 2),
                                                        make_view(bucket.data(), 2)),
                    "relative_bias_forward: bucket[1] is 4, but the table has 4 rows");
  CHECK_THROWS_WITH(kernels::cpu::relative_bias_forward(make_view(bias.data(), 1, 2), make_view(table.data(), 4, 2),
                                                        make_view(bucket.data(), 2)),
                    "relative_bias_forward: bias must have shape (2, 2), found (1, 2)");
}

}  // namespace blockstate::test
