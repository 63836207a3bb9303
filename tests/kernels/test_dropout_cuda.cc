// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <vector>

#include "kernels/elementwise.h"
#include "tests/support/cuda_rows.h"
#include "tests/support/fill.h"

namespace blockstate::test {

TEMPLATE_TEST_CASE("dropout on CUDA draws the CPU's masks", "[dropout][cuda]", float, BFloat16) {
  using T = TestType;
  struct Case {
    int64_t rows, columns;
    Lie lie;
    float rate;
  };
  for (const Case& s : {Case{1, 1, {}, 0.3f}, Case{4, 3, {}, 0.5f}, Case{6, 5, {3, 1}, 0.1f},
                        Case{2, 512, {8, 0}, 0.9f}, Case{4, 513, {}, 0.3f}, Case{0, 3, {}, 0.3f}, Case{3, 0, {}, 0.3f},
                        Case{700, 96, {}, 0.25f}, Case{5, 64, {}, 0.0f}}) {
    CAPTURE(s.rows, s.columns, s.lie.gap, s.lie.offset, s.rate);
    std::vector<int64_t> record = random_ids(1, s.rows, 0, 4), position = random_ids(2, s.rows, -1, 5000);
    for (size_t r = 0; r < position.size(); r += 3) {
      position[r] = (int64_t{1} << 40) + static_cast<int64_t>(r);
    }
    auto xs = rounded_to<T>(random_normal<float>(3, s.rows * s.columns, 1, 5));
    if (!xs.empty()) {
      xs[0] = std::nanf("");  // gives 0 where it is dropped
    }
    std::vector<float> expected(xs.size());
    kernels::Dropout<float> reference{make_view(expected.data(), s.rows, s.columns),
                                      make_view<const float>(xs.data(), s.rows, s.columns),
                                      make_view<const int64_t>(record.data(), s.rows),
                                      make_view<const int64_t>(position.data(), s.rows),
                                      99,
                                      s.rate};
    kernels::cpu::dropout(reference);
    const CudaRows<T> x(xs, s.rows, s.columns, s.lie), y(s.rows, s.columns, s.lie);
    const CudaArray<int64_t> records(record), positions(position);
    const kernels::Dropout<T> args{y.view(), x.cview(), records.cview(s.rows), positions.cview(s.rows), 99, s.rate};
    kernels::cuda::dropout(gpu(), args);
    const std::vector<float> found = y.host(), wanted = rounded_to<T>(expected);
    int64_t wrong = 0;
    for (size_t i = 0; i < wanted.size(); ++i) {
      wrong += std::isnan(wanted[i]) ? !std::isnan(found[i]) : found[i] != wanted[i];
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("dropout on CUDA refuses a rate of 1", "[dropout][cuda]") {
  const CudaArray<float> x(12);
  const CudaArray<int64_t> rows(std::vector<int64_t>(4, 0));
  const kernels::Dropout<float> args{x.view(4, 3), x.cview(4, 3), rows.cview(4), rows.cview(4), 1, 1.0f};
  CHECK_THROWS_WITH(kernels::cuda::dropout(gpu(), args), "dropout: rate must be in [0, 1), found 1");
}

}  // namespace blockstate::test
