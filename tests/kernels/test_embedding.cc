// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <vector>

#include "kernels/embedding.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradcheck.h"
#include "tests/support/guard_buffer.h"
#include "tests/support/sparse_buffer.h"
#include "tests/support/threads.h"

namespace blockstate::test {
namespace {

struct Case {
  int64_t rows, entries, columns, gap;
};
// Both ways of the gradient (few and many entries), one and several pieces of rows.
constexpr Case kCases[] = {{1, 1, 1, 0},     {9, 5, 17, 2},    {0, 5, 3, 0},   {4, 5, 0, 0},
                           {5000, 4, 19, 1}, {300, 257, 3, 0}, {1, 600, 5, 0}, {5000, 997, 16, 3}};

View<const int64_t, 1> view_of(const std::vector<int64_t>& ids) {
  return make_view(ids.data(), static_cast<int64_t>(ids.size()));
}

}  // namespace

TEMPLATE_TEST_CASE("embedding gathers rows and its gradient adds them back", "[embedding]", float, double) {
  using T = TestType;
  for (const Case& s : kCases) {
    INFO("rows " << s.rows << " entries " << s.entries << " columns " << s.columns);
    const std::vector<int64_t> ids = random_ids(1, s.rows, -1, s.entries);
    GuardBuffer<T, 2> table({s.entries, s.columns}, s.gap), y({s.rows, s.columns}, s.gap), dy({s.rows, s.columns}, 1);
    table.assign(random_normal<T>(2, s.entries * s.columns));
    dy.assign(random_normal<T>(3, s.rows * s.columns));
    kernels::cpu::embedding_forward(y.view(), view_of(ids), table.cview());
    CHECK(y.fully_written("y"));
    // The table serves as the gradient's start: it must be added to.
    std::vector<T> expected;
    std::vector<double> sums = converted<double>(table.elements()), scale(sums.size());
    for (int64_t r = 0; r < s.rows; ++r) {
      const int64_t id = ids[static_cast<size_t>(r)];
      for (int64_t c = 0; c < s.columns; ++c) {
        expected.push_back(id < 0 ? T(0) : table.view()(id, c));
        if (id >= 0) {
          sums[static_cast<size_t>(id * s.columns + c)] += dy.view()(r, c);
          scale[static_cast<size_t>(id * s.columns + c)] += std::abs(dy.view()(r, c));
        }
      }
    }
    CHECK(same_bits("y", y.view(), expected));
    kernels::cpu::embedding_backward(table.view(), dy.cview(), view_of(ids));
    CHECK(compare_scaled("dtable", table.view(), sums, scale, tolerance_of<T>()));
    CHECK(table.bands_intact("dtable"));
  }
}

TEST_CASE("embedding gradient agrees with differences", "[embedding]") {
  const std::vector<int64_t> ids{2, -1, 0, 2, 2};
  std::vector<double> table = random_normal<double>(1, 4 * 3), y(5 * 3), dtable(4 * 3);
  const std::vector<double> dy = random_normal<double>(2, 5 * 3);
  kernels::cpu::embedding_backward(make_view(dtable.data(), 4, 3), make_view(dy.data(), 5, 3), view_of(ids));
  CHECK(gradcheck({{"table", &table, &dtable}}, [&] {
    kernels::cpu::embedding_forward(make_view(y.data(), 5, 3), view_of(ids),
                                    View<const double, 2>(make_view(table.data(), 4, 3)));
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      sum += dy[i] * y[i];
    }
    return sum;
  }));
}

TEST_CASE("embedding padding gives zeros and no gradient", "[embedding]") {
  const std::vector<int64_t> ids(700, -1);
  for (const int64_t entries : {3, 900}) {
    const std::vector<float> table = random_normal<float>(1, entries * 4), dy = random_normal<float>(2, 700 * 4);
    std::vector<float> y(700 * 4, 5), dtable = table;
    kernels::cpu::embedding_forward(make_view(y.data(), 700, 4), view_of(ids), make_view(table.data(), entries, 4));
    kernels::cpu::embedding_backward(make_view(dtable.data(), entries, 4), make_view(dy.data(), 700, 4), view_of(ids));
    CHECK(same_bits("y", y, std::vector<float>(y.size(), 0)));
    CHECK(same_bits("dtable", dtable, table));
  }
}

TEST_CASE("embedding has the same bits on one and on more threads", "[embedding]") {
  for (const int64_t entries : {5, 1500}) {
    const std::vector<int64_t> ids = random_ids(1, 20000, -1, entries);
    const std::vector<float> dy = random_normal<float>(2, 20000 * 21);
    std::array<std::vector<float>, 2> dtable;
    for (size_t run = 0; run < 2; ++run) {
      const Threads threads(run == 0 ? 1 : 3);
      dtable[run].assign(static_cast<size_t>(entries * 21), 0);
      kernels::cpu::embedding_backward(make_view(dtable[run].data(), entries, 21), make_view(dy.data(), 20000, 21),
                                       view_of(ids));
    }
    CHECK(same_bits("dtable", dtable[1], dtable[0]));
  }
}

TEST_CASE("embedding reaches rows past 2^31 elements", "[embedding]") {
  constexpr int64_t kEntries = 1024, kColumns = 16, kStride = int64_t{1} << 22;  // 2^32 elements
  SparseBuffer<float> far(kEntries * kStride);
  const View<float, 2> table{far.data(), {kEntries, kColumns}, {kStride, 1}};
  const std::vector<int64_t> ids{1023, 3, 600, 1023};
  for (const int64_t id : ids) {
    for (int64_t c = 0; c < kColumns; ++c) {
      table(id, c) = static_cast<float>(id * 100 + c);
    }
  }
  std::vector<float> y(4 * kColumns);
  kernels::cpu::embedding_forward(make_view(y.data(), 4, kColumns), view_of(ids), View<const float, 2>(table));
  for (size_t i = 0; i < y.size(); ++i) {
    REQUIRE(y[i] == static_cast<float>(ids[i / kColumns] * 100 + static_cast<int64_t>(i % kColumns)));
  }
  const std::vector<float> dy(4 * kColumns, 1);
  kernels::cpu::embedding_backward(table, make_view(dy.data(), 4, kColumns), view_of(ids));
  CHECK(table(1023, 5) == 102307);
  CHECK(table(600, 5) == 60006);
  CHECK(table(4, 5) == 0);
}

TEST_CASE("embedding names the row of a bad id", "[embedding]") {
  const std::vector<int64_t> ids{0, 1, 7};
  std::vector<float> table(12), y(9);
  CHECK_THROWS_WITH(kernels::cpu::embedding_forward(make_view(y.data(), 3, 3), view_of(ids),
                                                    make_view<const float>(table.data(), 4, 3)),
                    "embedding_forward: the id of row 2 is 7, but the table has 4 rows");
  CHECK_THROWS_WITH(kernels::cpu::embedding_backward(make_view(table.data(), 4, 3),
                                                     make_view<const float>(y.data(), 3, 3), view_of(ids)),
                    "embedding_backward: the id of row 2 is 7, but the table has 4 rows");
  CHECK_THROWS_WITH(kernels::cpu::embedding_forward(make_view(y.data(), 2, 3), view_of(ids),
                                                    make_view<const float>(table.data(), 4, 3)),
                    "embedding_forward: ids holds 3, rows are (2, 3), the table is (4, 3)");
}

}  // namespace blockstate::test
