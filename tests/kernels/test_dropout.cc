// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "core/base/random.h"
#include "kernels/elementwise.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/guard_buffer.h"
#include "tests/support/threads.h"

namespace blockstate::test {
namespace {

// Rows of two records, positions counted from each record's start.
struct Rows {
  std::vector<int64_t> record, position;
  explicit Rows(int64_t count) {
    for (int64_t r = 0; r < count; ++r) {
      record.push_back(r < count / 2 ? 11 : 12);
      position.push_back(r < count / 2 ? r : r - count / 2);
    }
  }
};

template <class T>
std::vector<T> dropped(const std::vector<T>& x, const Rows& rows, uint64_t key, float rate) {
  const int64_t count = static_cast<int64_t>(rows.record.size());
  const int64_t columns = count == 0 ? 0 : static_cast<int64_t>(x.size()) / count;
  std::vector<T> y(x.size(), T(7));
  kernels::cpu::dropout(kernels::Dropout<T>{make_view(y.data(), count, columns), make_view(x.data(), count, columns),
                                            make_view(rows.record.data(), count),
                                            make_view(rows.position.data(), count), key, rate});
  return y;
}

}  // namespace

TEMPLATE_TEST_CASE("dropout follows its draws", "[dropout]", float, double) {
  using T = TestType;
  for (const auto& [count, columns] :
       {std::array<int64_t, 2>{1, 1}, {4, 3}, {6, 4}, {6, 5}, {2, 511}, {2, 512}, {4, 513}, {2, 1537}, {0, 3}}) {
    Rows rows(count);
    if (count > 2) {
      rows.position[1] = -1;
      rows.position[2] = (int64_t{1} << 40) + 3;
    }
    GuardBuffer<T, 2> x({count, columns}, 3), y({count, columns}, 1);
    x.assign(random_normal<T>(1, count * columns, 1, 5));
    kernels::cpu::dropout(kernels::Dropout<T>{y.view(), x.cview(), make_view<const int64_t>(rows.record.data(), count),
                                              make_view<const int64_t>(rows.position.data(), count), 99, 0.3f});
    CHECK(y.fully_written("y"));
    std::vector<double> expected;
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        const int64_t position = rows.position[static_cast<size_t>(r)];
        const uint32_t word = kernels::dropout_draw(99, rows.record[static_cast<size_t>(r)], position, c);
        const bool kept = position >= 0 && unit_float(word) >= 0.3f;
        expected.push_back(kept ? x.view()(r, c) / (1 - double{0.3f}) : 0);
      }
    }
    CHECK(compare("y", y.view(), expected, tolerance_of<T>()));
  }
}

TEST_CASE("dropout keeps the share it should, and the mean", "[dropout]") {
  const int64_t rows = 1000, columns = 257;
  const std::vector<float> x(rows * columns, 1);
  for (const float rate : {0.0f, 0.1f, 0.5f, 0.9f}) {
    const std::vector<float> y = dropped(x, Rows(rows), 5, rate);
    double zeros = 0, sum = 0;
    for (const float value : y) {
      zeros += value == 0;
      sum += value;
    }
    const double n = static_cast<double>(y.size());
    const double deviation = std::sqrt(rate * (1 - rate) / n);  // of the share of zeros
    CHECK(std::abs(zeros / n - rate) <= 4 * deviation);
    CHECK(std::abs(sum / n - 1) <= 4 * deviation / (1 - rate) + 1e-6);
  }
}

TEST_CASE("a dropout mask is a function of key, record and position", "[dropout]") {
  constexpr int64_t kRows = 40, kColumns = 101;
  const std::vector<float> ones(kRows * kColumns, 1);
  const Rows rows(kRows);
  const std::vector<float> y = dropped(ones, rows, 5, 0.5f);
  CHECK(same_bits("same key", dropped(ones, rows, 5, 0.5f), y));

  const auto agreement = [&](const std::vector<float>& other) {
    double equal = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      equal += y[i] == other[i];
    }
    return equal / static_cast<double>(y.size());
  };
  // Independent masks agree in half of the elements; 0.04 is five deviations.
  CHECK(std::abs(agreement(dropped(ones, rows, 6, 0.5f)) - 0.5) < 0.04);
  Rows other = rows;
  for (int64_t& record : other.record) {
    record += 2;
  }
  CHECK(std::abs(agreement(dropped(ones, other, 5, 0.5f)) - 0.5) < 0.04);

  Rows reversed = rows;
  std::reverse(reversed.record.begin(), reversed.record.end());
  std::reverse(reversed.position.begin(), reversed.position.end());
  const std::vector<float> z = dropped(ones, reversed, 5, 0.5f);
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t c = 0; c < kColumns; ++c) {
      REQUIRE(z[static_cast<size_t>((kRows - 1 - r) * kColumns + c)] == y[static_cast<size_t>(r * kColumns + c)]);
    }
  }
}

TEST_CASE("dropout gives 0 for a dropped NaN and the same bits on more threads", "[dropout]") {
  const int64_t rows = 600, columns = 97;
  std::vector<float> x(rows * columns, std::numeric_limits<float>::quiet_NaN());
  int64_t zeros = 0;
  for (const float value : dropped(x, Rows(rows), 3, 0.5f)) {
    zeros += value == 0;
  }
  CHECK(zeros > rows * columns / 3);
  x = random_normal<float>(1, rows * columns);
  std::array<std::vector<float>, 2> y;
  for (size_t run = 0; run < 2; ++run) {
    const Threads threads(run == 0 ? 1 : 3);
    y[run] = dropped(x, Rows(rows), 3, 0.2f);
  }
  CHECK(same_bits("y", y[1], y[0]));
}

TEST_CASE("dropout refuses a rate of 1 and rows that differ", "[dropout]") {
  const std::vector<float> x(12);
  CHECK_THROWS_WITH(dropped(x, Rows(4), 1, 1.0f), "dropout: rate must be in [0, 1), found 1");
  Rows rows(4);
  rows.position.resize(3);
  std::vector<float> y(12);
  kernels::Dropout<float> args{make_view(y.data(), 4, 3), make_view(x.data(), 4, 3),
                               make_view<const int64_t>(rows.record.data(), 4),
                               make_view<const int64_t>(rows.position.data(), 3)};
  CHECK_THROWS_WITH(kernels::cpu::dropout(args), "dropout: x has 4 rows, record 4, position 3");
}

}  // namespace blockstate::test
