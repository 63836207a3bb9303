// SPDX-License-Identifier: Apache-2.0
// The chunk-and-carry law as a test: one pass against chunks with carry, forward and backward.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/autograd/ops.h"
#include "core/nn/sublayer.h"
#include "tests/support/fill.h"

namespace blockstate::test {

/// Something that obeys the law: (x, sequence, carry) -> y. `per_step`: y has one row a step, else one a record.
struct Subject {
  std::function<Variable(const Variable& x, const nn::Sequence& sequence, nn::CarryMap* carry)> forward;
  std::vector<nn::Parameter> parameters;
  bool per_step = true;
};

/// What happens to the carry between two chunks.
enum class Handover { kWhole, kDetached, kZeroed, kShifted };

struct Outcome {
  std::map<std::string, std::vector<double>> tensors;  ///< outputs, carries and gradients by name
};

inline std::vector<double> values_of(const Tensor& tensor) {
  const Tensor doubles = tensor.to(DType::kFloat64).packed();
  return {doubles.data<double>(), doubles.data<double>() + doubles.elements()};
}

inline Tensor random_like(const Variable& like, uint64_t key) {
  return Tensor::from(like.shape(), random_normal<double>(key, like.value().elements())).to(like.dtype());
}

/// Runs x (B, L, D) through the subject in pieces that end at `cuts`, from the carry `start` (tensors, possibly none),
/// sends fixed random gradients into every output and into the final carry, and collects everything that must agree.
inline Outcome run_chunks(const Subject& subject, const Tensor& x, const nn::Sequence& sequence,
                          std::vector<int64_t> cuts, const std::map<std::string, Tensor>& start,
                          Handover handover = Handover::kWhole) {
  for (const nn::Parameter& parameter : subject.parameters) {
    Variable variable = parameter.variable;
    variable.clear_grad();
  }
  Outcome outcome;
  const int64_t L = sequence.length();
  cuts.push_back(L);
  Variable input(x, true);
  nn::CarryMap carry;
  std::map<std::string, Variable> leaves;
  for (const auto& [name, tensor] : start) {
    leaves[name] = Variable(tensor, true);
    carry[name] = leaves[name];
  }
  std::vector<Variable> roots;
  std::vector<Tensor> grads;
  std::vector<Variable> outputs;
  int64_t begin = 0;
  for (const int64_t end : cuts) {
    if (begin > 0 && handover != Handover::kWhole) {
      for (auto& [name, value] : carry) {
        Tensor changed = value.value().clone();
        if (handover == Handover::kZeroed) {
          changed.fill_zero();
        }
        value = Variable(changed);
      }
    }
    if (begin > 0 && handover == Handover::kShifted) {
      // The state one step too early, with this chunk's positions.
      nn::CarryMap early;
      for (const auto& [name, tensor] : start) {
        early[name] = leaves[name];
      }
      subject.forward(ops::slice(input, 1, 0, begin - 1), sequence.slice(0, begin - 1), &early);
      for (auto& [name, value] : carry) {
        const auto found = early.find(name);
        if (found != early.end() && found->second.shape() == value.shape()) {
          value = found->second;
        }
      }
    }
    const Variable y = subject.forward(ops::slice(input, 1, begin, end), sequence.slice(begin, end), &carry);
    if (subject.per_step) {
      outputs.push_back(y);
      roots.push_back(y);
      grads.emplace_back();  // filled in below, with the same numbers whatever the cuts
    } else if (end == L) {
      outputs.push_back(y);
      roots.push_back(y);
      grads.push_back(random_like(y, 7));
    }
    begin = end;
  }
  if (subject.per_step) {
    const Variable whole = ops::concat(outputs, 1).detach();
    const Tensor grad = random_like(whole, 99);
    int64_t at = 0;
    for (size_t i = 0; i < outputs.size(); ++i) {
      const int64_t steps = outputs[i].size(1);
      grads[i] = grad.slice(1, at, at + steps).packed();
      at += steps;
    }
    outcome.tensors["y"] = values_of(whole.value());
  } else {
    outcome.tensors["y"] = values_of(outputs.back().value());
  }
  uint64_t key = 500;
  for (const auto& [name, value] : carry) {
    outcome.tensors["carry " + name] = values_of(value.value());
    if (value.requires_grad()) {
      roots.push_back(value);
      grads.push_back(random_like(value, key));
    }
    ++key;
  }
  backward(roots, grads);
  const auto keep_grad = [&](const std::string& name, const Variable& leaf) {
    outcome.tensors["d " + name] = leaf.grad().defined()
                                       ? values_of(leaf.grad())
                                       : std::vector<double>(static_cast<size_t>(leaf.value().elements()), 0.0);
  };
  keep_grad("x", input);
  for (const auto& [name, leaf] : leaves) {
    keep_grad("start " + name, leaf);
  }
  for (const nn::Parameter& parameter : subject.parameters) {
    keep_grad(parameter.name, parameter.variable);
  }
  return outcome;
}

/// Largest |a - b| of any tensor relative to that tensor's largest |b|; infinite where a tensor is missing, has another
/// size or is not finite. `worst` receives its name.
inline double distance(const Outcome& found, const Outcome& expected, std::string* worst = nullptr) {
  double largest = 0;
  for (const auto& [name, wanted] : expected.tensors) {
    const auto at = found.tensors.find(name);
    double error = 0, scale = 1e-30;
    if (at == found.tensors.end() || at->second.size() != wanted.size()) {
      error = HUGE_VAL;
    } else {
      for (size_t i = 0; i < wanted.size(); ++i) {
        const double difference = std::abs(at->second[i] - wanted[i]);
        error = std::isnan(difference) ? HUGE_VAL : std::max(error, difference);
        scale = std::max(scale, std::abs(wanted[i]));
      }
    }
    if (error / scale > largest) {
      largest = error / scale;
      if (worst != nullptr) {
        *worst = name;
      }
    }
  }
  return largest;
}

/// The carry after running the subject over x from nothing.
inline std::map<std::string, Tensor> carry_after(const Subject& subject, const Tensor& x,
                                                 const nn::Sequence& sequence) {
  nn::CarryMap carry;
  GradMode off(false);
  subject.forward(Variable(x), sequence, &carry);
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, value] : carry) {
    tensors[name] = value.value();
  }
  return tensors;
}

}  // namespace blockstate::test
