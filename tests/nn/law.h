// SPDX-License-Identifier: Apache-2.0
// The chunk-and-carry law as a test: one pass against chunks with carry, forward, backward and through an optimiser's
// step. On any device: tensors stay where the subject's input lies, values are compared on the host.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/autograd/ops.h"
#include "core/nn/sublayer.h"
#include "core/train/optimizer.h"
#include "tests/support/fill.h"

namespace blockstate::test {

/// Something that obeys the law: (x, sequence, carry) -> y. `per_step`: y has one row a step, else one a record.
struct Subject {
  std::function<Variable(const Variable& x, const nn::Sequence& sequence, nn::CarryMap* carry)> forward;
  std::vector<nn::Parameter> parameters;
  bool per_step = true;
  std::shared_ptr<nn::Module> module;  ///< whose parameters they are; null: no optimiser's step is taken
};

/// What happens to the carry between two chunks.
enum class Handover { kWhole, kDetached, kZeroed, kShifted };

struct Outcome {
  std::map<std::string, std::vector<double>> tensors;  ///< outputs, carries and gradients by name
  std::map<std::string, std::vector<double>> stepped;  ///< parameters after an optimiser's step
};

inline std::vector<double> values_of(const Tensor& tensor) {
  const Tensor doubles = tensor.to(Device{}).to(DType::kFloat64).packed();
  return {doubles.data<double>(), doubles.data<double>() + doubles.elements()};
}

inline Tensor random_like(const Variable& like, uint64_t key) {
  return Tensor::from(like.shape(), shared_normal(key, like.value().elements()))
      .to(like.dtype())
      .to(like.value().device());
}

/// The step that parameters are compared after. Its epsilon is of the size of a clipped gradient's elements, so that
/// the step depends on how large they are and not on their signs alone.
inline train::OptimizerConfig law_step() {
  train::OptimizerConfig config;
  config.lr = 0.05;
  config.epsilon = 1e-2;
  return config;
}

/// The parameters after one step with the gradients that they hold, after which they are what they were.
inline std::map<std::string, std::vector<double>> stepped_parameters(const nn::Module& module) {
  const std::vector<nn::Parameter> parameters = module.parameters();
  std::vector<Tensor> before;
  for (const nn::Parameter& parameter : parameters) {
    before.push_back(parameter.variable.value().clone());
  }
  train::AdamW(module, law_step()).step(1);
  std::map<std::string, std::vector<double>> stepped;
  for (size_t i = 0; i < parameters.size(); ++i) {
    Tensor value = parameters[i].variable.value();
    stepped[parameters[i].name] = values_of(value);
    value.copy_from(before[i]);
  }
  parameters_changed();
  return stepped;
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
  if (subject.module != nullptr) {
    outcome.stepped = stepped_parameters(*subject.module);
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

/// Largest |a - b| of the stepped parameters in units of what gradients that obey the law to `law` allow; passes where
/// it is at most 1. A first step of AdamW moves a parameter by lr f(g), f(g) = g / (|g| + epsilon). Its slope is
/// epsilon / (|g| + epsilon)^2, and it never leaves (-1, 1). g is clipped: its scale is off by at most the norm's
/// relative error.
inline double step_distance(const Outcome& found, const Outcome& expected, double law, DType dtype,
                            std::string* worst = nullptr) {
  const train::OptimizerConfig config = law_step();
  const auto largest = [](const std::vector<double>& values) {
    double most = 0;
    for (const double value : values) {
      most = std::max(most, std::abs(value));
    }
    return most;
  };
  double squares = 0, squared_errors = 0;
  for (const auto& [name, stepped] : expected.stepped) {
    const std::vector<double>& grad = expected.tensors.at("d " + name);
    for (const double g : grad) {
      squares += g * g;
    }
    squared_errors += static_cast<double>(grad.size()) * std::pow(law * largest(grad), 2);
  }
  const double norm = std::sqrt(squares);
  const double scale = norm > config.clip ? config.clip / norm : 1;
  const double unit = dtype == DType::kFloat64 ? 0x1p-52 : 0x1p-23;
  double ratio = 0;
  for (const auto& [name, stepped] : expected.stepped) {
    const std::vector<double>& grad = expected.tensors.at("d " + name);
    const std::vector<double>& other = found.stepped.at(name);
    const double most = largest(grad);
    for (size_t i = 0; i < stepped.size(); ++i) {
      const double g = scale * std::abs(grad[i]);
      const double off = scale * law * most + g * std::sqrt(squared_errors) / norm;
      const double slope = config.epsilon / std::pow(std::max(0.0, g - off) + config.epsilon, 2);
      // Beside it both round: a few operations on numbers of the size of the parameter and of the step.
      const double allowed = config.lr * std::min(2.0, off * slope) + 4 * unit * (std::abs(stepped[i]) + config.lr);
      const double error = std::abs(other[i] - stepped[i]);
      const double part = std::isnan(error) ? HUGE_VAL : error / allowed;
      if (part > ratio) {
        ratio = part;
        if (worst != nullptr) {
          *worst = name;
        }
      }
    }
  }
  return ratio;
}

/// Where to cut L > 1 steps: `pieces` - 1 places drawn from `key`, and around one of them a chunk of a single step.
inline std::vector<int64_t> random_cuts(uint64_t key, int64_t L, int64_t pieces) {
  std::vector<int64_t> cuts = random_ids(key, pieces - 1, 1, L);
  cuts.push_back(cuts.front() > 1 ? cuts.front() - 1 : std::min<int64_t>(2, L - 1));
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  return cuts;
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
