// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "kernels/embedding.h"
#include "tests/support/cuda_rows.h"
#include "tests/support/fill.h"

namespace blockstate::test {
namespace {

struct Case {
  int64_t rows, entries, columns;
  Lie lie;
  bool skewed = false;  // most rows have one id, so that its run crosses many pieces
};
// Few entries and many, one and several pieces, runs within a piece and over them, aligned and not.
constexpr Case kCases[] = {{1, 1, 1, {}},           {9, 5, 17, {2, 0}},         {0, 5, 3, {}},
                           {4, 5, 0, {}},           {5000, 4, 19, {1, 0}},      {300, 257, 3, {}},
                           {1, 600, 5, {}},         {5000, 997, 16, {3, 0}},    {9000, 16, 264, {}},
                           {3001, 300, 264, {}},    {20000, 300, 40, {}, true}, {20000, 16, 24, {8, 8}, true},
                           {2000, 50000, 8, {}},    {20011, 256, 8, {8, 0}},    {5000, 997, 16, {8, 3}},
                           {30000, 20, 1, {}, true}};

std::vector<int64_t> ids_of(const Case& s) {
  std::vector<int64_t> ids = random_ids(1, s.rows, -1, s.entries);
  for (size_t r = 0; s.skewed && r < ids.size(); ++r) {
    ids[r] = r % 7 == 0 ? ids[r] : s.entries / 2;
  }
  if (ids.size() > 3) {
    ids[2] = s.entries + 5;  // reads as padding
  }
  return ids;
}

}  // namespace

TEMPLATE_TEST_CASE("embedding on CUDA gathers rows and adds their gradients", "[embedding][cuda]", float, BFloat16) {
  using T = TestType;
  for (const Case& s : kCases) {
    CAPTURE(s.rows, s.entries, s.columns, s.lie.gap, s.lie.offset);
    const std::vector<int64_t> ids = ids_of(s);
    const CudaArray<int64_t> id_array(ids);
    const auto entries = random_normal<float>(2, s.entries * s.columns);
    const auto gradient = rounded_to<T>(random_normal<float>(3, s.rows * s.columns));
    const CudaRows<float> table(entries, s.entries, s.columns, s.lie), again(entries, s.entries, s.columns, s.lie);
    const CudaRows<T> y(s.rows, s.columns, s.lie), dy(gradient, s.rows, s.columns, s.lie);
    std::vector<float> expected;
    std::vector<double> sums = converted<double>(entries), scale(sums.size());
    for (int64_t r = 0; r < s.rows; ++r) {
      const int64_t id = ids[static_cast<size_t>(r)];
      const bool there = id >= 0 && id < s.entries;
      for (int64_t c = 0; c < s.columns; ++c) {
        const size_t at = static_cast<size_t>(id * s.columns + c);
        expected.push_back(there ? entries[at] : 0);
        if (there) {
          sums[at] += gradient[static_cast<size_t>(r * s.columns + c)];
          scale[at] += std::abs(gradient[static_cast<size_t>(r * s.columns + c)]);
        }
      }
    }
    kernels::cuda::embedding_forward(gpu(), y.view(), id_array.cview(s.rows), table.cview());
    CHECK(same_bits("y", y.host(), rounded_to<T>(expected)));
    // The table serves as the gradient's start: it must be added to.
    for (size_t i = 0; i < scale.size(); ++i) {
      scale[i] += std::abs(entries[i]);
    }
    kernels::cuda::embedding_backward(gpu(), table.view(), dy.cview(), id_array.cview(s.rows));
    CHECK(compare_scaled("dtable", table.host(), sums, scale, kFloat32));
    kernels::cuda::embedding_backward(gpu(), again.view(), dy.cview(), id_array.cview(s.rows));
    CHECK(same_bits("again", again.host(), table.host()));
  }
}

TEST_CASE("embedding on CUDA gives no gradient to padding", "[embedding][cuda]") {
  for (const int64_t entries : {3, 900}) {
    const CudaArray<int64_t> ids(std::vector<int64_t>(700, -1));
    const auto start = random_normal<float>(1, entries * 8);
    const CudaArray<float> dtable(start), dy(random_normal<float>(2, 700 * 8));
    kernels::cuda::embedding_backward(gpu(), dtable.view(entries, 8), dy.cview(700, 8), ids.cview(700));
    CHECK(same_bits("dtable", dtable.host(), start));
  }
}

TEST_CASE("embedding on CUDA reaches rows past 2^31 elements", "[embedding][cuda][large]") {
  constexpr int64_t kEntries = 300, kColumns = 24, kStride = int64_t{1} << 23;
  const CudaSpace<float> far(kEntries * kStride);
  const View<float, 2> table{far.data(), {kEntries, kColumns}, {kStride, 1}};
  const std::vector<int64_t> list{299, 3, 290, 299};
  const CudaArray<int64_t> ids(list);
  for (const int64_t id : list) {
    kernels::cuda::fill_zero(gpu(), &table(id, 0), kColumns * 4);
  }
  const CudaRows<float> dy(random_normal<float>(1, 4 * kColumns), 4, kColumns), y(4, kColumns);
  kernels::cuda::embedding_backward(gpu(), table, dy.cview(), ids.cview(4));
  kernels::cuda::embedding_forward(gpu(), y.view(), ids.cview(4), View<const float, 2>(table));
  const std::vector<float> given = dy.host(), found = y.host();
  for (size_t c = 0; c < kColumns; ++c) {
    CHECK(found[c] == given[c] + given[3 * kColumns + c]);
    CHECK(found[kColumns + c] == given[kColumns + c]);
    CHECK(found[2 * kColumns + c] == given[2 * kColumns + c]);
  }
}

TEST_CASE("embedding on CUDA names shapes that do not fit", "[embedding][cuda]") {
  const CudaArray<float> table(12), y(9);
  const CudaArray<int64_t> ids(3);
  CHECK_THROWS_WITH(kernels::cuda::embedding_forward(gpu(), y.view(2, 3), ids.cview(3), table.cview(4, 3)),
                    "embedding_forward: ids holds 3, rows are (2, 3), the table is (4, 3)");
}

}  // namespace blockstate::test
