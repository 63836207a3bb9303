// SPDX-License-Identifier: Apache-2.0
#include "core/nn/module.h"

#include "core/base/random.h"

namespace blockstate::nn {
namespace {

uint64_t name_key(uint64_t seed, const std::string& name) {
  uint64_t key = mix_key(seed, 0x696e6974);
  for (const char c : name) {
    key = mix_key(key, static_cast<unsigned char>(c));
  }
  return key;
}

}  // namespace

Initialiser Initialiser::child(const std::string& name) const {
  Initialiser below = *this;
  below.prefix_ += name + ".";
  return below;
}

Tensor Initialiser::generate(const std::string& name, const Shape& shape,
                             const std::function<double(const std::function<double()>& uniform)>& draw) const {
  RandomStream stream(name_key(seed_, prefix_ + name));
  const std::function<double()> unit = [&stream] { return stream.uniform(); };
  std::vector<double> drawn(static_cast<size_t>(element_count(shape)));
  for (double& value : drawn) {
    value = draw(unit);
  }
  return values(shape, drawn);
}

Tensor Initialiser::uniform(const std::string& name, const Shape& shape, double low, double high) const {
  return generate(name, shape, [&](const auto& unit) { return low + (high - low) * unit(); });
}

Tensor Initialiser::normal(const std::string& name, const Shape& shape, double deviation) const {
  RandomStream stream(name_key(seed_, prefix_ + name));
  std::vector<double> drawn(static_cast<size_t>(element_count(shape)));
  for (double& value : drawn) {
    value = deviation * stream.normal();
  }
  return values(shape, drawn);
}

Tensor Initialiser::constant(const Shape& shape, double value) const {
  return values(shape, std::vector<double>(static_cast<size_t>(element_count(shape)), value));
}

Tensor Initialiser::values(const Shape& shape, const std::vector<double>& given) const {
  return Tensor::from(shape, given).to(dtype_).to(device_);
}

std::vector<Parameter> Module::parameters() const {
  std::vector<Parameter> all;
  collect("", all);
  return all;
}

int64_t Module::parameter_count() const {
  int64_t count = 0;
  for (const Parameter& parameter : parameters()) {
    count += parameter.variable.value().elements();
  }
  return count;
}

Variable Module::add_parameter(const std::string& name, const Tensor& value, ParameterOptions options) {
  Variable variable(value, true);
  own_.push_back({name, variable, options});
  return variable;
}

void Module::collect(const std::string& prefix, std::vector<Parameter>& all) const {
  for (const Parameter& parameter : own_) {
    all.push_back({prefix + parameter.name, parameter.variable, parameter.options});
  }
  for (const Child& child : children_) {
    child.module->collect(prefix + child.name + ".", all);
  }
}

}  // namespace blockstate::nn
