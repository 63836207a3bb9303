// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <type_traits>

#include "tests/support/compare.h"
#include "tests/support/diagonal_cuda_case.h"

namespace blockstate::test {
namespace {

// Around blocks of 16 steps, windows of 256, groups of 8 channels and of 16 rows, 32 states.
constexpr DiagonalShape kShapes[] = {{1, 1, 1, 1},     {2, 15, 3, 8},    {1, 16, 8, 32},   {1, 17, 16, 32},
                                     {3, 31, 9, 5},    {1, 255, 8, 32},  {1, 256, 24, 32}, {2, 257, 17, 31},
                                     {17, 40, 8, 32},  {16, 64, 1, 3},   {1, 1000, 5, 32}, {1, 1031, 8, 16},
                                     {2, 4099, 8, 32}, {1, 2048, 64, 8}, {1, 300, 8, 33},  {2, 130, 8, 64},
                                     {1, 270, 3, 100}, {1, 65, 2, 256},  {33, 272, 8, 32}, {1, 9000, 11, 32}};
constexpr DiagonalShape kEmptyShapes[] = {{0, 5, 3, 2}, {2, 0, 3, 2}, {2, 5, 0, 2}, {1, 70, 3, 0}, {2, 0, 8, 32}};

/// Records of 7, 100, 1, 300, ... steps with padding between some and at the end; each row of the batch in its own way.
std::vector<int64_t> packed_positions(int64_t B, int64_t L) {
  const int64_t lengths[] = {7, 100, 1, 300, 16, 2, 513, 64};
  std::vector<int64_t> position;
  for (int64_t b = 0; b < B; ++b) {
    int64_t record = b, left = 5 + b % 3, at = 9;  // the first continues an earlier one
    for (int64_t t = 0; t < L; ++t) {
      const bool padding = record % 4 == 2 && left < 3;
      position.push_back(padding || t >= L - 2 - b % 2 ? -1 : at);
      ++at;
      if (--left == 0) {
        left = lengths[++record % 8];
        at = 0;
      }
    }
  }
  return position;
}

std::vector<double> magnitude(const std::vector<double>& values, double floor) {
  std::vector<double> out;
  for (const double value : values) {
    out.push_back(std::max(std::abs(value), floor));
  }
  return out;
}

/// Root of the mean square. The terms of a gradient of a or c are as large for a state whose sum happens to be small as
/// for the others, and so is its rounding error.
double typical(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) {
    sum += value * value;
  }
  return std::sqrt(sum / static_cast<double>(std::max<size_t>(1, values.size())));
}

/// Activations of type T: float32 by the tolerance, bfloat16 by one rounding of the reference.
template <class T>
Comparison compare_rows(const std::string& name, const std::vector<float>& found, const std::vector<double>& expected,
                        const std::vector<double>& scale, Tolerance tolerance = kFloat32) {
  if constexpr (std::is_same_v<T, float>) {
    return compare_scaled(name, found, expected, scale, tolerance);
  } else {
    double largest_scale = 1e-30, largest = 1e-30;
    for (size_t i = 0; i < expected.size(); ++i) {
      largest_scale = std::max(largest_scale, scale[i]);
      largest = std::max(largest, std::abs(expected[i]));
    }
    return compare_twice_naive(name, found, expected,
                               rounded_to<T>(std::vector<float>(expected.begin(), expected.end())),
                               1e-5 * largest_scale / largest);
  }
}

template <class T>
void check_forward(const DiagonalCase<float>& one, const DiagonalResults& found, Tolerance tolerance = kFloat32) {
  const NaiveDiagonalScan naive = one.naive();
  CHECK(compare_rows<T>("y", found.y, naive.y, naive.scale, tolerance));
  CHECK(compare_scaled("final", found.final, naive.final, magnitude(naive.final, 8), tolerance));
}

/// Against the CPU's kernel in double, whose own gradients are checked numerically.
template <class T>
void check_gradients(const DiagonalCase<float>& one, const DiagonalResults& found) {
  DiagonalCase<double> twice = in_double(one);
  twice.forward();
  twice.backward();
  // A sum of n random terms of size s rounds to about s * sqrt(n) * epsilon: elements far below that carry no digits.
  const double floor = 4 * std::sqrt(static_cast<double>(one.shape.L * one.shape.P));
  const double rows = std::sqrt(static_cast<double>(one.shape.B));
  const Tolerance sums = one.shape.L > 1024 ? kFloat32LongScan : kFloat32;
  const double da_floor = std::max(10 * rows * floor, typical(twice.da));
  const double dc_floor = std::max(4 * rows * floor, typical(twice.dc));
  CHECK(compare_rows<T>("du", found.du, twice.du, magnitude(twice.du, floor)));
  CHECK(compare_scaled("da", found.da, twice.da, magnitude(twice.da, da_floor), sums));
  CHECK(compare_scaled("dc", found.dc, twice.dc, magnitude(twice.dc, dc_floor), sums));
  if (!one.skip.empty()) {
    CHECK(compare_scaled("dD", found.dD, twice.dD, magnitude(twice.dD, rows * floor), kFloat32));
  }
  CHECK(compare_scaled("dinitial", found.dinitial, twice.dinitial, magnitude(twice.dinitial, floor), kFloat32));
}

void check_same_bits(const DiagonalResults& one, const DiagonalResults& other) {
  CHECK(same_bits("y", one.y, other.y));
  CHECK(same_bits("final", one.final, other.final));
  CHECK(same_bits("checkpoint", one.checkpoint, other.checkpoint));
  CHECK(same_bits("du", one.du, other.du));
  CHECK(same_bits("da", one.da, other.da));
  CHECK(same_bits("dc", one.dc, other.dc));
  CHECK(same_bits("dD", one.dD, other.dD));
  CHECK(same_bits("dinitial", one.dinitial, other.dinitial));
}

}  // namespace

TEMPLATE_TEST_CASE("diagonal_scan on a GPU equals the naive recurrence in double", "[diagonal_scan]", float, BFloat16) {
  for (const DiagonalShape shape : kShapes) {
    for (const bool packed : {false, true}) {
      CAPTURE(shape.B, shape.L, shape.D, shape.P, packed);
      DiagonalCase<float> one = rounded_case<TestType>(DiagonalCase<float>(shape, 211));
      if (packed) {
        one.position = packed_positions(shape.B, shape.L);
      }
      check_forward<TestType>(one, run_cuda<TestType>(one, {}, true));
      one.skip.clear();
      one.initial.clear();
      check_forward<TestType>(one, run_cuda<TestType>(one, {}, true));
    }
  }
}

TEMPLATE_TEST_CASE("diagonal_scan on a GPU: gradients equal the CPU's in double", "[diagonal_scan]", float, BFloat16) {
  for (const DiagonalShape shape : kShapes) {
    for (const bool packed : {false, true}) {
      CAPTURE(shape.B, shape.L, shape.D, shape.P, packed);
      DiagonalCase<float> one = rounded_case<TestType>(DiagonalCase<float>(shape, 215));
      if (packed) {
        one.position = packed_positions(shape.B, shape.L);
      }
      check_gradients<TestType>(one, run_cuda<TestType>(one));
      one.skip.clear();
      one.initial.clear();
      one.dfinal.clear();
      check_gradients<TestType>(one, run_cuda<TestType>(one));
    }
  }
}

TEMPLATE_TEST_CASE("diagonal_scan on a GPU: the same bits again, and through strides and unaligned starts",
                   "[diagonal_scan]", float, BFloat16) {
  for (const DiagonalShape shape : kShapes) {
    CAPTURE(shape.B, shape.L, shape.D, shape.P);
    DiagonalCase<float> one = rounded_case<TestType>(DiagonalCase<float>(shape, 213));
    if (shape.L % 2 == 1) {
      one.position = packed_positions(shape.B, shape.L);
    }
    const DiagonalResults first = run_cuda<TestType>(one);
    check_same_bits(run_cuda<TestType>(one), first);
    check_same_bits(run_cuda<TestType>(one, {8, 8}), first);
    check_same_bits(run_cuda<TestType>(one, {3, 1}), first);
  }
}

TEST_CASE("diagonal_scan on a GPU: parameter gradients add", "[diagonal_scan]") {
  DiagonalCase<float> one({2, 300, 9, 32}, 214);
  const DiagonalResults zero = run_cuda<float>(one), two = run_cuda<float>(one, {}, false, 2);
  for (const auto& [from, to] : {std::pair(&zero.da, &two.da), {&zero.dc, &two.dc}, {&zero.dD, &two.dD}}) {
    std::vector<double> expected;
    for (const float value : *from) {
      expected.push_back(2 + static_cast<double>(value));
    }
    CHECK(compare("gradient", *to, expected, {1e-6, 1e-6}));
  }
}

TEST_CASE("diagonal_scan on a GPU: nothing", "[diagonal_scan]") {
  for (const DiagonalShape shape : kEmptyShapes) {
    CAPTURE(shape.B, shape.L, shape.D, shape.P);
    const DiagonalCase<float> one(shape, 212);
    const DiagonalResults found = run_cuda<float>(one);
    CHECK(compare("y", found.y, one.naive().y, kFloat32));
    if (shape.L == 0) {
      CHECK(same_bits("final", found.final, one.initial));
      CHECK(same_bits("dinitial", found.dinitial, one.dfinal));
    }
  }
}

TEMPLATE_TEST_CASE("diagonal_scan on a GPU: chunks with carry equal one pass", "[diagonal_scan][law]", float,
                   BFloat16) {
  const DiagonalShape shape{2, 1500, 18, 32};
  for (const bool packed : {false, true}) {
    DiagonalCase<float> whole = rounded_case<TestType>(DiagonalCase<float>(shape, 216, 0.005));
    if (packed) {
      whole.position = packed_positions(shape.B, shape.L);
    }
    const DiagonalResults once = run_cuda<TestType>(whole);
    for (const int64_t cut : {1, 16, 256, 700, 1499}) {
      for (const bool spoiled : {false, true}) {
        if (spoiled && packed && cut > 1000) {
          continue;  // only padding follows
        }
        CAPTURE(cut, packed, spoiled);
        DiagonalCase<float> left = whole.piece(0, cut), right = whole.piece(cut, shape.L);
        left.initial = whole.initial;
        right.dfinal = whole.dfinal;
        const DiagonalResults first = run_cuda<TestType>(left, {}, true);
        right.initial = first.final;
        if (spoiled) {
          std::fill(right.initial.begin(), right.initial.end(), 0.0f);
        }
        const DiagonalResults second = run_cuda<TestType>(right);
        left.dfinal = second.dinitial;
        const DiagonalResults again = run_cuda<TestType>(left);
        std::vector<float> y(once.y.size()), du(once.y.size());
        paste(again.y, shape.B, shape.L, shape.D, 0, y);
        paste(second.y, shape.B, shape.L, shape.D, cut, y);
        paste(again.du, shape.B, shape.L, shape.D, 0, du);
        paste(second.du, shape.B, shape.L, shape.D, cut, du);
        const double floor = 4 * std::sqrt(static_cast<double>(shape.L * shape.P));
        const Tolerance rows =
            std::is_same_v<TestType, float> ? kFloat32 : Tolerance{8e-3, 1e-3};  // an ulp of bfloat16
        const auto doubles = [](const std::vector<float>& values) { return converted<double>(values); };
        const bool same_y = static_cast<bool>(compare_scaled("y", y, once.y, magnitude(doubles(once.y), floor), rows));
        CHECK(same_y == !spoiled);
        CHECK(compare_scaled("du", du, once.du, magnitude(doubles(once.du), floor), rows));
        std::vector<double> da, dc;
        for (size_t i = 0; i < once.da.size(); ++i) {
          da.push_back(static_cast<double>(again.da[i]) + static_cast<double>(second.da[i]));
          dc.push_back(static_cast<double>(again.dc[i]) + static_cast<double>(second.dc[i]));
        }
        if (!spoiled) {
          CHECK(compare_scaled("final", second.final, once.final, magnitude(doubles(once.final), floor), kFloat32));
          CHECK(compare_scaled("dinitial", again.dinitial, once.dinitial, magnitude(doubles(once.dinitial), floor),
                               kFloat32));
          CHECK(compare_scaled("da", once.da, da, magnitude(da, typical(da)), kFloat32LongScan));
          CHECK(compare_scaled("dc", once.dc, dc, magnitude(dc, typical(dc)), kFloat32LongScan));
        }
      }
    }
  }
}

TEST_CASE("diagonal_scan on a GPU: a memory of a hundred thousand steps", "[diagonal_scan]") {
  for (const bool packed : {false, true}) {
    DiagonalCase<float> one({1, 100003, 8, 32}, 217, 1e-5);
    if (packed) {  // one long record from step 5 on
      one.position.assign(100003, 1);
      one.position[5] = 0;
      one.position[70000] = -1;
    }
    const NaiveDiagonalScan naive = one.naive();
    const DiagonalResults found = run_cuda<float>(one);
    // Every step of a plain recurrence rounds; relative to the absolute terms that is far below the float32 rule.
    CHECK(compare_scaled("y", found.y, naive.y, naive.scale, kFloat32));
    CHECK(compare_scaled("final", found.final, naive.final, magnitude(naive.final, 100), kFloat32LongScan));
    check_gradients<float>(one, found);
  }
}

TEST_CASE("diagonal_scan on a GPU: a = 1 sums, a = 0 forgets", "[diagonal_scan]") {
  DiagonalCase<float> one({1, 100, 2, 1}, 221);
  one.skip.clear();
  one.initial.clear();
  one.a = {1, 0, 0, 0};
  one.c = {1, 5, 3, 7};
  const DiagonalResults found = run_cuda<float>(one, {}, true);
  double sum = 0;
  for (int64_t t = 0; t < 100; ++t) {
    sum += static_cast<double>(one.u[static_cast<size_t>(2 * t)]);
    CHECK(static_cast<double>(found.y[static_cast<size_t>(2 * t)]) == Approx(sum).margin(1e-5));
    const double other = 3 * static_cast<double>(one.u[static_cast<size_t>(2 * t + 1)]);
    CHECK(static_cast<double>(found.y[static_cast<size_t>(2 * t + 1)]) == Approx(other));
  }
}

TEST_CASE("diagonal_scan on a GPU names what does not fit", "[diagonal_scan]") {
  const CudaArray<float> u(2 * 5 * 3), y(2 * 5 * 3), a(3 * 4 * 2), c(3 * 2 * 2);
  kernels::DiagonalScanForward<float, float> args;
  args.u = u.cview(2, 5, 3);
  args.y = y.view(2, 5, 3);
  args.a = a.cview(3, 4, 2);
  args.c = c.cview(3, 2, 2);
  CHECK_THROWS_WITH(kernels::cuda::diagonal_scan_forward(gpu(), args),
                    Catch::Contains("diagonal_scan: c must have shape (3, 4, 2), found (3, 2, 2)"));
}

TEST_CASE("diagonal_scan on a GPU: elements past 2^31", "[diagonal_scan][large]") {
  const DiagonalShape shape{2, 300, 8, 32};
  const int64_t apart = (int64_t{1} << 31) + 64;  // elements between the two rows of the batch
  const DiagonalCase<float> one = rounded_case<BFloat16>(DiagonalCase<float>(shape, 218));
  const DiagonalResults near = run_cuda<BFloat16>(one, {}, true);
  const CudaArray<BFloat16> values(stored_as<BFloat16>(one.u));
  const CudaArray<float> a(one.a), c(one.c), skip(one.skip), initial(one.initial);
  const int64_t row = shape.L * shape.D;
  std::byte* const far = kernels::cuda::take_memory(gpu(), 2 * (apart + row) * int64_t{sizeof(BFloat16)});
  REQUIRE(far != nullptr);
  kernels::DiagonalScanForward<BFloat16, float> args;
  args.y = make_view(reinterpret_cast<BFloat16*>(far), shape.B, shape.L, shape.D);
  args.y.stride[0] = apart;
  args.u = make_view<const BFloat16>(reinterpret_cast<BFloat16*>(far) + row, shape.B, shape.L, shape.D);
  args.u.stride[0] = apart;
  for (int64_t b = 0; b < 2; ++b) {
    kernels::cuda::copy_on_device(gpu(), const_cast<BFloat16*>(&args.u(b, 0, 0)), values.data() + b * row,
                                  row * int64_t{sizeof(BFloat16)});
  }
  args.a = a.cview(shape.D, shape.P, int64_t{2});
  args.c = c.cview(shape.D, shape.P, int64_t{2});
  args.D = skip.cview(shape.D);
  args.initial = initial.cview(shape.B, shape.D, shape.P, int64_t{2});
  kernels::cuda::diagonal_scan_forward(gpu(), args);
  std::vector<BFloat16> y(static_cast<size_t>(2 * row));
  for (int64_t b = 0; b < 2; ++b) {
    kernels::cuda::copy_to_host(gpu(), y.data() + b * row, &args.y(b, 0, 0), row * int64_t{sizeof(BFloat16)});
  }
  kernels::cuda::give_memory(gpu(), far);
  CHECK(same_bits("y", as_float(y), near.y));
}

}  // namespace blockstate::test
