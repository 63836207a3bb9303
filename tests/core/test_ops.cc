// SPDX-License-Identifier: Apache-2.0
// Every op of core/autograd/ops.h against central differences, whatever outputs gradients reach and however its inputs
// lie in memory. Formulas are the kernels' tests' matter; here it is shapes, saved tensors, and who gets which
// gradient.
#include <catch2/catch.hpp>

#include "core/autograd/ops.h"
#include "tests/core/op_check.h"

namespace blockstate {
namespace {

using Catch::Matchers::Contains;
using kernels::Activation;
using test::activation;
using test::Layout;
using test::Leaf;
using test::OpCheck;
using test::parameter;
using Inputs = std::vector<Variable>;
using Outputs = std::vector<Variable>;

/// Two rows of 7 steps: a record in its 3rd step and one that starts at step 3; one that goes on and ends after 5.
const Tensor kPosition = Tensor::from<int64_t>({2, 7}, {3, 4, 5, 0, 1, 2, 3, 6, 7, 8, 9, 10, -1, -1});
const Tensor kRecord = Tensor::from<int64_t>({2, 7}, {0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, -1, -1});

void check(const test::Op& op, const std::vector<Leaf>& leaves) {
  OpCheck subject(op, leaves);
  const unsigned everything = (1u << subject.outputs()) - 1;
  for (unsigned reached = 1; reached <= everything; ++reached) {
    bool some = false;
    for (size_t i = 0; i < subject.outputs(); ++i) {
      some = some || (subject.present(i) && (reached >> i & 1));
    }
    if (!some) {
      continue;
    }
    CAPTURE(reached);
    CHECK(subject.against_differences(reached));
    const auto plain = subject.gradients(Layout::kPlain, reached, ~0u);
    for (const Layout layout : {Layout::kColumns, Layout::kSteps}) {
      const auto strided = subject.gradients(layout, reached, ~0u);
      for (size_t i = 0; i < leaves.size(); ++i) {
        CAPTURE(static_cast<int>(layout));
        CHECK(compare(leaves[i].name, strided[i], plain[i], test::kFloat64));
      }
    }
    for (size_t i = 0; i < leaves.size(); ++i) {
      const auto alone = subject.gradients(Layout::kPlain, reached, 1u << i);
      CHECK(compare(leaves[i].name + " alone", alone[i], plain[i], test::kFloat64));
      for (size_t j = 0; j < leaves.size(); ++j) {
        CHECK((j == i || alone[j].empty()));
      }
    }
  }
}

/// Values at least 0.05 away from the kink of relu.
Leaf off_zero(Leaf leaf) {
  for (double& x : leaf.value) {
    x += std::copysign(0.05, x);
  }
  return leaf;
}

}  // namespace

TEST_CASE("gradients of element-wise ops", "[ops]") {
  const Leaf a = off_zero(activation("a", {2, 4, 3}, 1)), b = off_zero(activation("b", {2, 4, 3}, 2));
  check([](const Inputs& in) { return Outputs{ops::add(in[0], in[1])}; }, {a, b});
  check([](const Inputs& in) { return Outputs{ops::scale(in[0], -1.75)}; }, {a});
  for (const Activation kind :
       {Activation::kIdentity, Activation::kRelu, Activation::kSilu, Activation::kGelu, Activation::kSigmoid,
        Activation::kTanh, Activation::kSoftplus, Activation::kNegativeExp}) {
    CAPTURE(static_cast<int>(kind));
    check([&](const Inputs& in) { return Outputs{ops::activation(in[0], kind)}; }, {a});
    check([&](const Inputs& in) { return Outputs{ops::gated(in[0], in[1], kind)}; }, {a, b});
  }
  check([](const Inputs& in) { return Outputs{ops::dropout(in[0], kRecord, kPosition, 77, 0.4)}; },
        {activation("x", {2, 7, 5}, 3)});
  const Variable x(Tensor::zeros({1, 2, 3}, DType::kFloat64), true);
  CHECK(ops::dropout(x, Tensor(), Tensor(), 1, 0).edge() == x.edge());
  CHECK_THROWS_WITH(ops::add(x, Variable(Tensor::zeros({2, 3}, DType::kFloat64))),
                    Contains("add") && Contains("(1, 2, 3)") && Contains("(2, 3)"));
}

TEST_CASE("gradients of ops on shapes", "[ops]") {
  const Leaf x = activation("x", {2, 6, 4}, 5);
  check([](const Inputs& in) { return Outputs{ops::reshape(in[0], {2, 3, -1})}; }, {x});
  check([](const Inputs& in) { return Outputs{ops::slice(in[0], 1, 2, 5)}; }, {x});
  check([](const Inputs& in) { return Outputs{ops::slice(in[0], -1, 0, 1)}; }, {x});
  check([](const Inputs& in) { return ops::split(in[0], 1, {1, 0, 5}); }, {x});
  check([](const Inputs& in) { return ops::split(in[0], 2, {3, 1}); }, {x});
  check(
      [](const Inputs& in) {
        return Outputs{ops::concat({in[0], {}, in[1]}, 1)};
      },
      {x, activation("y", {2, 2, 4}, 6)});
  check(
      [](const Inputs& in) {
        return Outputs{ops::concat({in[0], in[1], in[0]}, -1)};
      },
      {x, activation("y", {2, 6, 1}, 6)});
  check([](const Inputs& in) { return Outputs{ops::concat({{}, in[0]}, 1)}; }, {x});

  const Tensor end = Tensor::from<int64_t>({2}, {6, 2}), known = Tensor::from<int64_t>({2}, {100, 3});
  check([&](const Inputs& in) { return Outputs{ops::tail(in[0], in[1], end, known, 4)}; },
        {activation("past", {2, 3, 4}, 7), x});
  check([&](const Inputs& in) { return Outputs{ops::tail({}, in[0], end, known, 5)}; }, {x});

  const Variable v(Tensor::zeros({2, 3}, DType::kFloat64), true);
  CHECK_THROWS_WITH(ops::split(v, 1, {1, 1}), Contains("split"));
  CHECK_THROWS_WITH(ops::concat({{}, {}}, 0), Contains("concat"));
  CHECK_THROWS_AS(ops::concat({v, Variable(Tensor::zeros({3, 3}, DType::kFloat64))}, 1), Error);
}

TEST_CASE("gradients of linear maps and tables", "[ops]") {
  const Leaf x = activation("x", {2, 4, 3}, 8), weight = parameter("weight", {5, 3}, 9),
             bias = parameter("bias", {5}, 10);
  check([](const Inputs& in) { return Outputs{ops::linear(in[0], in[1], in[2])}; }, {x, weight, bias});
  check([](const Inputs& in) { return Outputs{ops::linear(in[0], in[1])}; }, {x, weight});
  check([](const Inputs& in) { return ops::linear_split(in[0], in[1], {2, 3}, in[2]); }, {x, weight, bias});
  check([](const Inputs& in) { return ops::linear_split(in[0], in[1], {2, 0, 3}); }, {x, weight});
  const Tensor ids = Tensor::from<int64_t>({2, 4}, {1, 0, -1, 3, 3, 3, 4, -1});
  check([&](const Inputs& in) { return Outputs{ops::embedding(ids, in[0])}; }, {parameter("table", {6, 3}, 11)});
  const Tensor bucket = Tensor::from<int64_t>({7}, {0, 1, 2, 2, 4, 4, 4});
  check([&](const Inputs& in) { return Outputs{ops::gather_buckets(in[0], bucket)}; },
        {parameter("table", {5, 2}, 12)});

  const Variable v(Tensor::zeros({2, 3}, DType::kFloat64), true), w(Tensor::zeros({5, 4}, DType::kFloat64), true);
  CHECK_THROWS_WITH(ops::linear(v, w), Contains("(2, 3)") && Contains("(5, 4)"));
  CHECK_THROWS_WITH(ops::linear_split(v, Variable(Tensor::zeros({5, 3}, DType::kFloat64)), {2, 2}),
                    Contains("4 columns") && Contains("5"));
}

TEST_CASE("gradients of norms", "[ops]") {
  const Leaf x = activation("x", {2, 4, 3}, 13), residual = activation("residual", {2, 4, 3}, 14);
  const Leaf weight = parameter("weight", {3}, 15), bias = parameter("bias", {3}, 16);
  const auto both = [](const ops::Normed& normed) { return Outputs{normed.y, normed.h}; };
  check([&](const Inputs& in) { return both(ops::norm(in[0], {}, in[1], {}, false, 1e-5)); }, {x, weight});
  check([&](const Inputs& in) { return both(ops::norm(in[0], in[1], in[2], {}, false, 1e-5)); }, {x, residual, weight});
  check([&](const Inputs& in) { return both(ops::norm(in[0], in[1], in[2], in[3], true, 1e-5)); },
        {x, residual, weight, bias});
  check([&](const Inputs& in) { return both(ops::norm(in[0], {}, in[1], in[2], true, 1e-5)); }, {x, weight, bias});
}

TEST_CASE("gradients of convolution and scans", "[ops]") {
  const auto both = [](const ops::WithState& result) { return Outputs{result.y, result.state}; };
  const Leaf x = activation("x", {2, 7, 3}, 17);
  const Leaf taps = parameter("weight", {3, 4}, 18), bias = parameter("bias", {3}, 19);
  for (const bool silu : {false, true}) {
    check([&](const Inputs& in) { return both(ops::causal_conv1d(in[0], in[1], in[2], in[3], kPosition, silu, true)); },
          {x, taps, bias, activation("initial", {2, 3, 3}, 20)});
    check([&](const Inputs& in) { return both(ops::causal_conv1d(in[0], in[1], {}, {}, {}, silu, false)); }, {x, taps});
  }

  Leaf A = parameter("A", {3, 4}, 21);
  for (double& a : A.value) {
    a = -std::exp(a);
  }
  const Leaf u = activation("u", {2, 7, 3}, 22), delta = activation("delta", {2, 7, 3}, 23);
  const Leaf B = activation("B", {2, 7, 4}, 24), C = activation("C", {2, 7, 4}, 25);
  check(
      [&](const Inputs& in) {
        return both(
            ops::selective_scan({in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7], in[8]}, kPosition, true));
      },
      {u, delta, A, B, C, parameter("D", {3}, 26), activation("z", {2, 7, 3}, 27), parameter("delta_bias", {3}, 28),
       parameter("initial", {2, 3, 4}, 29)});
  check(
      [&](const Inputs& in) {
        return both(ops::selective_scan({in[0], in[1], in[2], in[3], in[4], {}, {}, {}, {}}, {}, false));
      },
      {u, delta, A, B, C});

  Leaf a = parameter("a", {3, 2, 2}, 30);
  for (double& value : a.value) {
    value = 0.6 * std::tanh(value);  // |a| < 1
  }
  const Leaf c = parameter("c", {3, 2, 2}, 31);
  check([&](const Inputs& in) { return both(ops::diagonal_scan(in[0], in[1], in[2], in[3], in[4], kPosition, true)); },
        {u, a, c, parameter("D", {3}, 32), parameter("initial", {2, 3, 2, 2}, 33)});
  check([&](const Inputs& in) { return both(ops::diagonal_scan(in[0], in[1], in[2], {}, {}, {}, false)); }, {u, a, c});

  check(
      [](const Inputs& in) {
        const ops::Discretized system = ops::s4d_discretize(in[0], in[1], in[2], in[3], in[4]);
        return Outputs{system.a, system.c};
      },
      {parameter("log_dt", {3}, 34), parameter("log_real", {3, 2}, 35), parameter("imaginary", {3, 2}, 36),
       parameter("B", {3, 2, 2}, 37), parameter("C", {3, 2, 2}, 38)});
  check([](const Inputs& in) { return Outputs{ops::state_readout(in[0], in[1])}; },
        {activation("state", {2, 3, 4}, 39), parameter("weight", {5, 3, 4}, 40)});
}

TEST_CASE("gradients of attention and rotary positions", "[ops]") {
  // 8 keys, the first 3 of them from before the chunk; windows of 4, and one query that sees nothing.
  ops::AttentionRange range;
  range.begin = Tensor::from<int64_t>({2, 5}, {0, 1, 2, 3, 4, 0, 0, 3, 3, 3});
  range.end = Tensor::from<int64_t>({2, 5}, {4, 5, 6, 7, 8, 4, 0, 6, 7, 8});
  range.offset = 3;
  const Leaf q = activation("q", {2, 5, 2, 4}, 41), k = activation("k", {2, 8, 2, 4}, 42);
  const Leaf v = activation("v", {2, 8, 2, 4}, 43);
  check([&](const Inputs& in) { return Outputs{ops::attention(in[0], in[1], in[2], in[3], range, 0.5)}; },
        {q, k, v, parameter("bias", {2, 3}, 44)});
  check([&](const Inputs& in) { return Outputs{ops::attention(in[0], in[1], in[2], {}, range, 0.7)}; }, {q, k, v});
  check([](const Inputs& in) { return Outputs{ops::rotary(in[0], kPosition, 10000)}; },
        {activation("x", {2, 7, 2, 4}, 45)});
}

TEST_CASE("gradients of pooling and losses", "[ops]") {
  const Leaf x = activation("x", {2, 7, 3}, 46), weight = activation("weight", {2, 7}, 47);
  check([](const Inputs& in) { return Outputs{ops::pool(in[0], in[1], kRecord, 4)}; }, {x, weight});
  check(
      [](const Inputs& in) {
        return Outputs{ops::pool_weights(in[0], kRecord, Tensor::from<double>({3}, {0.5, -1, 2}))};
      },
      {weight});
  Leaf divisor = parameter("divisor", {3}, 48);
  for (double& d : divisor.value) {
    d = std::exp(d);
  }
  const Leaf rows = activation("rows", {3, 4}, 49);
  check([](const Inputs& in) { return Outputs{ops::divide_rows(in[0], in[1])}; }, {rows, divisor});
  check(
      [](const Inputs& in) {
        return Outputs{ops::scale_rows(in[0], Tensor::from<double>({3}, {2, 0, -1.5}))};
      },
      {rows});
  const Tensor targets = Tensor::from<int64_t>({3}, {2, -1, 0});
  for (const double smoothing : {0.0, 0.1}) {
    check([&](const Inputs& in) { return Outputs{ops::cross_entropy(in[0], targets, smoothing)}; }, {rows});
  }
  check([](const Inputs& in) { return Outputs{ops::weighted_sum(in[0], Tensor())}; }, {x});
  const Tensor constant = Tensor::from({2, 7, 3}, test::random_normal<double>(50, 42));
  check([&](const Inputs& in) { return Outputs{ops::weighted_sum(in[0], constant)}; }, {x});
  const Variable v(Tensor::zeros({3, 4}, DType::kFloat64), true);
  CHECK_THROWS_WITH(ops::cross_entropy(v, Tensor::zeros({2}, DType::kInt64), 0), Contains("(3, 4)") && Contains("(2)"));
}

TEST_CASE("the check itself fails for a wrong gradient", "[ops]") {
  const auto wrong = [](double factor) {
    return [factor](const Inputs& in) {
      return Outputs{record_one("square", ops::gated(in[0].detach(), in[0].detach(), Activation::kIdentity).value(), in,
                                [x = in[0], factor](const Tensor& dy) {
                                  GradMode on(true);
                                  Variable leaf(x.value(), true);
                                  backward({ops::gated(leaf, leaf, Activation::kIdentity)}, {dy});
                                  return std::vector<Tensor>{ops::scale(Variable(leaf.grad()), factor).value()};
                                })};
    };
  };
  CHECK(OpCheck(wrong(1), {activation("x", {2, 3}, 1)}).against_differences(1));
  CHECK_FALSE(OpCheck(wrong(1.00001), {activation("x", {2, 3}, 1)}).against_differences(1));
}

}  // namespace blockstate
