// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "kernels/rotary.h"
#include "tests/support/cuda_rows.h"
#include "tests/support/fill.h"

namespace blockstate::test {
namespace {

struct RotaryShape {
  int64_t B, L, H, P;
};
constexpr RotaryShape kShapes[] = {{1, 1, 1, 2},  {2, 7, 3, 8},   {1, 65, 1, 34}, {1, 1030, 2, 6},
                                   {1, 5, 5, 64}, {1, 3, 2, 66},  {2, 0, 3, 4},   {0, 2, 3, 4},
                                   {1, 3, 2, 0},  {2, 33, 9, 32}, {1, 4, 1, 600}, {2, 3, 2, 516}};

/// The definition; angles in the longest type, good to 2^-63 of the position.
std::vector<double> naive_rotary(RotaryShape s, const std::vector<float>& x, const std::vector<int64_t>& position,
                                 double base) {
  std::vector<double> y = converted<double>(x);
  const int64_t half = s.P / 2;
  for (int64_t row = 0; row < s.B * s.L; ++row) {
    for (int64_t h = 0; h < s.H && position[static_cast<size_t>(row)] >= 0; ++h) {
      for (int64_t p = 0; p < half; ++p) {
        const long double angle = static_cast<long double>(position[static_cast<size_t>(row)]) *
                                  std::pow(static_cast<long double>(base), -2.0L * p / s.P);
        const double c = static_cast<double>(std::cos(angle)), sine = static_cast<double>(std::sin(angle));
        const size_t a = static_cast<size_t>((row * s.H + h) * s.P + p), b = a + static_cast<size_t>(half);
        y[a] = x[a] * c - x[b] * sine;
        y[b] = x[b] * c + x[a] * sine;
      }
    }
  }
  return y;
}

template <class T>
View<T, 4> heads(const CudaRows<T>& rows, RotaryShape s) {
  return {rows.data(), {s.B, s.L, s.H, s.P}, {s.L * s.H * rows.pitch(), s.H * rows.pitch(), rows.pitch(), 1}};
}

}  // namespace

TEMPLATE_TEST_CASE("rotary on CUDA equals its definition, at far positions too", "[rotary][cuda]", float, BFloat16) {
  using T = TestType;
  for (const RotaryShape s : kShapes) {
    for (const Lie lie : {Lie{}, Lie{8, 8}, Lie{3, 1}}) {
      for (const bool far : {false, true}) {
        CAPTURE(s.B, s.L, s.H, s.P, lie.gap, lie.offset, far);
        const auto xs = rounded_to<T>(random_normal<float>(61, s.B * s.L * s.H * s.P));
        std::vector<int64_t> position = random_ids(62, s.B * s.L, -3, 100000);
        for (size_t i = 0; far && i < position.size(); i += 2) {
          position[i] += int64_t{1} << 40;
        }
        const auto expected = naive_rotary(s, xs, position, 10000);
        const CudaArray<int64_t> positions(position);
        const CudaRows<T> x(xs, s.B * s.L * s.H, s.P, lie), y(s.B * s.L * s.H, s.P, lie);
        kernels::cuda::rotary<T>(gpu(), heads(y, s), heads(x, s), positions.cview(s.B, s.L), 10000, false);
        CHECK(judge<T>("y", y.host(), expected));
        kernels::cuda::rotary<T>(gpu(), heads(x, s), heads(x, s), positions.cview(s.B, s.L), 10000, false);
        CHECK(same_bits("in place", x.host(), y.host()));
      }
    }
  }
}

TEST_CASE("rotary on CUDA turns back, and passes padding unchanged", "[rotary][cuda]") {
  const RotaryShape s{2, 70, 2, 16};
  auto xs = random_normal<float>(64, s.B * s.L * s.H * s.P);
  std::vector<int64_t> position = random_ids(66, s.B * s.L, 0, 5000);
  position[1] = -1;
  xs[static_cast<size_t>(s.H * s.P)] = HUGE_VALF;  // of the padded step
  const CudaArray<int64_t> positions(position);
  const CudaRows<float> x(xs, s.B * s.L * s.H, s.P), y(s.B * s.L * s.H, s.P);
  kernels::cuda::rotary<float>(gpu(), heads(y, s), heads(x, s), positions.cview(s.B, s.L), 500, false);
  CHECK_FALSE(compare("turned", y.host(), converted<double>(xs), kFloat32));
  const std::vector<float> turned = y.host();
  CHECK(std::equal(xs.begin() + s.H * s.P, xs.begin() + 2 * s.H * s.P, turned.begin() + s.H * s.P));
  kernels::cuda::rotary<float>(gpu(), heads(y, s), heads(y, s), positions.cview(s.B, s.L), 500, true);
  CHECK(compare("there and back", y.host(), converted<double>(xs), {1e-5, 2e-6}));  // two roundings
}

TEST_CASE("rotary on CUDA refuses an odd head width", "[rotary][cuda]") {
  const CudaArray<float> x(3);
  const CudaArray<int64_t> position(1);
  CHECK_THROWS_WITH(
      kernels::cuda::rotary<float>(gpu(), x.view(1, 1, 1, 3), x.cview(1, 1, 1, 3), position.cview(1, 1), 10000, false),
      Catch::Contains("must be even, found 3"));
}

}  // namespace blockstate::test
