// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/elementwise.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradcheck.h"
#include "tests/support/guard_buffer.h"
#include "tests/support/sparse_buffer.h"
#include "tests/support/threads.h"

namespace blockstate::test {
namespace {

using kernels::Activation;

constexpr Activation kAll[] = {Activation::kIdentity, Activation::kRelu,       Activation::kSilu,
                               Activation::kGelu,     Activation::kSigmoid,    Activation::kTanh,
                               Activation::kSoftplus, Activation::kNegativeExp};

struct Shape {
  int64_t rows, columns, gap;
};
// Around one and several vectors, primes, nothing, one row longer than a span of work.
constexpr Shape kShapes[] = {{1, 1, 0},  {3, 15, 0}, {3, 16, 2}, {5, 17, 3},   {7, 31, 1},
                             {2, 33, 0}, {0, 5, 0},  {4, 0, 0},  {1, 40009, 0}};

double value_of(Activation activation, double x) {
  switch (activation) {
    case Activation::kIdentity:
      return x;
    case Activation::kRelu:
      return std::max(x, 0.0);
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::kSigmoid:
      return 1 / (1 + std::exp(-x));
    case Activation::kTanh:
      return std::tanh(x);
    case Activation::kSoftplus:
      return x > 20 ? x : std::log1p(std::exp(x));
    case Activation::kNegativeExp:
      return -std::exp(x);
  }
  return 0;
}

double slope_of(Activation activation, double x) {
  const double sigmoid = 1 / (1 + std::exp(-x));
  switch (activation) {
    case Activation::kIdentity:
      return 1;
    case Activation::kRelu:
      return x > 0 ? 1 : 0;
    case Activation::kSilu:
      return sigmoid * (1 + x * (1 - sigmoid));
    case Activation::kGelu:
      return 0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0));
    case Activation::kSigmoid:
      return sigmoid * (1 - sigmoid);
    case Activation::kTanh:
      return 1 - std::tanh(x) * std::tanh(x);
    case Activation::kSoftplus:
      return x > 20 ? 1 : sigmoid;
    case Activation::kNegativeExp:
      return -std::exp(x);
  }
  return 0;
}

template <class F>
std::vector<double> mapped(int64_t count, const F& f) {
  std::vector<double> out;
  for (int64_t i = 0; i < count; ++i) {
    out.push_back(f(static_cast<size_t>(i)));
  }
  return out;
}

}  // namespace

TEMPLATE_TEST_CASE("activations and gates equal their formulas", "[elementwise]", float, double) {
  using T = TestType;
  const Tolerance tolerance = tolerance_of<T>();
  for (const Shape& s : kShapes) {
    const int64_t count = s.rows * s.columns;
    GuardBuffer<T, 2> x({s.rows, s.columns}, s.gap), value({s.rows, s.columns}, s.gap), dy({s.rows, s.columns}, s.gap);
    const std::vector<T> xs = random_normal<T>(1, count, 6), vs = random_normal<T>(2, count);
    const std::vector<T> gs = random_normal<T>(3, count);
    x.assign(xs), value.assign(vs), dy.assign(gs);
    for (const Activation activation : kAll) {
      INFO("activation " << static_cast<int>(activation) << " rows " << s.rows << " columns " << s.columns);
      GuardBuffer<T, 2> y({s.rows, s.columns}, s.gap), dvalue({s.rows, s.columns}, s.gap), dgate({s.rows, s.columns});
      kernels::cpu::activation_forward(y.view(), x.cview(), activation);
      CHECK(y.fully_written("y"));
      CHECK(compare("y", y.view(), mapped(count, [&](size_t i) { return value_of(activation, xs[i]); }), tolerance));
      y.poison();
      kernels::cpu::activation_backward(y.view(), dy.cview(), x.cview(), activation);
      CHECK(y.fully_written("dx"));
      CHECK(compare("dx", y.view(), mapped(count, [&](size_t i) { return gs[i] * slope_of(activation, xs[i]); }),
                    tolerance));
      y.poison();
      kernels::cpu::gated_forward(y.view(), value.cview(), x.cview(), activation);
      CHECK(y.fully_written("gated"));
      CHECK(compare("gated", y.view(), mapped(count, [&](size_t i) { return vs[i] * value_of(activation, xs[i]); }),
                    tolerance));
      kernels::cpu::gated_backward(dvalue.view(), dgate.view(), dy.cview(), value.cview(), x.cview(), activation);
      CHECK(dvalue.fully_written("dvalue"));
      CHECK(dgate.fully_written("dgate"));
      CHECK(compare("dvalue", dvalue.view(),
                    mapped(count, [&](size_t i) { return gs[i] * value_of(activation, xs[i]); }), tolerance));
      CHECK(compare("dgate", dgate.view(),
                    mapped(count, [&](size_t i) { return double{gs[i]} * vs[i] * slope_of(activation, xs[i]); }),
                    tolerance));
    }
  }
}

TEST_CASE("gradients of activations and gates agree with differences", "[elementwise]") {
  constexpr int64_t kRows = 3, kColumns = 7;
  std::vector<double> value = random_normal<double>(1, kRows * kColumns), gate = random_normal<double>(2, value.size());
  for (double& x : gate) {
    x += x < 0 ? -0.05 : 0.05;  // away from relu's kink
  }
  const std::vector<double> dy = random_normal<double>(3, kRows * kColumns);
  std::vector<double> y(value.size()), dvalue(value.size()), dgate(value.size()), dx(value.size());
  const auto view = [](std::vector<double>& data) { return make_view(data.data(), kRows, kColumns); };
  const auto cview = [](const std::vector<double>& data) { return make_view(data.data(), kRows, kColumns); };
  const auto dot = [&] {
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      sum += dy[i] * y[i];
    }
    return sum;
  };
  for (const Activation activation : kAll) {
    INFO("activation " << static_cast<int>(activation));
    kernels::cpu::activation_backward(view(dx), cview(dy), cview(gate), activation);
    CHECK(gradcheck({{"x", &gate, &dx}}, [&] {
      kernels::cpu::activation_forward(view(y), cview(gate), activation);
      return dot();
    }));
    kernels::cpu::gated_backward(view(dvalue), view(dgate), cview(dy), cview(value), cview(gate), activation);
    CHECK(gradcheck({{"value", &value, &dvalue}, {"gate", &gate, &dgate}}, [&] {
      kernels::cpu::gated_forward(view(y), cview(value), cview(gate), activation);
      return dot();
    }));
  }
}

TEST_CASE("activations keep NaN and have the right limits", "[elementwise]") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x{std::nanf(""), kInfinity, -kInfinity, 1e30f, -1e30f};
  std::vector<float> y(x.size());
  for (const Activation activation : kAll) {
    if (activation == Activation::kNegativeExp) {
      continue;  // the limits of exp are test_vector_math.cc's
    }
    INFO("activation " << static_cast<int>(activation));
    kernels::cpu::activation_forward(make_view(y.data(), 1, x.size()), make_view(x.data(), 1, x.size()), activation);
    const bool bounded = activation == Activation::kSigmoid || activation == Activation::kTanh;
    CHECK(std::isnan(y[0]));
    CHECK(y[1] == (bounded ? 1 : kInfinity));
    CHECK(y[3] == (bounded ? 1 : 1e30f));
    const bool identity = activation == Activation::kIdentity;
    const float low = activation == Activation::kTanh ? -1.0f : 0.0f;
    CHECK(y[2] == (identity ? -kInfinity : low));
    CHECK(y[4] == (identity ? -1e30f : low));
  }
}

TEMPLATE_TEST_CASE("add, accumulate, scale and copy", "[elementwise]", float, double) {
  using T = TestType;
  for (const Shape& s : kShapes) {
    INFO("rows " << s.rows << " columns " << s.columns);
    const int64_t count = s.rows * s.columns;
    GuardBuffer<T, 2> a({s.rows, s.columns}, s.gap), b({s.rows, s.columns}), y({s.rows, s.columns}, s.gap);
    const std::vector<T> as = random_normal<T>(1, count), bs = random_normal<T>(2, count);
    a.assign(as), b.assign(bs);
    kernels::cpu::add(y.view(), a.cview(), b.cview());
    CHECK(y.fully_written("add"));
    CHECK(compare("add", y.view(), mapped(count, [&](size_t i) { return double{as[i]} + bs[i]; }), tolerance_of<T>()));
    kernels::cpu::accumulate(y.view(), b.cview(), T(-0.75));
    CHECK(y.fully_written("accumulate"));
    CHECK(compare("accumulate", y.view(), mapped(count, [&](size_t i) { return double{as[i]} + 0.25 * bs[i]; }),
                  tolerance_of<T>()));
    kernels::cpu::scale(y.view(), a.cview(), T(3));
    CHECK(compare("scale", y.view(), mapped(count, [&](size_t i) { return 3.0 * as[i]; }), tolerance_of<T>()));
    y.poison();
    kernels::cpu::copy(y.view(), a.cview());
    CHECK(y.fully_written("copy"));
    CHECK(same_bits("copy", y.view(), as));
    kernels::cpu::scale(y.view(), y.cview(), T(2));
    kernels::cpu::add(a.view(), a.cview(), a.cview());
    CHECK(same_bits("in place", a.view(), y.elements()));
  }
}

TEST_CASE("copy transposes and takes any stride", "[elementwise]") {
  for (const auto& [rows, columns] : {std::array<int64_t, 2>{1, 1}, {15, 17}, {16, 32}, {513, 67}, {3, 1000}}) {
    const std::vector<float> x = random_normal<float>(1, rows * columns);
    GuardBuffer<float, 2> y({columns, rows}, 3);
    const View<const float, 2> transposed{x.data(), {columns, rows}, {1, columns}};
    kernels::cpu::copy(y.view(), transposed);
    CHECK(y.fully_written("y"));
    CHECK(same_bits("y", y.view(), elements_of(transposed)));
    GuardBuffer<float, 2> back({rows, columns});
    const View<float, 2> back_transposed{back.view().data, {columns, rows}, {1, columns}};
    kernels::cpu::copy(back_transposed, y.cview());
    CHECK(same_bits("back", back.view(), x));
  }
}

TEMPLATE_TEST_CASE("add_column_sums adds the sum of every column", "[elementwise]", float, double) {
  using T = TestType;
  for (const Shape& s : {Shape{1, 1, 0}, Shape{1000, 3, 1}, Shape{513, 64, 0}, Shape{37, 67, 2}, Shape{2000, 130, 0},
                         Shape{0, 4, 0}, Shape{5, 0, 0}, Shape{3, 40009, 0}}) {
    INFO("rows " << s.rows << " columns " << s.columns);
    GuardBuffer<T, 2> x({s.rows, s.columns}, s.gap);
    const std::vector<T> xs = random_normal<T>(1, s.rows * s.columns);
    x.assign(xs);
    GuardBuffer<T, 1> sum({s.columns});
    const std::vector<T> before = random_normal<T>(2, s.columns);
    sum.assign(before);
    std::vector<double> expected = converted<double>(before), magnitude;
    for (int64_t c = 0; c < s.columns; ++c) {
      double scale = 0;
      for (int64_t r = 0; r < s.rows; ++r) {
        const double term = xs[static_cast<size_t>(r * s.columns + c)];
        expected[static_cast<size_t>(c)] += term;
        scale += std::abs(term);
      }
      magnitude.push_back(scale);
    }
    kernels::cpu::add_column_sums(sum.view(), x.cview());
    CHECK(compare_scaled("sum", sum.view(), expected, magnitude, tolerance_of<T>()));
    CHECK(sum.bands_intact("sum"));
  }
}

TEST_CASE("element-wise results have the same bits on one and on more threads", "[elementwise]") {
  constexpr int64_t kRows = 1031, kColumns = 131;
  const std::vector<float> x = random_normal<float>(1, kRows * kColumns, 3);
  const View<const float, 2> view{x.data(), {kRows, kColumns - 2}, {kColumns, 1}};
  std::array<std::vector<float>, 2> y, sum;
  for (size_t run = 0; run < 2; ++run) {
    const Threads threads(run == 0 ? 1 : 3);
    y[run].assign(x.size(), 0);
    sum[run].assign(kColumns - 2, 0);
    const View<float, 2> out{y[run].data(), {kRows, kColumns - 2}, {kColumns, 1}};
    kernels::cpu::activation_forward(out, view, Activation::kGelu);
    kernels::cpu::add_column_sums(make_view(sum[run].data(), kColumns - 2), view);
  }
  CHECK(same_bits("gelu", y[1], y[0]));
  CHECK(same_bits("sums", sum[1], sum[0]));
}

TEST_CASE("element-wise kernels reach rows past 2^31 elements", "[elementwise]") {
  constexpr int64_t kRows = 4, kColumns = 19, kStride = int64_t{1} << 30;
  SparseBuffer<float> far(kRows * kStride);
  const View<float, 2> y{far.data(), {kRows, kColumns}, {kStride, 1}};
  const std::vector<float> x = random_normal<float>(1, kRows * kColumns);
  kernels::cpu::copy(y, make_view(x.data(), kRows, kColumns));
  CHECK(same_bits("copy", y, x));
  kernels::cpu::scale(y, View<const float, 2>(y), 2.0f);
  CHECK(compare("scale", y, mapped(kRows * kColumns, [&](size_t i) { return 2.0 * x[i]; }), {0, 0}));
  std::vector<float> sum(kColumns);
  kernels::cpu::add_column_sums(make_view(sum.data(), kColumns), View<const float, 2>(y));
  CHECK(compare("sum", sum,
                mapped(kColumns,
                       [&](size_t c) {
                         return 2.0 * (double{x[c]} + x[c + kColumns] + x[c + 2 * kColumns] + x[c + 3 * kColumns]);
                       }),
                kFloat32));
}

TEST_CASE("element-wise kernels refuse shapes that differ", "[elementwise]") {
  std::vector<float> data(64);
  const View<float, 2> y = make_view(data.data(), 2, 3);
  const View<const float, 2> x = make_view<const float>(data.data(), 2, 4);
  CHECK_THROWS_WITH(kernels::cpu::activation_forward(y, x, Activation::kRelu),
                    "activation_forward: y is (2, 3), x is (2, 4)");
  CHECK_THROWS_WITH(kernels::cpu::copy(y, x), "copy: y is (2, 3), x is (2, 4)");
  CHECK_THROWS_WITH(kernels::cpu::add_column_sums(make_view(data.data(), 3), x),
                    "add_column_sums: sum holds 3 elements, x has 4 columns");
  View<const float, 2> spread = make_view<const float>(data.data(), 2, 3);
  spread.stride[1] = 2;
  CHECK_THROWS_WITH(kernels::cpu::scale(y, spread, 1.0f), Catch::Contains("last stride of y and x must be 1"));
}

}  // namespace blockstate::test
