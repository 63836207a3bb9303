// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "kernels/rotary.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradcheck.h"
#include "tests/support/guard_buffer.h"
#include "tests/support/sparse_buffer.h"

namespace blockstate::test {
namespace {

struct RotaryShape {
  int64_t B, L, H, P;
};

constexpr RotaryShape kShapes[] = {{1, 1, 1, 2},  {2, 7, 3, 8}, {1, 65, 1, 34}, {1, 1030, 2, 6}, {1, 5, 1, 64},
                                   {1, 3, 2, 66}, {2, 0, 3, 4}, {0, 2, 3, 4},   {1, 3, 2, 0}};

/// The definition; angles in the longest type, good to 2^-63 of the position.
std::vector<double> naive_rotary(RotaryShape s, const std::vector<double>& x, const std::vector<int64_t>& position,
                                 double base) {
  std::vector<double> y = x;
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
std::vector<T> rotated(RotaryShape s, const std::vector<T>& x, const std::vector<int64_t>& position,
                       bool inverse = false, double base = 10000) {
  std::vector<T> y(x.size(), T(NAN));
  kernels::cpu::rotary(make_view(y.data(), s.B, s.L, s.H, s.P), make_view<const T>(x.data(), s.B, s.L, s.H, s.P),
                       make_view<const int64_t>(position.data(), s.B, s.L), base, inverse);
  return y;
}

template <class T>
double dot(const T* a, const T* b, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  return sum;
}

}  // namespace

TEMPLATE_TEST_CASE("rotary equals its definition in double", "[rotary]", float, double) {
  for (const RotaryShape s : kShapes) {
    CAPTURE(s.B, s.L, s.H, s.P);
    const auto x = random_normal<TestType>(61, s.B * s.L * s.H * s.P);
    std::vector<int64_t> position = random_ids(62, s.B * s.L, -3, 100000);
    for (size_t i = 0; i < position.size() / 2; ++i) {
      position[i] = static_cast<int64_t>(i) + 60;  // steps in order, across blocks of 64
    }
    const auto expected = naive_rotary(s, converted<double>(x), position, 10000);
    CHECK(compare("y", rotated(s, x, position), expected, tolerance_of<TestType>()));
  }
}

TEST_CASE("rotary at far positions is as good as at near ones", "[rotary]") {
  const RotaryShape s{1, 4, 1, 32};
  const auto x = random_normal<double>(63, 4 * 32);
  const int64_t far = int64_t{1} << 40;
  const std::vector<int64_t> position{far, far + 1, far + 63, far - 1};
  // 2^40 radians at 2^-63 relative: 1e-7 would be lost by angles in double, 1e-4.
  CHECK(compare("y", rotated(s, x, position), naive_rotary(s, x, position, 10000), {1e-6, 1e-6}));
  // Distances, not positions, make the score: 1 at 2^40 as well as at 0.
  const auto repeat = [&](std::vector<int64_t> at) {
    std::vector<double> same;
    for (int i = 0; i < 4; ++i) {
      same.insert(same.end(), x.begin() + (i % 2) * 32, x.begin() + (i % 2 + 1) * 32);
    }
    const auto y = rotated(s, same, at);
    return std::pair{dot(&y[0], &y[32], 32), dot(&y[64], &y[96], 32)};
  };
  const auto [near_score, far_score] = repeat({0, 1, far, far + 1});
  CHECK(near_score == Approx(far_score).epsilon(1e-6));
  const auto [first, second] = repeat({5, 9, 905, 909});
  CHECK(first == Approx(second).epsilon(1e-12));
  const auto [one, other] = repeat({5, 9, 905, 910});
  CHECK(one != Approx(other).epsilon(1e-3));
}

TEMPLATE_TEST_CASE("rotary keeps norms, and its inverse is its gradient", "[rotary]", float, double) {
  const RotaryShape s{2, 70, 2, 10};
  auto x = random_normal<TestType>(64, s.B * s.L * s.H * s.P);
  const auto dy = random_normal<TestType>(65, s.B * s.L * s.H * s.P);
  const auto position = random_ids(66, s.B * s.L, -2, 5000);
  const auto y = rotated(s, x, position);
  for (int64_t row = 0; row < s.B * s.L * s.H; ++row) {
    CHECK(dot(&y[static_cast<size_t>(row * 10)], &y[static_cast<size_t>(row * 10)], 10) ==
          Approx(dot(&x[static_cast<size_t>(row * 10)], &x[static_cast<size_t>(row * 10)], 10)).epsilon(1e-5));
  }
  CHECK(compare("there and back", rotated(s, y, position, true), converted<double>(x), tolerance_of<TestType>()));
  // Linear: <dy, R x> = <R^T dy, x>, and R^T is the inverse.
  const auto dx = rotated(s, dy, position, true);
  CHECK(dot(dy.data(), y.data(), static_cast<int64_t>(y.size())) ==
        Approx(dot(dx.data(), x.data(), static_cast<int64_t>(x.size()))).epsilon(1e-5));
}

TEST_CASE("rotary gradient equals central differences", "[rotary]") {
  const RotaryShape s{1, 4, 2, 6};
  auto x = random_normal<double>(67, 48);
  const auto dy = random_normal<double>(68, 48);
  const std::vector<int64_t> position{3, -1, 70, 1000};
  const auto dx = rotated(s, dy, position, true);
  CHECK(gradcheck({{"x", &x, &dx}}, [&] {
    const auto y = rotated(s, x, position);
    return dot(dy.data(), y.data(), 48);
  }));
}

TEST_CASE("rotary in place, through strides, on any number of threads", "[rotary]") {
  const RotaryShape s{2, 1500, 3, 14};
  const auto x = random_normal<float>(69, s.B * s.L * s.H * s.P);
  std::vector<int64_t> position;
  for (int64_t i = 0; i < s.B * s.L; ++i) {
    position.push_back(i % 1400 == 7 ? -1 : i % 1400);
  }
  const auto expected = rotated(s, x, position);
  GuardBuffer<float, 4> buffer({s.B, s.L, s.H, s.P}, 3);
  buffer.assign(x);
  const auto at = make_view<const int64_t>(position.data(), s.B, s.L);
  kernels::cpu::rotary(buffer.view(), buffer.cview(), at, 10000, false);
  CHECK(buffer.fully_written());
  CHECK(same_bits("in place", buffer.elements(), expected));
  const int restore = thread_count();
  for (const int threads : {1, 3}) {
    set_thread_count(threads);
    CHECK(same_bits("threads", rotated(s, x, position), expected));
  }
  set_thread_count(restore);
  // The same position gives the same bits wherever it stands: chunks equal one pass exactly.
  const RotaryShape step{1, 1, 3, 14};
  const std::vector<float> last(x.end() - 42, x.end());
  CHECK(same_bits("one step", rotated(step, last, {position.back()}),
                  std::vector<float>(expected.end() - 42, expected.end())));
}

TEST_CASE("rotary refuses an odd head width", "[rotary]") {
  CHECK_THROWS_WITH(rotated<float>({1, 1, 1, 3}, {1, 2, 3}, {0}), Catch::Contains("must be even, found 3"));
}

TEST_CASE("rotary reads and writes beyond 2^31 elements", "[rotary]") {
  const int64_t stride = (int64_t{1} << 31) + 9;
  const SparseBuffer<float> x(2 * stride), y(2 * stride);
  const auto near = random_normal<float>(70, 2 * 8);
  View<float, 4> from = make_view(x.data(), 1, 2, 1, 8), to = make_view(y.data(), 1, 2, 1, 8);
  from.stride[1] = to.stride[1] = stride;
  for (int64_t i = 0; i < 16; ++i) {
    from(0, i / 8, 0, i % 8) = near[static_cast<size_t>(i)];
  }
  const std::vector<int64_t> position{5, 6};
  kernels::cpu::rotary<float>(to, from, make_view<const int64_t>(position.data(), 1, 2), 10000, false);
  CHECK(same_bits("y", elements_of(to), rotated({1, 2, 1, 8}, near, position)));
}

}  // namespace blockstate::test
