// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/elementwise.h"
#include "tests/support/cuda_rows.h"
#include "tests/support/fill.h"

namespace blockstate::test {
namespace {

using kernels::Activation;

constexpr Activation kAll[] = {Activation::kIdentity, Activation::kRelu,       Activation::kSilu,
                               Activation::kGelu,     Activation::kSigmoid,    Activation::kTanh,
                               Activation::kSoftplus, Activation::kNegativeExp};

struct Shape {
  int64_t rows, columns;
  Lie lie;
};
// Around one and several packs, primes, nothing, one long row, gaps that keep rows aligned and that do not.
constexpr Shape kShapes[] = {{1, 1, {}},      {3, 15, {}},    {3, 16, {8, 0}},  {5, 17, {3, 0}},   {7, 31, {1, 0}},
                             {2, 33, {0, 1}}, {0, 5, {}},     {4, 0, {}},       {1, 40009, {}},    {5, 24, {8, 8}},
                             {5, 24, {8, 3}}, {1030, 72, {}}, {37, 20, {4, 0}}, {300, 257, {7, 0}}};

View<const double, 2> matrix(const std::vector<double>& values, const Shape& s) {
  return make_view(values.data(), s.rows, s.columns);
}

}  // namespace

TEMPLATE_TEST_CASE("elementwise activations and gates on CUDA equal the CPU's in double", "[elementwise][cuda]", float,
                   BFloat16) {
  using T = TestType;
  for (const Shape& s : kShapes) {
    const int64_t count = s.rows * s.columns;
    const auto xs = rounded_to<T>(random_normal<float>(1, count, 6)),
               vs = rounded_to<T>(random_normal<float>(2, count)), gs = rounded_to<T>(random_normal<float>(3, count));
    const CudaRows<T> x(xs, s.rows, s.columns, s.lie), value(vs, s.rows, s.columns), dy(gs, s.rows, s.columns, s.lie);
    const auto x64 = converted<double>(xs), v64 = converted<double>(vs), g64 = converted<double>(gs);
    std::vector<double> expected(x64.size()), other(x64.size());
    const auto out = make_view(expected.data(), s.rows, s.columns), out2 = make_view(other.data(), s.rows, s.columns);
    for (const Activation activation : kAll) {
      INFO("activation " << static_cast<int>(activation) << " rows " << s.rows << " columns " << s.columns << " gap "
                         << s.lie.gap << " offset " << s.lie.offset);
      const CudaRows<T> y(s.rows, s.columns, s.lie), dx(s.rows, s.columns), gated(s.rows, s.columns, s.lie),
          dvalue(s.rows, s.columns, s.lie), dgate(s.rows, s.columns, s.lie);
      kernels::cpu::activation_forward(out, matrix(x64, s), activation);
      kernels::cuda::activation_forward(gpu(), y.view(), x.cview(), activation);
      CHECK(judge<T>("y", y.host(), expected));
      kernels::cpu::activation_backward(out, matrix(g64, s), matrix(x64, s), activation);
      kernels::cuda::activation_backward(gpu(), dx.view(), dy.cview(), x.cview(), activation);
      CHECK(judge<T>("dx", dx.host(), expected));
      kernels::cpu::gated_forward(out, matrix(v64, s), matrix(x64, s), activation);
      kernels::cuda::gated_forward(gpu(), gated.view(), value.cview(), x.cview(), activation);
      CHECK(judge<T>("gated", gated.host(), expected));
      kernels::cpu::gated_backward(out, out2, matrix(g64, s), matrix(v64, s), matrix(x64, s), activation);
      kernels::cuda::gated_backward(gpu(), dvalue.view(), dgate.view(), dy.cview(), value.cview(), x.cview(),
                                    activation);
      CHECK(judge<T>("dvalue", dvalue.host(), expected));
      CHECK(judge<T>("dgate", dgate.host(), other));
    }
  }
}

TEST_CASE("elementwise activations on CUDA keep NaN and have the right limits", "[elementwise][cuda]") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const CudaRows<float> x({std::nanf(""), kInfinity, -kInfinity, 1e30f, -1e30f}, 1, 5);
  for (const Activation activation : kAll) {
    INFO("activation " << static_cast<int>(activation));
    const CudaRows<float> out(1, 5);
    kernels::cuda::activation_forward(gpu(), out.view(), x.cview(), activation);
    const std::vector<float> y = out.host();
    CHECK(std::isnan(y[0]));
    if (activation == Activation::kNegativeExp) {
      CHECK(y[1] == -kInfinity);
      CHECK(y[2] == 0);
      continue;
    }
    const bool bounded = activation == Activation::kSigmoid || activation == Activation::kTanh;
    CHECK(y[1] == (bounded ? 1 : kInfinity));
    CHECK(y[3] == (bounded ? 1 : 1e30f));
    const bool identity = activation == Activation::kIdentity;
    const float low = activation == Activation::kTanh ? -1.0f : 0.0f;
    CHECK(y[2] == (identity ? -kInfinity : low));
    CHECK(y[4] == (identity ? -1e30f : low));
    // Slopes far out are numbers.
    const CudaRows<float> ones({1, 1, 1, 1, 1}, 1, 5), dx(1, 5);
    kernels::cuda::activation_backward(gpu(), dx.view(), ones.cview(), x.cview(), activation);
    const std::vector<float> slope = dx.host();
    CHECK(slope[4] == (identity ? 1 : 0));
    CHECK(slope[3] == (bounded ? 0 : 1));
  }
}

TEMPLATE_TEST_CASE("elementwise add, accumulate and scale on CUDA", "[elementwise][cuda]", float, BFloat16) {
  using T = TestType;
  for (const Shape& s : kShapes) {
    INFO("rows " << s.rows << " columns " << s.columns << " gap " << s.lie.gap << " offset " << s.lie.offset);
    const int64_t count = s.rows * s.columns;
    const auto as = rounded_to<T>(random_normal<float>(1, count)), bs = rounded_to<T>(random_normal<float>(2, count));
    const CudaRows<T> a(as, s.rows, s.columns, s.lie), b(bs, s.rows, s.columns), y(s.rows, s.columns, s.lie);
    std::vector<double> sum, more, scaled;
    for (size_t i = 0; i < as.size(); ++i) {
      sum.push_back(double{as[i]} + bs[i]);
      more.push_back(double{as[i]} - 0.75 * bs[i]);
      scaled.push_back(3.0 * as[i]);
    }
    kernels::cuda::add(gpu(), y.view(), a.cview(), b.cview());
    CHECK(judge<T>("add", y.host(), sum));
    kernels::cuda::scale(gpu(), y.view(), a.cview(), 3.0f);
    CHECK(judge<T>("scale", y.host(), scaled));
    kernels::cuda::accumulate(gpu(), a.view(), b.cview(), -0.75f);  // in place
    CHECK(judge<T>("accumulate", a.host(), more));
  }
}

TEMPLATE_TEST_CASE("elementwise add_column_sums on CUDA", "[elementwise][cuda]", float, BFloat16) {
  using T = TestType;
  for (const Shape& s : {Shape{1, 1, {}}, Shape{1000, 3, {1, 0}}, Shape{513, 64, {}}, Shape{37, 67, {2, 0}},
                         Shape{2000, 136, {8, 8}}, Shape{0, 4, {}}, Shape{5, 0, {}}, Shape{3, 40009, {0, 1}},
                         Shape{70001, 1, {}}, Shape{30011, 16, {}}, Shape{9001, 260, {}}}) {
    INFO("rows " << s.rows << " columns " << s.columns);
    const auto xs = rounded_to<T>(random_normal<float>(1, s.rows * s.columns));
    const auto before = random_normal<float>(2, s.columns);
    const CudaRows<T> x(xs, s.rows, s.columns, s.lie);
    const CudaArray<float> sum(before), again(before);
    std::vector<double> expected = converted<double>(before), magnitude(before.size());
    for (int64_t i = 0; i < s.rows * s.columns; ++i) {
      expected[static_cast<size_t>(i % s.columns)] += xs[static_cast<size_t>(i)];
      magnitude[static_cast<size_t>(i % s.columns)] += std::abs(xs[static_cast<size_t>(i)]);
    }
    kernels::cuda::add_column_sums(gpu(), sum.view(s.columns), x.cview());
    CHECK(compare_scaled("sum", sum.host(), expected, magnitude, kFloat32));
    kernels::cuda::add_column_sums(gpu(), again.view(s.columns), x.cview());
    CHECK(same_bits("again", again.host(), sum.host()));
  }
}

TEST_CASE("elementwise kernels on CUDA reach rows past 2^31 elements", "[elementwise][cuda][large]") {
  constexpr int64_t kRows = 3, kColumns = 19, kStride = (int64_t{1} << 31) + 8;
  const CudaSpace<BFloat16> far(2 * kStride + kColumns);
  const View<BFloat16, 2> y{far.data(), {kRows, kColumns}, {kStride, 1}};
  const auto xs = rounded_to<BFloat16>(random_normal<float>(1, kRows * kColumns));
  const CudaRows<BFloat16> x(xs, kRows, kColumns), back(kRows, kColumns);
  kernels::cuda::scale(gpu(), y, x.cview(), 2.0f);
  kernels::cuda::scale(gpu(), back.view(), View<const BFloat16, 2>(y), 0.5f);
  CHECK(same_bits("there and back", back.host(), xs));
  const CudaArray<float> sum(std::vector<float>(kColumns, 0));
  kernels::cuda::add_column_sums(gpu(), sum.view(kColumns), View<const BFloat16, 2>(y));
  std::vector<double> expected;
  for (size_t c = 0; c < kColumns; ++c) {
    expected.push_back(2.0 * (double{xs[c]} + xs[c + kColumns] + xs[c + 2 * kColumns]));
  }
  CHECK(compare("sum", sum.host(), expected, kFloat32));
}

TEST_CASE("elementwise kernels on CUDA refuse shapes that differ", "[elementwise][cuda]") {
  const CudaArray<float> data(64);
  CHECK_THROWS_WITH(kernels::cuda::activation_forward(gpu(), data.view(2, 3), data.cview(2, 4), Activation::kRelu),
                    "activation_forward: y is (2, 3), x is (2, 4)");
  CHECK_THROWS_WITH(kernels::cuda::add_column_sums(gpu(), data.view(3), data.cview(2, 4)),
                    "add_column_sums: sum holds 3 elements, x has 4 columns");
}

}  // namespace blockstate::test
