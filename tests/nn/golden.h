// SPDX-License-Identifier: Apache-2.0
// What the golden tests share: reading tests/golden, and setting a module's parameters to the oracle's.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/nn/module.h"
#include "core/train/safetensors.h"
#include "tests/support/compare.h"

namespace blockstate::test {

/// tests/golden/NAME.safetensors
inline train::NamedTensors golden(const std::string& name) {
  return train::SafetensorsFile(std::string(BLOCKSTATE_TEST_DATA) + "/golden/" + name + ".safetensors").read_all();
}

inline std::vector<double> doubles(const Tensor& tensor) {
  const Tensor values = tensor.to(DType::kFloat64).packed();
  return {values.data<double>(), values.data<double>() + values.elements()};
}

/// Sets each parameter to its golden tensor, in the parameter's type and shape (sizes of 1 may come or go). `map` says
/// the golden name of ours. Error unless every parameter is set.
inline void load_golden(const std::vector<nn::Parameter>& parameters, const train::NamedTensors& tensors,
                        const std::map<std::string, std::string>& map) {
  for (const nn::Parameter& parameter : parameters) {
    const auto name = map.find(parameter.name);
    require(name != map.end(), "no golden name for the parameter ", parameter.name);
    Tensor target = parameter.variable.value();
    target.copy_from(tensors.at(name->second).to(target.dtype()).reshape(target.shape()));
  }
}

/// |found - expected| against the size of the whole tensor: rel times its largest |expected|.
inline Comparison near(const std::string& name, const Tensor& found, const Tensor& expected, double rel) {
  const std::vector<double> wanted = doubles(expected);
  double largest = 0;
  for (const double value : wanted) {
    largest = std::max(largest, std::abs(value));
  }
  return compare(name, doubles(found), wanted, {0, rel * largest});
}

}  // namespace blockstate::test
