// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "kernels/norm.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradcheck.h"
#include "tests/support/guard_buffer.h"
#include "tests/support/sparse_buffer.h"
#include "tests/support/threads.h"

namespace blockstate::test {
namespace {

struct Options {
  bool layer, residual, bias;
};
constexpr Options kOptions[] = {{false, false, false}, {false, true, true}, {true, false, true}, {true, true, false}};

// Inputs and outputs of both directions, in guarded rows.
template <class T>
struct Problem {
  int64_t rows, columns;
  Options options;
  GuardBuffer<T, 2> x, residual, h, y, dy, dh_out, dh;
  GuardBuffer<T, 1> weight, bias, mean, reciprocal, dweight, dbias;

  Problem(int64_t rows_given, int64_t columns_given, int64_t gap, Options given)
      : rows(rows_given),
        columns(columns_given),
        options(given),
        x({rows, columns}, gap),
        residual({rows, columns}, gap),
        h({rows, columns}, gap),
        y({rows, columns}, gap),
        dy({rows, columns}, gap),
        dh_out({rows, columns}, gap),
        dh({rows, columns}, gap),
        weight({columns}),
        bias({columns}),
        mean({rows}),
        reciprocal({rows}),
        dweight({columns}),
        dbias({columns}) {
    x.assign(random_normal<T>(1, rows * columns, 2, 0.5));
    residual.assign(random_normal<T>(2, rows * columns));
    dy.assign(random_normal<T>(3, rows * columns));
    dh_out.assign(random_normal<T>(4, rows * columns));
    weight.assign(random_normal<T>(5, columns, 0.3, 1));
    bias.assign(random_normal<T>(6, columns));
    dweight.assign(random_normal<T>(7, columns));
    dbias.assign(random_normal<T>(8, columns));
  }

  void forward() {
    kernels::NormForward<T> args;
    args.y = y.view();
    args.x = x.cview();
    args.weight = weight.cview();
    args.reciprocal = reciprocal.view();
    if (options.layer) {
      args.mean = mean.view();
    }
    if (options.residual) {
      args.residual = residual.cview();
      args.h = h.view();
    }
    if (options.bias) {
      args.bias = bias.cview();
    }
    kernels::cpu::norm_forward(args);
  }

  View<const T, 2> normalised_input() const { return options.residual ? h.cview() : x.cview(); }

  void backward() {
    kernels::NormBackward<T> args;
    args.dh = dh.view();
    args.dweight = dweight.view();
    if (options.bias) {
      args.dbias = dbias.view();
    }
    args.dy = dy.cview();
    if (options.residual) {
      args.dh_out = dh_out.cview();
    }
    args.h = normalised_input();
    if (options.layer) {
      args.mean = mean.cview();
    }
    args.reciprocal = reciprocal.cview();
    args.weight = weight.cview();
    kernels::cpu::norm_backward(args);
  }
};

// The formulas of the header, in double.
struct Reference {
  std::vector<double> h, y, mean, reciprocal, normalised;
  template <class T>
  explicit Reference(const Problem<T>& p) {
    for (int64_t r = 0; r < p.rows; ++r) {
      double m = 0, squares = 0;
      for (int64_t c = 0; c < p.columns; ++c) {
        h.push_back(double{p.x.view()(r, c)} + (p.options.residual ? double{p.residual.view()(r, c)} : 0));
        m += h.back() / static_cast<double>(p.columns);
      }
      m = p.options.layer ? m : 0;
      const size_t row = static_cast<size_t>(r * p.columns);
      for (size_t c = 0; c < static_cast<size_t>(p.columns); ++c) {
        squares += (h[row + c] - m) * (h[row + c] - m) / static_cast<double>(p.columns);
      }
      mean.push_back(m);
      reciprocal.push_back(1 / std::sqrt(squares + double{T(1e-5)}));
      for (int64_t c = 0; c < p.columns; ++c) {
        normalised.push_back((h[row + static_cast<size_t>(c)] - m) * reciprocal.back());
        y.push_back(p.weight.view()(c) * normalised.back() + (p.options.bias ? double{p.bias.view()(c)} : 0));
      }
    }
  }
};

}  // namespace

TEMPLATE_TEST_CASE("norm_forward equals the formula", "[norm]", float, double) {
  using T = TestType;
  for (const Options& options : kOptions) {
    for (const auto& [rows, columns, gap] : {std::array<int64_t, 3>{1, 1, 0},
                                             {3, 15, 2},
                                             {2, 16, 0},
                                             {5, 17, 1},
                                             {7, 37, 3},
                                             {0, 4, 0},
                                             {700, 64, 0},
                                             {2, 40009, 0}}) {
      INFO("layer " << options.layer << " residual " << options.residual << " (" << rows << ", " << columns << ")");
      Problem<T> p(rows, columns, gap, options);
      p.forward();
      const Reference expected(p);
      CHECK(p.y.fully_written("y"));
      CHECK(p.reciprocal.fully_written("reciprocal"));
      // y is near 0 where h is near the mean: errors are those of h * reciprocal, of order 1.
      CHECK(compare_scaled("y", p.y.view(), expected.y, std::vector<double>(expected.y.size(), 4), tolerance_of<T>()));
      CHECK(compare("reciprocal", p.reciprocal.view(), expected.reciprocal, tolerance_of<T>()));
      if (options.layer) {
        CHECK(compare_scaled("mean", p.mean.view(), expected.mean, std::vector<double>(expected.mean.size(), 2),
                             tolerance_of<T>()));
      }
      if (options.residual) {
        CHECK(p.h.fully_written("h"));
        CHECK(compare("h", p.h.view(), expected.h, tolerance_of<T>()));
      }
    }
  }
}

TEMPLATE_TEST_CASE("norm_backward equals the formula, adds to the weights", "[norm]", float, double) {
  using T = TestType;
  for (const Options& options : kOptions) {
    for (const auto& [rows, columns, gap] :
         {std::array<int64_t, 3>{1, 1, 0}, {3, 15, 2}, {2, 16, 0}, {5, 17, 1}, {0, 4, 0}, {1300, 37, 3}}) {
      INFO("layer " << options.layer << " residual " << options.residual << " (" << rows << ", " << columns << ")");
      Problem<T> p(rows, columns, gap, options);
      p.forward();
      const Reference forward(p);
      std::vector<double> dh, dweight, dbias, scale(static_cast<size_t>(columns)), bias_scale(scale);
      for (int64_t c = 0; c < columns; ++c) {
        dweight.push_back(p.dweight.view()(c));
        dbias.push_back(p.dbias.view()(c));
      }
      for (int64_t r = 0; r < rows; ++r) {
        double mean_g = 0, mean_gn = 0;
        for (int64_t c = 0; c < columns; ++c) {
          const double dy = p.dy.view()(r, c), n = forward.normalised[static_cast<size_t>(r * columns + c)];
          const size_t at = static_cast<size_t>(c);
          mean_g += dy * p.weight.view()(c) / static_cast<double>(columns);
          mean_gn += dy * p.weight.view()(c) * n / static_cast<double>(columns);
          dweight[at] += dy * n;
          dbias[at] += dy;
          scale[at] += std::abs(dy * n) + std::abs(dy);
          bias_scale[at] += std::abs(dy);
        }
        mean_g = options.layer ? mean_g : 0;
        for (int64_t c = 0; c < columns; ++c) {
          const double n = forward.normalised[static_cast<size_t>(r * columns + c)];
          const double g = p.dy.view()(r, c) * double{p.weight.view()(c)};
          dh.push_back(forward.reciprocal[static_cast<size_t>(r)] * (g - mean_g - n * mean_gn) +
                       (options.residual ? double{p.dh_out.view()(r, c)} : 0));
        }
      }
      p.backward();
      CHECK(p.dh.fully_written("dh"));
      // A single column cancels exactly in the formula; its terms are of the order of the reciprocal.
      std::vector<double> terms;
      for (int64_t i = 0; i < rows * columns; ++i) {
        terms.push_back(6 * forward.reciprocal[static_cast<size_t>(i / columns)] + 2);
      }
      CHECK(compare_scaled("dh", p.dh.view(), dh, terms, tolerance_of<T>()));
      CHECK(compare_scaled("dweight", p.dweight.view(), dweight, scale, tolerance_of<T>()));
      CHECK(p.dweight.bands_intact("dweight"));
      if (options.bias) {
        CHECK(compare_scaled("dbias", p.dbias.view(), dbias, bias_scale, tolerance_of<T>()));
      }
    }
  }
}

TEST_CASE("norm gradients agree with differences", "[norm]") {
  for (const Options& options : kOptions) {
    INFO("layer " << options.layer << " residual " << options.residual << " bias " << options.bias);
    constexpr int64_t kRows = 3, kColumns = 5;
    Problem<double> p(kRows, kColumns, 0, options);
    std::vector<double> x = p.x.elements(), weight = p.weight.elements(), bias = p.bias.elements();
    const std::vector<double> dy = p.dy.elements(), dh_out = p.dh_out.elements();
    const auto loss = [&] {
      p.x.assign(x), p.weight.assign(weight), p.bias.assign(bias);
      p.forward();
      double sum = 0;
      const std::vector<double> y = p.y.elements(), h = elements_of(p.normalised_input());
      for (size_t i = 0; i < y.size(); ++i) {
        sum += dy[i] * y[i] + (options.residual ? dh_out[i] * h[i] : 0);
      }
      return sum;
    };
    loss();
    p.dweight.assign(std::vector<double>(kColumns)), p.dbias.assign(std::vector<double>(kColumns));
    p.backward();
    const std::vector<double> dx = p.dh.elements(), dweight = p.dweight.elements(), dbias = p.dbias.elements();
    std::vector<GradientInput> inputs{{"x", &x, &dx}, {"weight", &weight, &dweight}};
    if (options.bias) {
      inputs.push_back({"bias", &bias, &dbias});
    }
    CHECK(gradcheck(inputs, loss));
  }
}

TEST_CASE("scaling the input leaves a norm unchanged", "[norm]") {
  for (const bool layer : {false, true}) {
    Problem<double> p(4, 64, 0, {layer, false, false});
    p.forward();
    const std::vector<double> before = p.y.elements();
    std::vector<double> x = p.x.elements();
    for (double& value : x) {
      value *= 1e6;
    }
    p.x.assign(x);
    p.forward();
    CHECK(compare("y", p.y.view(), before, {1e-4, 0}));  // up to epsilon = 1e-5 beside a mean square of 4
  }
}

TEST_CASE("LayerNorm does not cancel on rows far from zero", "[norm]") {
  Problem<float> p(2, 256, 0, {true, false, false});
  p.x.assign(random_normal<float>(1, 512, 1, 4096));  // variance 1, mean 4096: in float, 2^-11 is one step
  p.forward();
  const Reference expected(p);
  // The mean itself is off by up to half a step of 4096 in float.
  CHECK(compare_scaled("y", p.y.view(), expected.y, std::vector<double>(512, 1), {1e-3, 0}));
}

TEST_CASE("norms have the same bits on one and on more threads", "[norm]") {
  std::array<std::vector<float>, 2> y, dh, dweight, dbias;
  for (size_t run = 0; run < 2; ++run) {
    const Threads threads(run == 0 ? 1 : 3);
    Problem<float> p(2500, 67, 1, {true, true, true});
    p.forward();
    p.backward();
    y[run] = p.y.elements(), dh[run] = p.dh.elements();
    dweight[run] = p.dweight.elements(), dbias[run] = p.dbias.elements();
  }
  CHECK(same_bits("y", y[1], y[0]));
  CHECK(same_bits("dh", dh[1], dh[0]));
  CHECK(same_bits("dweight", dweight[1], dweight[0]));
  CHECK(same_bits("dbias", dbias[1], dbias[0]));
}

TEST_CASE("norms work in place and past 2^31 elements", "[norm]") {
  constexpr int64_t kRows = 4, kColumns = 21, kStride = int64_t{1} << 30;
  Problem<float> p(kRows, kColumns, 0, {false, false, false});
  p.forward();
  SparseBuffer<float> far(kRows * kStride);
  const View<float, 2> x{far.data(), {kRows, kColumns}, {kStride, 1}};
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t c = 0; c < kColumns; ++c) {
      x(r, c) = p.x.view()(r, c);
    }
  }
  kernels::NormForward<float> args;
  args.y = x;
  args.x = x;
  args.weight = p.weight.cview();
  args.reciprocal = p.reciprocal.view();
  kernels::cpu::norm_forward(args);
  CHECK(same_bits("y", x, p.y.elements()));
}

TEST_CASE("norms refuse what does not fit", "[norm]") {
  Problem<float> p(3, 4, 0, {false, true, false});
  kernels::NormForward<float> args;
  args.y = p.y.view();
  args.x = p.x.cview();
  args.reciprocal = p.reciprocal.view();
  args.weight = p.reciprocal.cview();
  CHECK_THROWS_WITH(kernels::cpu::norm_forward(args),
                    "norm_forward: weight holds 3 elements with stride 1, wanted 4 with stride 1");
  args.weight = p.weight.cview();
  args.residual = p.residual.cview();
  CHECK_THROWS_WITH(kernels::cpu::norm_forward(args), "norm_forward: a residual needs h, to hold the sum");
}

}  // namespace blockstate::test
