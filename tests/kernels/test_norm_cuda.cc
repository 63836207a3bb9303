// SPDX-License-Identifier: Apache-2.0
// The norms on a GPU against the CPU's, in double (which its own test holds against the formula).
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "kernels/norm.h"
#include "tests/support/cuda_view.h"
#include "tests/support/fill.h"

namespace blockstate::test {
namespace {

struct Case {
  int64_t rows, columns;
  bool layer = false, residual = false, bias = false;
  int64_t gap = 0, offset = 0;
};

struct Inputs {
  std::vector<float> x, residual, dy, dh_out, weight, bias;
};

struct Outputs {
  std::vector<float> y, h, mean, reciprocal, dh, dx, dweight, dbias;
};

template <class T, class X, class H>
Inputs make_inputs(const Case& c) {
  Inputs in;
  const int64_t count = c.rows * c.columns;
  in.x = rounded_to<X>(random_normal<float>(1, count, 2, 0.5));
  in.residual = rounded_to<H>(random_normal<float>(2, count));
  in.dy = rounded_to<T>(random_normal<float>(3, count));
  in.dh_out = rounded_to<H>(random_normal<float>(4, count));
  in.weight = random_normal<float>(5, c.columns, 0.3, 1);
  in.bias = random_normal<float>(6, c.columns);
  return in;
}

template <class T, class X, class H>
Outputs run_on_gpu(const Case& c, const Inputs& in) {
  const CudaView<X, 2> x(in.x, {c.rows, c.columns}, c.gap, c.offset), dx({c.rows, c.columns}, c.gap, c.offset);
  const CudaView<H, 2> residual(in.residual, {c.rows, c.columns}, c.gap, c.offset), h({c.rows, c.columns}, c.gap);
  const CudaView<H, 2> dh_out(in.dh_out, {c.rows, c.columns}, c.gap), dh({c.rows, c.columns}, c.gap, c.offset);
  const CudaView<T, 2> y({c.rows, c.columns}, c.gap, c.offset), dy(in.dy, {c.rows, c.columns}, c.gap, c.offset);
  const CudaArray<float> weight(in.weight), bias(in.bias), mean(c.rows), reciprocal(c.rows);
  const CudaArray<float> dweight(std::vector<float>(in.weight.size(), 1)), dbias(std::vector<float>(in.bias.size(), 2));
  kernels::NormForward<T, X, H, float> f;
  f.y = y.view(), f.x = x.cview(), f.weight = weight.cview(c.columns), f.reciprocal = reciprocal.view(c.rows);
  kernels::NormBackward<T, X, H, float> b;
  b.dh = dh.view(), b.dx = dx.view(), b.dweight = dweight.view(c.columns), b.dy = dy.cview();
  b.reciprocal = reciprocal.cview(c.rows), b.weight = f.weight;
  if (c.layer) {
    f.mean = mean.view(c.rows);
    b.mean = mean.cview(c.rows);
  }
  if (c.bias) {
    f.bias = bias.cview(c.columns);
    b.dbias = dbias.view(c.columns);
  }
  if (c.residual) {
    f.residual = residual.cview();
    f.h = h.view();
    b.dh_out = dh_out.cview();
    b.h = h.cview();
  } else if constexpr (std::is_same_v<X, H>) {
    b.h = x.cview();
  } else {
    f.h = h.view();  // x in the residual stream's type
    b.h = h.cview();
  }
  kernels::cuda::norm_forward<T, X, H>(gpu(), f);
  kernels::cuda::norm_backward<T, X, H>(gpu(), b);
  Outputs out{y.host(),  f.h ? h.host() : in.x, mean.host(), reciprocal.host(), dh.host(),
              dx.host(), dweight.host(),        dbias.host()};
  for (size_t i = 0; i < out.dweight.size(); ++i) {
    out.dweight[i] -= 1;  // they are added to: 1 and 2 were there before
    out.dbias[i] -= 2;
  }
  return out;
}

struct Expected {
  std::vector<double> y, h, mean, reciprocal, dh, dweight, dbias;
};

/// `stored_h`: what backward reads, which is rounded to the type of the residual stream.
Expected run_on_cpu(const Case& c, const Inputs& in, const std::vector<float>& stored_h) {
  const int64_t R = c.rows, D = c.columns;
  Expected out;
  out.y.resize(in.x.size()), out.h = out.dh = out.y;
  out.mean.resize(static_cast<size_t>(R)), out.reciprocal = out.mean;
  out.dweight.resize(in.weight.size()), out.dbias = out.dweight;
  const std::vector<double> x = converted<double>(in.x), residual = converted<double>(in.residual);
  const std::vector<double> dy = converted<double>(in.dy), dh_out = converted<double>(in.dh_out);
  const std::vector<double> weight = converted<double>(in.weight), bias = converted<double>(in.bias);
  kernels::NormForward<double> f;
  f.y = make_view(out.y.data(), R, D), f.h = make_view(out.h.data(), R, D);
  f.reciprocal = make_view(out.reciprocal.data(), R);
  f.x = make_view(x.data(), R, D), f.weight = make_view(weight.data(), D), f.epsilon = double{1e-5f};
  f.mean = c.layer ? make_view(out.mean.data(), R) : View<double, 1>();
  f.residual = c.residual ? make_view(residual.data(), R, D) : View<const double, 2>();
  f.bias = c.bias ? make_view(bias.data(), D) : View<const double, 1>();
  kernels::cpu::norm_forward(f);
  const std::vector<double> h = converted<double>(stored_h);
  kernels::NormBackward<double> b;
  b.dh = make_view(out.dh.data(), R, D), b.dweight = make_view(out.dweight.data(), D);
  b.dbias = c.bias ? make_view(out.dbias.data(), D) : View<double, 1>();
  b.dy = make_view(dy.data(), R, D), b.h = make_view(h.data(), R, D), b.weight = f.weight;
  b.dh_out = c.residual ? make_view(dh_out.data(), R, D) : View<const double, 2>();
  b.mean = f.mean, b.reciprocal = f.reciprocal;
  kernels::cpu::norm_backward(b);
  return out;
}

/// Elements of type S against the reference: float as tight as the CPU's test, bfloat16 as one rounding. Where the
/// formula cancels exactly (a single column), what is left is float rounding of its terms, of size `scale`, in both.
template <class S>
Comparison compare_as(const std::string& name, const std::vector<float>& found, const std::vector<double>& expected,
                      double scale) {
  const bool cancels = std::all_of(expected.begin(), expected.end(), [](double v) { return std::abs(v) < 1e-12; });
  if (std::is_same_v<S, float> || cancels) {
    return compare_scaled(name, found, expected, std::vector<double>(expected.size(), scale), kFloat32);
  }
  return compare_twice_naive(name, found, expected, rounded_to<S>(converted<float>(expected)), 1e-6);
}

template <class T, class X, class H>
void check_against_cpu(const Case& c) {
  INFO("(" << c.rows << ", " << c.columns << ") layer " << c.layer << " residual " << c.residual << " bias " << c.bias
           << " gap " << c.gap << " offset " << c.offset);
  const Inputs in = make_inputs<T, X, H>(c);
  const Outputs found = run_on_gpu<T, X, H>(c, in);
  const Expected expected = run_on_cpu(c, in, found.h);
  double highest = 0;
  for (const double r : expected.reciprocal) {
    highest = std::max(highest, r);
  }
  CHECK(compare_as<T>("y", found.y, expected.y, 4));
  CHECK(compare_as<H>("h", found.h, expected.h, 2));
  CHECK(compare("reciprocal", found.reciprocal, expected.reciprocal, kFloat32));
  if (c.layer) {
    CHECK(compare_scaled("mean", found.mean, expected.mean, std::vector<double>(expected.mean.size(), 2), kFloat32));
  }
  CHECK(compare_as<H>("dh", found.dh, expected.dh, 6 * highest + 2));
  CHECK(compare_as<X>("dx", found.dx, expected.dh, 6 * highest + 2));
  // Float sums of `rows` signed terms of order 1, onto 1 or 2.
  const double sums = 3 + 3 * std::sqrt(static_cast<double>(c.rows));
  CHECK(compare_as<float>("dweight", found.dweight, expected.dweight, sums));
  if (c.bias) {
    CHECK(compare_as<float>("dbias", found.dbias, expected.dbias, sums));
  }
}

using Types = std::tuple<std::tuple<float, float, float>, std::tuple<BFloat16, BFloat16, float>,
                         std::tuple<BFloat16, float, float>, std::tuple<BFloat16, BFloat16, BFloat16>>;

}  // namespace

TEMPLATE_LIST_TEST_CASE("norm on a GPU equals the CPU's", "[cuda][norm]", Types) {
  using T = std::tuple_element_t<0, TestType>;
  using X = std::tuple_element_t<1, TestType>;
  using H = std::tuple_element_t<2, TestType>;
  // Every width of a row in registers and its edges, widths that no pack divides, and rows that no block holds.
  for (const int64_t columns : {1,   5,   8,   15,  16,   24,   32,   64,   100,  128,  136,  256, 384,
                                512, 640, 768, 776, 1000, 1024, 1030, 1536, 2048, 4096, 8192, 8200}) {
    const int64_t rows = columns > 500 ? 5 : 37;
    check_against_cpu<T, X, H>({rows, columns, false, true, false});
    check_against_cpu<T, X, H>({rows, columns, true, columns % 3 == 0, true});
    check_against_cpu<T, X, H>({rows, columns, columns % 5 == 0, false, columns % 7 == 0});
  }
  for (const int64_t columns : {40, 256, 768}) {
    check_against_cpu<T, X, H>({columns == 256 ? 3001 : 301, columns, false, true, false});
    check_against_cpu<T, X, H>({1, columns, true, true, true});
    check_against_cpu<T, X, H>({0, columns, true, true, true});
    check_against_cpu<T, X, H>({33, columns, false, true, false, 8, 0});
    check_against_cpu<T, X, H>({33, columns, true, true, true, 3, 0});
    check_against_cpu<T, X, H>({33, columns, false, false, true, 8, 1});
  }
}

TEMPLATE_LIST_TEST_CASE("norm on a GPU has the same bits again", "[cuda][norm]", Types) {
  using T = std::tuple_element_t<0, TestType>;
  using X = std::tuple_element_t<1, TestType>;
  using H = std::tuple_element_t<2, TestType>;
  for (const int64_t columns : {20, 64, 256, 1024}) {
    const Case c{5000, columns, true, true, true};
    Inputs in = make_inputs<T, X, H>(c);
    const Outputs once = run_on_gpu<T, X, H>(c, in), again = run_on_gpu<T, X, H>(c, in);
    CHECK(same_bits("y", again.y, once.y));
    CHECK(same_bits("dh", again.dh, once.dh));
    CHECK(same_bits("dweight", again.dweight, once.dweight));
    CHECK(same_bits("dbias", again.dbias, once.dbias));
    in.dy[5] += 1;
    CHECK_FALSE(same_bits("dbias", run_on_gpu<T, X, H>(c, in).dbias, once.dbias));
  }
}

TEST_CASE("norm on a GPU does not cancel on rows far from zero", "[cuda][norm]") {
  for (const int64_t columns : {20, 256}) {
    const Case c{2, columns, true, false, false};
    Inputs in = make_inputs<float, float, float>(c);
    in.x = random_normal<float>(1, 2 * columns, 1, 4096);  // variance 1, mean 4096: in float, 2^-11 is one step
    const Outputs found = run_on_gpu<float, float, float>(c, in);
    const Expected expected = run_on_cpu(c, in, found.h);
    // The mean itself is off by up to half a step of 4096 in float.
    CHECK(compare_scaled("y", found.y, expected.y, std::vector<double>(found.y.size(), 1), {1e-3, 0}));
  }
}

TEST_CASE("norm on a GPU works in place and past 2^31 elements", "[cuda][norm][large]") {
  constexpr int64_t kRows = 4, kStride = (int64_t{1} << 30) + 8;
  const CudaSpace<BFloat16> space(kRows * kStride);
  for (const int64_t columns : {21, 256}) {
    const Case c{kRows, columns, false, false, false};
    const Inputs in = make_inputs<BFloat16, BFloat16, BFloat16>(c);
    const Outputs near = run_on_gpu<BFloat16, BFloat16, BFloat16>(c, in);
    const std::vector<BFloat16> x = stored_as<BFloat16>(in.x), dy = stored_as<BFloat16>(in.dy);
    std::vector<BFloat16> y(x.size()), dh(x.size());
    for (int64_t r = 0; r < kRows; ++r) {
      space.write(r * kStride, x.data() + r * columns, columns);
      space.write(r * kStride + 512, x.data() + r * columns, columns);
      space.write(r * kStride + 1024, dy.data() + r * columns, columns);
    }
    const auto far = [&](int64_t offset) {
      return View<BFloat16, 2>{space.data() + offset, {kRows, columns}, {kStride, 1}};
    };
    const CudaArray<float> weight(in.weight), reciprocal(kRows), dweight(in.weight);
    kernels::NormForward<BFloat16, BFloat16, BFloat16, float> f;
    f.y = far(0), f.x = far(0), f.weight = weight.cview(columns), f.reciprocal = reciprocal.view(kRows);
    kernels::cuda::norm_forward<BFloat16, BFloat16, BFloat16>(gpu(), f);
    kernels::NormBackward<BFloat16, BFloat16, BFloat16, float> b;
    b.dh = far(1024), b.dy = far(1024), b.h = far(512), b.weight = f.weight, b.dweight = dweight.view(columns);
    b.reciprocal = reciprocal.cview(kRows);
    kernels::cuda::norm_backward<BFloat16, BFloat16, BFloat16>(gpu(), b);
    for (int64_t r = 0; r < kRows; ++r) {
      space.read(r * kStride, y.data() + r * columns, columns);
      space.read(r * kStride + 1024, dh.data() + r * columns, columns);
    }
    CHECK(same_bits("y", as_float(y), near.y));
    CHECK(same_bits("dh", as_float(dh), near.dh));
  }
}

TEST_CASE("norm on a GPU refuses what does not fit", "[cuda][norm]") {
  kernels::NormForward<float, float, float, float> args;
  const CudaArray<float> some(12);
  args.y = some.view(3, 4);
  args.x = some.cview(3, 4);
  args.reciprocal = some.view(3);
  args.weight = some.cview(3);
  CHECK_THROWS_WITH((kernels::cuda::norm_forward<float, float, float>(gpu(), args)),
                    "norm_forward: weight holds 3 elements with stride 1, wanted 4 with stride 1");
  args.weight = some.cview(4);
  args.residual = some.cview(3, 4);
  CHECK_THROWS_WITH((kernels::cuda::norm_forward<float, float, float>(gpu(), args)),
                    "norm_forward: a residual needs h, to hold the sum");
}

}  // namespace blockstate::test
