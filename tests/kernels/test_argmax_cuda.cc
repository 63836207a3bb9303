// SPDX-License-Identifier: Apache-2.0
// The largest of each row on a GPU against the CPU.
#include <catch2/catch.hpp>
#include <limits>

#include "kernels/argmax.h"
#include "tests/support/cuda_view.h"
#include "tests/support/fill.h"

namespace blockstate::test {
namespace {

template <class T>
void check(const std::vector<float>& values, int64_t rows, int64_t columns, int64_t gap) {
  CAPTURE(rows, columns, gap);
  const std::vector<float> seen = rounded_to<T>(values);
  std::vector<int64_t> expected(static_cast<size_t>(rows));
  kernels::cpu::argmax<float>(make_view(expected.data(), rows), make_view(seen.data(), rows, columns));
  const CudaView<T, 2> x(seen, {rows, columns}, gap);
  const CudaArray<int64_t> index(rows);
  kernels::cuda::argmax<T>(gpu(), index.view(rows), x.cview());
  CHECK(index.host() == expected);
}

}  // namespace

TEMPLATE_TEST_CASE("argmax on a GPU equals the CPU's", "[cuda][argmax]", float, BFloat16) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();
  for (const int64_t columns : {1, 2, 31, 128, 129, 257, 5000}) {
    for (const int64_t rows : {0, 1, 7}) {
      // Rounded to bfloat16 many are equal: the first is to be found.
      check<TestType>(random_normal<float>(static_cast<uint64_t>(columns), rows * columns), rows, columns, 0);
      check<TestType>(random_normal<float>(static_cast<uint64_t>(columns), rows * columns), rows, columns, 3);
      check<TestType>(std::vector<float>(static_cast<size_t>(rows * columns), 2.0f), rows, columns, 0);
    }
  }
  std::vector<float> odd(4 * 200, -kInfinity);
  std::fill_n(odd.begin() + 200, 200, kNan);
  std::fill_n(odd.begin() + 400, 150, kNan);
  odd[600 + 77] = kInfinity, odd[600 + 78] = kInfinity, odd[600 + 3] = kNan;
  check<TestType>(odd, 4, 200, 0);
}

}  // namespace blockstate::test
