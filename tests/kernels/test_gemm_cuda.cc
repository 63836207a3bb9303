// SPDX-License-Identifier: Apache-2.0
// Products on a GPU against sums in double.
#include <catch2/catch.hpp>

#include "kernels/gemm.h"
#include "tests/support/cuda_array.h"
#include "tests/support/fill.h"

namespace blockstate::test {
namespace {

struct Size {
  int64_t m, n, k;
  bool transpose_a, transpose_b, bias, accumulate;
  int64_t gap;  // elements between rows
};

/// Element (r, c) of a matrix whose rows have `pitch` elements, or of its transpose.
double at(const std::vector<float>& values, bool transpose, int64_t r, int64_t c, int64_t pitch) {
  return static_cast<double>(values[static_cast<size_t>(transpose ? c * pitch + r : r * pitch + c)]);
}

template <class T, class C>
void check_product(const Size& s) {
  CAPTURE(s.m, s.n, s.k, s.transpose_a, s.transpose_b, s.bias, s.accumulate, s.gap);
  const int64_t a_rows = s.transpose_a ? s.k : s.m, a_columns = s.transpose_a ? s.m : s.k;
  const int64_t b_rows = s.transpose_b ? s.n : s.k, b_columns = s.transpose_b ? s.k : s.n;
  const int64_t a_pitch = a_columns + s.gap, b_pitch = b_columns + s.gap, c_pitch = s.n + s.gap;
  const std::vector<float> a = rounded_to<T>(random_normal<float>(1, a_rows * a_pitch));
  const std::vector<float> b = rounded_to<T>(random_normal<float>(2, b_rows * b_pitch));
  const std::vector<float> before = rounded_to<C>(random_normal<float>(3, s.m * c_pitch));
  const std::vector<float> bias = rounded_to<C>(random_normal<float>(4, s.n));
  const CudaArray<T> device_a(stored_as<T>(a)), device_b(stored_as<T>(b));
  const CudaArray<C> device_c(stored_as<C>(before));
  const CudaArray<float> device_bias(bias);
  kernels::Gemm<T, C, float> args;
  args.a = {device_a.data(), {a_rows, a_columns}, {a_pitch, 1}};
  args.b = {device_b.data(), {b_rows, b_columns}, {b_pitch, 1}};
  args.c = {device_c.data(), {s.m, s.n}, {c_pitch, 1}};
  args.bias = s.bias ? device_bias.cview(s.n) : View<const float, 1>();
  args.transpose_a = s.transpose_a;
  args.transpose_b = s.transpose_b;
  args.beta = s.accumulate ? 1 : 0;
  kernels::cuda::gemm<T, C>(gpu(), args);
  const std::vector<float> found = as_float(device_c.host());

  std::vector<float> inside, naive;
  std::vector<double> reference;
  for (int64_t i = 0; i < s.m; ++i) {
    for (int64_t j = 0; j < s.n; ++j) {
      double sum = s.accumulate ? static_cast<double>(before[static_cast<size_t>(i * c_pitch + j)]) : 0;
      sum += s.bias ? static_cast<double>(bias[static_cast<size_t>(j)]) : 0;
      for (int64_t k = 0; k < s.k; ++k) {
        sum += at(a, s.transpose_a, i, k, a_pitch) * at(b, s.transpose_b, k, j, b_pitch);
      }
      reference.push_back(sum);
      naive.push_back(rounded_to<C>({static_cast<float>(sum)})[0]);
      inside.push_back(found[static_cast<size_t>(i * c_pitch + j)]);
    }
    for (int64_t j = s.n; j < c_pitch; ++j) {  // between rows nothing is written
      REQUIRE(found[static_cast<size_t>(i * c_pitch + j)] == before[static_cast<size_t>(i * c_pitch + j)]);
    }
  }
  CHECK(compare_twice_naive("c", inside, reference, naive, 2e-6));
}

const std::vector<Size> kSizes = {
    {1, 1, 1, false, false, false, false, 0},
    {5, 7, 3, false, true, true, false, 1},
    {128, 256, 64, false, true, false, false, 0},
    {100, 48, 64, false, true, true, true, 8},
    {37, 64, 129, true, false, false, false, 0},
    {64, 37, 500, true, false, false, true, 3},
    {1, 80, 1536, false, true, true, false, 0},
    {3, 33, 96, false, true, false, false, 8},
    {4, 7, 50, false, true, true, false, 3},
    {1, 64, 40, false, true, false, true, 0},
    {33, 65, 17, true, true, false, false, 2},
    {513, 16, 48, false, false, false, true, 16},
    // Few rows, as in steps of generation.
    {1, 3072, 768, false, true, false, false, 0},
    {2, 1, 8, false, true, true, false, 8},
    {16, 80, 1536, false, true, false, false, 0},
    {17, 257, 264, false, true, true, false, 8},
    {33, 9, 40, false, true, false, false, 0},
    {64, 1500, 48, false, true, true, false, 16},
    {100, 768, 72, false, true, false, false, 0},
    {128, 2100, 520, false, true, true, false, 0},
    {129, 40, 80, false, true, false, false, 0},
    {32, 3000, 72, false, true, true, false, 0},
    {20, 1500, 1096, false, true, false, false, 8},
};

}  // namespace

TEST_CASE("gemm on a GPU equals sums in double", "[gemm]") {
  for (const Size& size : kSizes) {
    check_product<float, float>(size);
    check_product<BFloat16, BFloat16>(size);
    check_product<BFloat16, float>(size);
  }
}

TEST_CASE("gemm on a GPU of few rows has the same bits again", "[gemm]") {
  constexpr int64_t kColumns = 300, kDepth = 1536;
  const CudaArray<BFloat16> b(stored_as<BFloat16>(random_normal<float>(6, kColumns * kDepth)));
  for (const int64_t rows : {1, 16, 90}) {
    std::vector<float> values = random_normal<float>(5, rows * kDepth);
    const auto product = [&] {
      const CudaArray<BFloat16> a(stored_as<BFloat16>(values)), c(rows * kColumns);
      kernels::Gemm<BFloat16, BFloat16, float> args;
      args.a = a.cview(rows, kDepth);
      args.b = b.cview(kColumns, kDepth);
      args.c = c.view(rows, kColumns);
      args.transpose_b = true;
      kernels::cuda::gemm<BFloat16, BFloat16>(gpu(), args);
      return as_float(c.host());
    };
    const std::vector<float> once = product();
    CHECK(product() == once);
    values[7] += 1;
    CHECK_FALSE(product() == once);
  }
}

TEST_CASE("gemm on a GPU leaves empty products alone and names what does not fit", "[gemm]") {
  const CudaArray<float> a(6), b(6), c(4);
  kernels::Gemm<float> args;
  args.a = a.cview(2, 3);
  args.b = b.cview(3, 2);
  args.c = c.view(2, 2);
  args.transpose_b = true;
  CHECK_THROWS_WITH((kernels::cuda::gemm<float, float>(gpu(), args)), Catch::Matchers::Contains("shapes do not fit"));
  args.transpose_b = false;
  args.a = a.cview(0, 3);
  args.c = c.view(0, 2);
  kernels::cuda::gemm<float, float>(gpu(), args);
  for (const float value : c.host()) {
    CHECK(std::isnan(value));  // untouched
  }
}

}  // namespace blockstate::test
