// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "kernels/pool.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradcheck.h"
#include "tests/support/guard_buffer.h"
#include "tests/support/sparse_buffer.h"
#include "tests/support/threads.h"

namespace blockstate::test {
namespace {

struct Case {
  int64_t batch, length, columns, records, gap;
  bool runs;  // records as they lie in a batch: one stretch after another; else any order
};
constexpr Case kCases[] = {{1, 1, 1, 1, 0, true},     {2, 9, 15, 4, 1, true},   {3, 7, 17, 5, 2, false},
                           {1, 3000, 16, 3, 0, true}, {2, 2500, 5, 9, 3, true}, {2, 700, 64, 2, 0, false},
                           {0, 4, 3, 2, 0, true},     {2, 0, 3, 2, 0, true},    {2, 3, 0, 2, 0, true}};

std::vector<int64_t> records_of(const Case& s) {
  std::vector<int64_t> record = random_ids(5, s.batch * s.length, -1, s.records);
  if (s.runs) {
    for (int64_t i = 0; i < s.batch * s.length; ++i) {
      const int64_t stretch = i * (s.records + 1) / (s.batch * s.length);
      record[static_cast<size_t>(i)] = stretch == s.records ? -1 : stretch;
    }
  }
  return record;
}

}  // namespace

TEMPLATE_TEST_CASE("pool sums each record and spreads its gradient", "[pool]", float, double) {
  using T = TestType;
  for (const Case& s : kCases) {
    INFO("batch " << s.batch << " length " << s.length << " columns " << s.columns << " records " << s.records);
    const std::vector<int64_t> record = records_of(s);
    const auto records = make_view(record.data(), s.batch, s.length);
    GuardBuffer<T, 3> x({s.batch, s.length, s.columns}, s.gap), dx({s.batch, s.length, s.columns}, s.gap);
    GuardBuffer<T, 2> weight({s.batch, s.length}), dweight({s.batch, s.length}, 1), y({s.records, s.columns}, s.gap);
    GuardBuffer<T, 2> dy({s.records, s.columns}, s.gap);
    x.assign(random_normal<T>(1, s.batch * s.length * s.columns));
    weight.assign(random_normal<T>(2, s.batch * s.length));
    dy.assign(random_normal<T>(3, s.records * s.columns));
    std::vector<double> sums(static_cast<size_t>(s.records * s.columns)), scale(sums), expected_dx, expected_dweight,
        products;
    for (int64_t b = 0; b < s.batch; ++b) {
      for (int64_t t = 0; t < s.length; ++t) {
        const int64_t r = records(b, t);
        double dot = 0, absolute = 0;
        for (int64_t c = 0; c < s.columns; ++c) {
          const double w = weight.view()(b, t), value = x.view()(b, t, c);
          expected_dx.push_back(r < 0 ? 0 : w * dy.view()(r, c));
          if (r >= 0) {
            sums[static_cast<size_t>(r * s.columns + c)] += w * value;
            scale[static_cast<size_t>(r * s.columns + c)] += std::abs(w * value);
            dot += value * dy.view()(r, c);
            absolute += std::abs(value * dy.view()(r, c));
          }
        }
        expected_dweight.push_back(dot);
        products.push_back(absolute);
      }
    }
    kernels::cpu::pool_forward(y.view(), x.cview(), weight.cview(), records);
    CHECK(y.fully_written("y"));
    CHECK(compare_scaled("y", y.view(), sums, scale, tolerance_of<T>()));
    kernels::cpu::pool_backward(dx.view(), dweight.view(), dy.cview(), x.cview(), weight.cview(), records);
    CHECK(dx.fully_written("dx"));
    CHECK(dweight.fully_written("dweight"));
    CHECK(compare("dx", dx.view(), expected_dx, tolerance_of<T>()));
    CHECK(compare_scaled("dweight", dweight.view(), expected_dweight, products, tolerance_of<T>()));
    const std::vector<T> before = dx.elements();
    kernels::cpu::pool_backward(dx.view(), View<T, 2>(), dy.cview(), x.cview(), weight.cview(), records);
    CHECK(same_bits("dx without dweight", dx.view(), before));
  }
}

TEST_CASE("pool gradients agree with differences", "[pool]") {
  const Case s{2, 4, 3, 3, 0, false};
  const std::vector<int64_t> record{0, 2, -1, 0, 1, 1, 2, -1};
  std::vector<double> x = random_normal<double>(1, 24), weight = random_normal<double>(2, 8), y(9), dx(24), dweight(8);
  const std::vector<double> dy = random_normal<double>(3, 9);
  const auto records = make_view(record.data(), 2, 4);
  const auto xs = make_view<const double>(x.data(), 2, 4, 3);
  const auto weights = make_view<const double>(weight.data(), 2, 4);
  kernels::cpu::pool_backward(make_view(dx.data(), 2, 4, 3), make_view(dweight.data(), 2, 4),
                              make_view(dy.data(), 3, 3), xs, weights, records);
  CHECK(gradcheck({{"x", &x, &dx}, {"weight", &weight, &dweight}}, [&] {
    kernels::cpu::pool_forward(make_view(y.data(), s.records, s.columns), xs, weights, records);
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      sum += dy[i] * y[i];
    }
    return sum;
  }));
}

TEST_CASE("pool has the same bits on one and on more threads", "[pool]") {
  const Case s{3, 4001, 19, 5, 0, true};
  const std::vector<int64_t> record = records_of(s);
  const std::vector<float> x = random_normal<float>(1, 3 * 4001 * 19), weight = random_normal<float>(2, 3 * 4001);
  std::array<std::vector<float>, 2> y;
  for (size_t run = 0; run < 2; ++run) {
    const Threads threads(run == 0 ? 1 : 3);
    y[run].assign(5 * 19, 0);
    kernels::cpu::pool_forward(make_view(y[run].data(), 5, 19), make_view(x.data(), 3, 4001, 19),
                               make_view(weight.data(), 3, 4001), make_view(record.data(), 3, 4001));
  }
  CHECK(same_bits("y", y[1], y[0]));
}

TEST_CASE("pool reaches steps past 2^31 elements", "[pool]") {
  constexpr int64_t kBatch = 4, kLength = 3, kColumns = 5, kStride = int64_t{1} << 30;
  SparseBuffer<float> far(kBatch * kStride);
  const View<float, 3> x{far.data(), {kBatch, kLength, kColumns}, {kStride, kColumns, 1}};
  const std::vector<float> weight(kBatch * kLength, 1);
  const std::vector<int64_t> record(kBatch * kLength, 0);
  x(3, 2, 4) = 5;
  x(0, 0, 4) = 2;
  std::vector<float> y(kColumns);
  kernels::cpu::pool_forward(make_view(y.data(), 1, kColumns), View<const float, 3>(x),
                             make_view(weight.data(), kBatch, kLength), make_view(record.data(), kBatch, kLength));
  CHECK(y == std::vector<float>{0, 0, 0, 0, 7});
}

TEST_CASE("pool names a bad record", "[pool]") {
  const std::vector<float> x(8), weight(4);
  std::vector<float> y(4);
  const std::vector<int64_t> record{0, 1, 0, 2};
  CHECK_THROWS_WITH(kernels::cpu::pool_forward(make_view(y.data(), 2, 2), make_view(x.data(), 2, 2, 2),
                                               make_view(weight.data(), 2, 2), make_view(record.data(), 2, 2)),
                    "pool_forward: record[1, 1] is 2, but y has 2 rows");
}

}  // namespace blockstate::test
