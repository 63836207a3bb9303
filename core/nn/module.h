// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/autograd/variable.h"

namespace blockstate::nn {

/// How the optimiser treats a parameter.
struct ParameterOptions {
  bool decay = true;             ///< false for biases, norm scales, A, D, dt
  std::optional<double> max_lr;  ///< learning rate is min(this, the base rate): S4's A, B and dt
};

struct Parameter {
  std::string name;  ///< "layers.0.mixer.in_proj.weight"
  Variable variable;
  ParameterOptions options;
};

/// Draws initial values. Each parameter's numbers are a function of the seed and its full name, so adding a layer does
/// not move the others'.
class Initialiser {
 public:
  /// `dtype` is that of parameters, float32 or float64.
  explicit Initialiser(uint64_t seed, DType dtype = DType::kFloat32, Device device = {})
      : seed_(seed), dtype_(dtype), device_(device) {}

  Initialiser child(const std::string& name) const;
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }

  Tensor uniform(const std::string& name, const Shape& shape, double low, double high) const;
  Tensor normal(const std::string& name, const Shape& shape, double deviation) const;
  Tensor constant(const Shape& shape, double value) const;
  Tensor values(const Shape& shape, const std::vector<double>& values) const;
  /// Each element from `draw`, given a function that gives uniform numbers in [0, 1).
  Tensor generate(const std::string& name, const Shape& shape,
                  const std::function<double(const std::function<double()>& uniform)>& draw) const;

 private:
  uint64_t seed_;
  DType dtype_;
  Device device_;
  std::string prefix_;
};

/// Something with named parameters and children.
class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  /// All parameters below this module, depth first in the order they were added.
  std::vector<Parameter> parameters() const;
  int64_t parameter_count() const;

 protected:
  Variable add_parameter(const std::string& name, const Tensor& value, ParameterOptions options = {});
  /// Keeps ownership; returns the child for the member that uses it.
  template <class M>
  M* add_child(const std::string& name, std::unique_ptr<M> child) {
    M* raw = child.get();
    children_.push_back({name, std::move(child)});
    return raw;
  }

 private:
  void collect(const std::string& prefix, std::vector<Parameter>& all) const;

  struct Child {
    std::string name;
    std::unique_ptr<Module> module;
  };
  std::vector<Parameter> own_;
  std::vector<Child> children_;
};

/// No decay: for biases, norm scales and the like.
inline ParameterOptions no_decay() { return {.decay = false, .max_lr = std::nullopt}; }

}  // namespace blockstate::nn
