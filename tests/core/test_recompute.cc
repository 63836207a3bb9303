// SPDX-License-Identifier: Apache-2.0
// A recomputed segment gives the same bits as a plain one: outputs, and gradients of inputs, carry and parameters.
#include <catch2/catch.hpp>

#include "core/autograd/ops.h"
#include "core/autograd/recompute.h"
#include "tests/core/op_check.h"

namespace blockstate {
namespace {

using kernels::Activation;
using test::doubles_of;

Variable random_leaf(const Shape& shape, uint64_t key, bool requires_grad = true) {
  return Variable(Tensor::from(shape, test::random_normal<double>(key, element_count(shape))), requires_grad);
}

constexpr int64_t kBatch = 2, kLength = 7, kWidth = 3;

/// norm -> linear -> convolution with carry -> dropout -> residual, with its parameters.
struct Block {
  Variable scale = random_leaf({kWidth}, 11), weight = random_leaf({kWidth, kWidth}, 12),
           taps = random_leaf({kWidth, 4}, 13);
  int runs = 0;

  NamedVariables operator()(const NamedVariables& in) {
    ++runs;
    const Variable& x = in[0].second;
    const Variable& carry = in[1].second;
    std::vector<int64_t> position, record;
    for (int64_t i = 0; i < kBatch * kLength; ++i) {
      position.push_back(i % kLength);
      record.push_back(i / kLength);
    }
    const Variable normed = ops::norm(x, {}, scale, {}, false, 1e-5).y;
    const ops::WithState conv = ops::causal_conv1d(ops::linear(normed, weight), taps, {}, carry, {}, true, true);
    const Variable dropped = ops::dropout(conv.y, Tensor::from({kBatch, kLength}, record),
                                          Tensor::from({kBatch, kLength}, position), 5, 0.3);
    return {{"y", ops::add(x, dropped)}, {"conv", conv.state}, {"x", x}};
  }

  std::vector<Variable> parameters() const { return {scale, weight, taps}; }
};

struct Outcome {
  std::vector<std::vector<double>> outputs, gradients;  // an absent gradient is empty
  int runs = 0;
};

/// Two blocks in a row (sharing parameters and carry); gradients into the outputs named in `reached`.
Outcome run(bool recomputed, const std::string& reached, bool x_wants = true, bool carry_there = true) {
  Block block;
  const Segment segment = [&](const NamedVariables& in) { return block(in); };
  const Variable x = random_leaf({kBatch, kLength, kWidth}, 1, x_wants);
  const Variable carry = carry_there ? random_leaf({kBatch, 3, kWidth}, 2) : Variable();
  const auto apply = [&](const NamedVariables& in) { return recomputed ? recompute(segment, in) : segment(in); };
  const NamedVariables middle = apply({{"x", x}, {"conv", carry}});
  const NamedVariables last = apply({{"x", middle[0].second}, {"conv", middle[1].second}});
  Outcome outcome;
  std::vector<Variable> roots;
  std::vector<Tensor> grads;
  uint64_t key = 70;
  for (const auto& [name, output] : last) {
    outcome.outputs.push_back(doubles_of(output.value()));
    if (reached.find(name) != std::string::npos) {
      roots.push_back(output);
      grads.push_back(random_leaf(output.shape(), ++key).value());
    }
  }
  backward(roots, grads);
  std::vector<Variable> leaves = block.parameters();
  leaves.push_back(x);
  leaves.push_back(carry);
  for (const Variable& leaf : leaves) {
    outcome.gradients.push_back(leaf.grad().defined() ? doubles_of(leaf.grad()) : std::vector<double>());
  }
  outcome.runs = block.runs;
  return outcome;
}

}  // namespace

TEST_CASE("recompute equals plain, whatever outputs a gradient reaches", "[recompute]") {
  for (const std::string reached : {"y", "conv", "x", "y conv", "y conv x"}) {
    for (const bool x_wants : {true, false}) {
      for (const bool carry_there : {true, false}) {
        CAPTURE(reached, x_wants, carry_there);
        const Outcome plain = run(false, reached, x_wants, carry_there);
        const Outcome again = run(true, reached, x_wants, carry_there);
        CHECK(again.outputs == plain.outputs);
        CHECK(again.gradients == plain.gradients);
        CHECK(plain.runs == 2);
        CHECK(again.runs == 4);
      }
    }
  }
}

TEST_CASE("recompute within recompute equals plain", "[recompute]") {
  const auto gradients = [](int depth) {
    Block block;
    Segment segment = [&](const NamedVariables& in) { return block(in); };
    for (int i = 0; i < depth; ++i) {
      segment = [inner = segment](const NamedVariables& in) { return recompute(inner, in); };
    }
    const Variable x = random_leaf({kBatch, kLength, kWidth}, 1), carry = random_leaf({kBatch, 3, kWidth}, 2);
    const NamedVariables out = segment({{"x", x}, {"conv", carry}});
    backward({out[0].second, out[1].second}, {Tensor(), Tensor()});
    return std::vector{doubles_of(x.grad()), doubles_of(carry.grad()), doubles_of(block.weight.grad())};
  };
  CHECK(gradients(1) == gradients(0));
  CHECK(gradients(3) == gradients(0));
}

TEST_CASE("recompute without recording is the segment itself", "[recompute]") {
  Block block;
  GradMode off(false);
  const NamedVariables out = recompute([&](const NamedVariables& in) { return block(in); },
                                       {{"x", random_leaf({kBatch, kLength, kWidth}, 1)}, {"conv", {}}});
  CHECK(block.runs == 1);
  CHECK_FALSE(out[0].second.requires_grad());
}

TEST_CASE("recompute keeps no activations", "[recompute]") {
  const Variable x = random_leaf({256, 1024}, 1);
  const int64_t tensor = x.value().elements() * 8;
  const Segment segment = [](const NamedVariables& in) {
    Variable y = in[0].second;
    for (int i = 0; i < 8; ++i) {
      y = ops::activation(y, Activation::kSilu);
    }
    return NamedVariables{{"y", y}};
  };
  const int64_t before = memory_statistics({}).in_use;
  const NamedVariables plain = segment({{"x", x}});
  CHECK(memory_statistics({}).in_use - before >= 8 * tensor);
  const int64_t middle = memory_statistics({}).in_use;
  const NamedVariables again = recompute(segment, {{"x", x}});
  CHECK(memory_statistics({}).in_use - middle <= tensor + 4096);
}

TEST_CASE("gradients of a recomputed segment add to what leaves hold", "[recompute]") {
  const Variable weight = random_leaf({kWidth, kWidth}, 3), x = random_leaf({2, kWidth}, 4);
  const auto sum = [&](bool recomputed) {
    Variable(weight).clear_grad();
    const Segment segment = [&](const NamedVariables& in) {
      return NamedVariables{{"y", ops::linear(in[0].second, weight)}};
    };
    // The weight is used before, inside and after the segment.
    const Variable h = ops::linear(x, weight);
    const NamedVariables middle = recomputed ? recompute(segment, {{"x", h}}) : segment({{"x", h}});
    backward(ops::weighted_sum(ops::linear(middle[0].second, weight), {}));
    return doubles_of(weight.grad());
  };
  CHECK(sum(true) == sum(false));
}

}  // namespace blockstate
