// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "kernels/relative_bias.h"
#include "tests/support/cuda_rows.h"
#include "tests/support/fill.h"

namespace blockstate::test {

TEST_CASE("relative_bias on CUDA gathers buckets and adds them back", "[relative_bias][cuda]") {
  struct Case {
    int64_t buckets, heads, distances;
  };
  for (const Case& s :
       {Case{1, 1, 1}, Case{32, 8, 257}, Case{7, 3, 5}, Case{4, 0, 3}, Case{4, 2, 0}, Case{32, 12, 4096}}) {
    CAPTURE(s.buckets, s.heads, s.distances);
    const std::vector<int64_t> bucket = random_ids(1, s.distances, 0, s.buckets);
    const auto entries = random_normal<float>(2, s.buckets * s.heads),
               gs = random_normal<float>(3, s.heads * s.distances);
    const CudaArray<int64_t> bucket_array(bucket);
    const auto buckets = bucket_array.cview(s.distances);
    const CudaRows<float> table(entries, s.buckets, s.heads, {2, 0}), again(entries, s.buckets, s.heads, {2, 0}),
        bias(s.heads, s.distances, {1, 0}), dbias(gs, s.heads, s.distances, {3, 0});
    kernels::cuda::relative_bias_forward(gpu(), bias.view(), table.cview(), buckets);
    std::vector<float> expected;
    std::vector<double> sums = converted<double>(entries), scale;
    for (const float entry : entries) {
      scale.push_back(std::abs(entry));
    }
    for (int64_t h = 0; h < s.heads; ++h) {
      for (int64_t m = 0; m < s.distances; ++m) {
        const size_t at = static_cast<size_t>(bucket[static_cast<size_t>(m)] * s.heads + h);
        expected.push_back(entries[at]);
        sums[at] += gs[static_cast<size_t>(h * s.distances + m)];
        scale[at] += std::abs(gs[static_cast<size_t>(h * s.distances + m)]);
      }
    }
    CHECK(same_bits("bias", bias.host(), expected));
    kernels::cuda::relative_bias_backward(gpu(), table.view(), dbias.cview(), buckets);
    CHECK(compare_scaled("dtable", table.host(), sums, scale, kFloat32));
    kernels::cuda::relative_bias_backward(gpu(), again.view(), dbias.cview(), buckets);
    CHECK(same_bits("again", again.host(), table.host()));
  }
}

}  // namespace blockstate::test
