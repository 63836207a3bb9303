// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <thread>

#include "core/autograd/ops.h"
#include "core/autograd/recompute.h"
#include "tests/core/op_check.h"

namespace blockstate {
namespace {

using Catch::Matchers::Contains;
using kernels::Activation;
using test::doubles_of;
using Values = std::vector<double>;

Variable leaf(const Values& values, bool requires_grad = true) {
  return Variable(Tensor::from({1, static_cast<int64_t>(values.size())}, values), requires_grad);
}

Variable random_leaf(const Shape& shape, uint64_t key, bool requires_grad = true) {
  return Variable(Tensor::from(shape, test::random_normal<double>(key, element_count(shape))), requires_grad);
}

Tensor row(const Values& values) { return Tensor::from({1, static_cast<int64_t>(values.size())}, values); }

}  // namespace

TEST_CASE("several roots with given gradients add up", "[autograd]") {
  const Variable x = random_leaf({2, 3}, 1);
  const Tensor first = Tensor::from({2, 3}, test::random_normal<double>(2, 6));
  const Tensor second = Tensor::from({2, 3}, test::random_normal<double>(3, 6));
  const auto gradient = [&](const Tensor& of_a, const Tensor& of_b) {
    const Variable input(x.value(), true);
    const Variable a = ops::activation(input, Activation::kTanh);
    const Variable b = ops::gated(a, input, Activation::kSilu);
    std::vector<Variable> roots;
    std::vector<Tensor> grads;
    for (const auto& [root, grad] : {std::pair{b, of_b}, std::pair{a, of_a}}) {
      if (grad.defined()) {
        roots.push_back(root);
        grads.push_back(grad);
      }
    }
    backward(roots, grads);
    return doubles_of(input.grad());
  };
  const Values both = gradient(first, second), a = gradient(first, {}), b = gradient({}, second);
  for (size_t i = 0; i < both.size(); ++i) {
    CHECK(both[i] == Approx(a[i] + b[i]).epsilon(1e-14));
  }
  // The same root twice, a root inside another's graph, and a root that is a leaf itself.
  const Variable y = ops::scale(x, 3);
  backward({y, y, x}, {first, second, first});
  const Values found = doubles_of(x.grad()), f = doubles_of(first), s = doubles_of(second);
  for (size_t i = 0; i < found.size(); ++i) {
    CHECK(found[i] == Approx(4 * f[i] + 3 * s[i]).epsilon(1e-14));
  }
}

TEST_CASE("an absent root gradient means ones, and what does not fit is refused", "[autograd]") {
  const Variable x = leaf({1, 2, 3});
  backward(ops::scale(x, 2));
  CHECK(doubles_of(x.grad()) == Values{2, 2, 2});
  const Variable constant(row({1, 2, 3}));
  backward({constant, ops::scale(x, 1)}, {Tensor(), row({1, 0, 0})});  // a root without a graph is skipped
  CHECK(doubles_of(x.grad()) == Values{3, 2, 2});
  CHECK_FALSE(constant.grad().defined());
  CHECK_THROWS_WITH(backward({ops::scale(x, 1)}, {row({1, 0})}), Contains("(1, 3)") && Contains("(1, 2)"));
  CHECK_THROWS_WITH(backward({ops::scale(x, 1)}, {}), Contains("1 roots") && Contains("0 gradients"));
}

TEST_CASE("a shared sub-graph is walked once with the sum of its gradients", "[autograd]") {
  int walks = 0;
  const Variable x = random_leaf({2, 3}, 4);
  const auto counted = [&](const Variable& v) {
    return record_one("counted", ops::scale(v.detach(), 2).value(), {v}, [&](const Tensor& dy) {
      ++walks;
      return std::vector<Tensor>{ops::scale(Variable(dy), 2).value()};
    });
  };
  const Variable y = counted(x);
  const Variable z = ops::gated(y, y, Activation::kSilu);
  const Variable long_way = ops::scale(ops::scale(ops::scale(y, 1), 1), 1);
  backward(ops::weighted_sum(ops::add(ops::add(z, y), long_way), {}));
  CHECK(walks == 1);

  test::OpCheck check(
      [](const std::vector<Variable>& in) {
        const Variable shared = ops::scale(in[0], 2);
        const Variable product = ops::gated(shared, shared, Activation::kSilu);
        return std::vector<Variable>{ops::add(ops::add(product, shared), ops::scale(ops::scale(shared, 1), 1))};
      },
      {test::activation("x", {2, 3}, 4)});
  CHECK(check.against_differences(1));
}

TEST_CASE("gradients that share memory are never written to", "[autograd]") {
  // add hands the same tensor to both inputs; a, then b, gets more from elsewhere.
  const Variable a = leaf({1, 2}), b = leaf({3, 4});
  const Tensor given = row({1, 10});
  const Variable sum = ops::add(a, b);
  backward({ops::add(ops::add(sum, a), ops::reshape(a, {1, 2}))}, {given});
  CHECK(doubles_of(a.grad()) == Values{3, 30});
  CHECK(doubles_of(b.grad()) == Values{1, 10});
  CHECK(doubles_of(given) == Values{1, 10});

  // Leaves keep the gradient they were given without a copy; a second walk must not write into it.
  const Variable c = leaf({5, 6}), d = leaf({7, 8});
  backward({ops::add(c, d)}, {given});
  const Tensor before = d.grad();
  backward({ops::add(c, c)}, {given});
  CHECK(doubles_of(c.grad()) == Values{3, 30});
  CHECK(doubles_of(d.grad()) == Values{1, 10});
  CHECK(doubles_of(before) == Values{1, 10});
  CHECK(doubles_of(given) == Values{1, 10});

  // Pieces of one tensor: the parts of a concatenation's gradient.
  const Variable e = leaf({1, 2}), f = leaf({3});
  const Tensor whole = row({1, 2, 3});
  backward({ops::concat({e, f}, 1), ops::scale(e, 1)}, {whole, row({10, 10})});
  CHECK(doubles_of(e.grad()) == Values{11, 12});
  CHECK(doubles_of(f.grad()) == Values{3});
  CHECK(doubles_of(whole) == Values{1, 2, 3});
}

TEST_CASE("what no gradient reaches gets none", "[autograd]") {
  const Variable x = leaf({1, 2}), unused = leaf({3, 4});
  const auto parts = ops::split(x, 1, {1, 1});
  const Variable aside = ops::scale(unused, 2);
  backward(parts[1]);
  CHECK(doubles_of(x.grad()) == Values{0, 1});
  CHECK_FALSE(unused.grad().defined());
  const Variable cut = ops::scale(ops::scale(unused, 2).detach(), 3);
  CHECK_FALSE(cut.requires_grad());
  Variable again = x;
  again.clear_grad();
  CHECK_FALSE(x.grad().defined());
}

TEST_CASE("a graph can be walked once, and gives its memory back", "[autograd]") {
  const Variable x = random_leaf({64, 1024}, 5);
  const int64_t before = memory_statistics({}).in_use;
  const Variable shared = ops::activation(x, Activation::kSilu);
  const Variable first = ops::weighted_sum(ops::activation(shared, Activation::kTanh), {});
  const Variable second = ops::weighted_sum(ops::scale(shared, 2), {});
  // `shared`, which the tanh saved too.
  CHECK(memory_statistics({}).in_use >= before + x.value().elements() * 8);
  backward(first);
  CHECK_THROWS_WITH(backward(first), Contains("weighted_sum") && Contains("already walked"));
  CHECK_THROWS_WITH(backward(second), Contains("activation") && Contains("already walked"));
  CHECK(grad_enabled());  // also after an Error
  // The gradient of x, `shared` itself, and what `second` holds of it: nothing that the walked nodes saved.
  Variable again = x;
  again.clear_grad();
  CHECK(memory_statistics({}).in_use < before + shared.value().elements() * 8 + 4096);
}

TEST_CASE("a long chain is walked and freed without deep recursion", "[autograd]") {
  Variable x = leaf({1});
  Variable y = x;
  for (int i = 0; i < 200'000; ++i) {
    y = ops::scale(y, i % 2 == 0 ? 2 : 0.5);
  }
  backward(y);
  CHECK(doubles_of(x.grad()) == Values{1});
  y = Variable();
  SUCCEED("freed");
}

TEST_CASE("recording can be turned off for a scope of one thread", "[autograd]") {
  const Variable x = leaf({1, 2});
  {
    GradMode off(false);
    CHECK_FALSE(grad_enabled());
    CHECK_FALSE(ops::scale(x, 2).requires_grad());
    {
      GradMode on(true);
      CHECK(ops::scale(x, 2).requires_grad());
    }
    CHECK_FALSE(grad_enabled());
    bool other = false;
    std::thread([&] { other = grad_enabled(); }).join();
    CHECK(other);
  }
  CHECK(grad_enabled());
  try {
    GradMode off(false);
    fail("stop");
  } catch (const Error&) {
  }
  CHECK(grad_enabled());

  // What an op saved is dropped at once where nothing is recorded.
  const auto saved = std::make_shared<int>(1);
  const auto make = [&] {
    return record_one("probe", row({1}), {x}, [saved](const Tensor& dy) { return std::vector<Tensor>{dy}; });
  };
  {
    GradMode off(false);
    const Variable plain = make();
    CHECK(saved.use_count() == 1);
  }
  const Variable kept = make();
  CHECK(saved.use_count() == 2);
  // Ops of a backward pass are not recorded.
  bool recorded = true;
  backward(record_one("probe", row({1}), {leaf({1})}, [&](const Tensor& dy) {
    recorded = ops::scale(leaf({1}), 1).requires_grad();
    return std::vector<Tensor>{dy};
  }));
  CHECK_FALSE(recorded);
}

TEST_CASE("a backward that gives too few gradients is named", "[autograd]") {
  const Variable x = leaf({1}), y = leaf({2});
  const Variable bad =
      record_one("two_inputs", row({1}), {x, y}, [](const Tensor& dy) { return std::vector<Tensor>{dy}; });
  CHECK_THROWS_WITH(backward(bad), Contains("two_inputs") && Contains("1 gradients for 2 inputs"));
}

}  // namespace blockstate
