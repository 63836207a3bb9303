// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "kernels/weighted_sum.h"
#include "tests/support/cuda_rows.h"
#include "tests/support/fill.h"

namespace blockstate::test {

TEST_CASE("weighted_sum on CUDA adds up values times weights", "[weighted_sum][cuda]") {
  for (const int64_t count : {0, 1, 2, 31, 4096, 4097, 5003, 300007, 2000003}) {
    for (const bool weighted : {false, true}) {
      CAPTURE(count, weighted);
      const auto xs = random_normal<float>(1, count), ws = random_normal<float>(2, count);
      const CudaArray<float> x(xs), weight(ws), y(1), again(1), dy(std::vector<float>{-1.5f}), dx(count);
      const auto weights = weighted ? weight.cview(count) : View<const float, 1>();
      double sum = 0;
      std::vector<float> expected;
      for (size_t i = 0; i < xs.size(); ++i) {
        sum += double{xs[i]} * (weighted ? ws[i] : 1);
        expected.push_back(weighted ? -1.5f * ws[i] : -1.5f);
      }
      kernels::cuda::weighted_sum_forward(gpu(), y.view(1), x.cview(count), weights);
      // Summed in double: what is lost is the last rounding.
      CHECK(std::abs(y.host()[0] - sum) <= std::abs(sum) * 0x1p-24 + 1e-9);
      kernels::cuda::weighted_sum_forward(gpu(), again.view(1), x.cview(count), weights);
      CHECK(same_bits("again", again.host(), y.host()));
      kernels::cuda::weighted_sum_backward(gpu(), dx.view(count), dy.cview(1), weights);
      CHECK(same_bits("dx", dx.host(), expected));
    }
  }
}

TEST_CASE("weighted_sum on CUDA takes strides, and names what does not fit", "[weighted_sum][cuda]") {
  const CudaArray<float> x({1, 100, 2, 100, 3, 100}), y(1);
  kernels::cuda::weighted_sum_forward(gpu(), y.view(1), View<const float, 1>{x.data(), {3}, {2}}, {});
  CHECK(y.host()[0] == 6);
  CHECK_THROWS_WITH(kernels::cuda::weighted_sum_forward(gpu(), y.view(1), x.cview(4), x.cview(3)),
                    "weighted_sum_forward: weight must have shape (4), found (3)");
}

}  // namespace blockstate::test
