// SPDX-License-Identifier: Apache-2.0
// Gradients of an op against central differences in double: for every subset of its outputs that a gradient may reach,
// for inputs and gradients that lie in memory in different ways, and for every single input that wants a gradient.
#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/autograd/variable.h"
#include "tests/support/fill.h"
#include "tests/support/gradcheck.h"

namespace blockstate::test {

/// How an activation lies in memory: by itself, as columns of wider rows, as steps of longer sequences.
enum class Layout { kPlain, kColumns, kSteps };

struct Leaf {
  std::string name;
  Shape shape;
  std::vector<double> value;
  bool activation = true;  ///< false: a parameter, which always lies by itself
};

inline Leaf activation(const std::string& name, const Shape& shape, uint64_t key) {
  return {name, shape, random_normal<double>(key, element_count(shape)), true};
}

inline Leaf parameter(const std::string& name, const Shape& shape, uint64_t key) {
  return {name, shape, random_normal<double>(key, element_count(shape), 0.7), false};
}

using Op = std::function<std::vector<Variable>(const std::vector<Variable>& inputs)>;

/// A tensor with these values, cut out of a larger one full of NaN where the layout asks for it.
inline Tensor laid_out(const Shape& shape, const std::vector<double>& values, Layout layout) {
  const Tensor plain = Tensor::from(shape, values);
  const int dimension = layout == Layout::kColumns ? static_cast<int>(shape.size()) - 1 : 1;
  if (layout == Layout::kPlain || shape.size() < 2) {
    return plain;
  }
  Shape larger = shape;
  larger[static_cast<size_t>(dimension)] += 3;
  const Tensor room = Tensor::from(larger, std::vector<double>(static_cast<size_t>(element_count(larger)),
                                                               std::numeric_limits<double>::quiet_NaN()));
  Tensor part = room.slice(dimension, 1, 1 + shape[static_cast<size_t>(dimension)]);
  part.copy_from(plain);
  return part;
}

inline std::vector<double> doubles_of(const Tensor& tensor) {
  const Tensor packed = tensor.packed();
  return {packed.data<double>(), packed.data<double>() + packed.elements()};
}

/// One op with its inputs, and the gradients that come back for gradients sent into the outputs in `reached` (a bit
/// an output); only inputs in `wanted` (a bit an input) want one.
class OpCheck {
 public:
  OpCheck(Op op, std::vector<Leaf> leaves) : op_(std::move(op)), leaves_(std::move(leaves)) {
    GradMode off(false);
    for (const Variable& output : op_(inputs(Layout::kPlain, 0))) {
      shapes_.push_back(output.defined() ? output.shape() : Shape());
      present_.push_back(output.defined());
      weights_.push_back(random_normal<double>(900 + shapes_.size(), output.defined() ? output.value().elements() : 0));
    }
  }

  size_t outputs() const { return shapes_.size(); }
  bool present(size_t output) const { return present_[output]; }

  std::vector<std::vector<double>> gradients(Layout layout, unsigned reached, unsigned wanted) const {
    const std::vector<Variable> in = inputs(layout, wanted);
    const std::vector<Variable> out = op_(in);
    std::vector<Variable> roots;
    std::vector<Tensor> grads;
    for (size_t i = 0; i < out.size(); ++i) {
      if (present_[i] && (reached >> i & 1)) {
        roots.push_back(out[i]);
        grads.push_back(laid_out(shapes_[i], weights_[i], layout));
      }
    }
    backward(roots, grads);
    std::vector<std::vector<double>> found;
    for (const Variable& leaf : in) {
      if (!leaf.requires_grad() || !leaf.grad().defined()) {
        found.emplace_back();
        continue;
      }
      require(leaf.grad().shape() == leaf.shape(), "a gradient of another shape");
      found.push_back(doubles_of(leaf.grad()));
    }
    return found;
  }

  /// Analytic (plain layout) against numeric gradients of sum(weight * output) over the outputs in `reached`.
  Comparison against_differences(unsigned reached) {
    const std::vector<std::vector<double>> analytic = gradients(Layout::kPlain, reached, ~0u);
    std::vector<GradientInput> list;
    for (size_t i = 0; i < leaves_.size(); ++i) {
      list.push_back({leaves_[i].name, &leaves_[i].value, &analytic[i]});
    }
    return gradcheck(list, [&] { return weighted_outputs(reached); });
  }

 private:
  std::vector<Variable> inputs(Layout layout, unsigned wanted) const {
    std::vector<Variable> in;
    for (size_t i = 0; i < leaves_.size(); ++i) {
      const Leaf& leaf = leaves_[i];
      in.emplace_back(laid_out(leaf.shape, leaf.value, leaf.activation ? layout : Layout::kPlain),
                      (wanted >> i & 1) != 0);
    }
    return in;
  }

  double weighted_outputs(unsigned reached) const {
    GradMode off(false);
    const std::vector<Variable> out = op_(inputs(Layout::kPlain, 0));
    double sum = 0;
    for (size_t i = 0; i < out.size(); ++i) {
      if (present_[i] && (reached >> i & 1)) {
        const std::vector<double> y = doubles_of(out[i].value());
        for (size_t j = 0; j < y.size(); ++j) {
          sum += y[j] * weights_[i][j];
        }
      }
    }
    return sum;
  }

  Op op_;
  std::vector<Leaf> leaves_;
  std::vector<Shape> shapes_;
  std::vector<bool> present_;
  std::vector<std::vector<double>> weights_;
};

}  // namespace blockstate::test
