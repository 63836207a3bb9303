// SPDX-License-Identifier: Apache-2.0
// What the chunk-and-carry law is tested on: every sublayer and stacks of them, in any sizes, on any device.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "core/model/block_pattern.h"
#include "core/model/model.h"
#include "tests/nn/law.h"

namespace blockstate::test {

struct LawSizes {
  int64_t width = 8, heads = 2;
  int64_t mamba_state = 4, s4d_state = 6;
  int64_t window = 5, strict_window = 4;  ///< attention
  int64_t block = 4, block_states = 3;    ///< block-state layers: records start at multiples of `block`
};

/// Sublayers of every kind, by a name of our own.
inline model::ModelConfig law_config(const LawSizes& sizes) {
  model::ModelConfig config;
  config.d_model = sizes.width;
  const auto add = [&](const std::string& name, const std::string& type, auto settings) {
    config.sublayers[name] = {type, settings};
  };
  add("mamba", "mamba", nn::MambaConfig{.state = sizes.mamba_state});
  add("s4d", "s4d", nn::S4dConfig{.state = sizes.s4d_state});
  add("full", "attention", nn::AttentionConfig{.heads = sizes.heads});
  add("window", "attention", nn::AttentionConfig{.heads = sizes.heads, .window = sizes.window});
  add("strict", "attention",
      nn::AttentionConfig{
          .heads = sizes.heads, .window = sizes.strict_window, .sees_self = false, .position = nn::PositionKind::kT5});
  for (const std::string ssm : {"s4d", "mamba"}) {
    const auto hybrid = [&](nn::BlockStateVariant variant) {
      return nn::BlockStateConfig{
          .variant = variant, .ssm = ssm, .window = sizes.block, .states = sizes.block_states, .heads = sizes.heads};
    };
    add("sh_" + ssm, "block_state", hybrid(nn::BlockStateVariant::kSingleHead));
    add("mh_" + ssm, "block_state", hybrid(nn::BlockStateVariant::kMultiHead));
    add("mf_" + ssm, "block_state", hybrid(nn::BlockStateVariant::kMultiFilter));
  }
  return config;
}

/// Every sublayer, and stacks that mix them.
inline const std::vector<std::string>& law_subjects() {
  static const std::vector<std::string> names = {
      "mamba",  "s4d",    "full",     "window",   "strict",   "mlp",          "gated_mlp",        "sh_s4d",
      "mh_s4d", "mf_s4d", "sh_mamba", "mh_mamba", "mf_mamba", "mamba window", "s4d mlp mf_mamba", "full sh_s4d strict"};
  return names;
}

/// Sublayers that each add to the stream, as in a model but without its norms. One alone is the sublayer itself.
class LawStack : public nn::Sublayer {
 public:
  LawStack(const std::string& names, const LawSizes& sizes, const nn::Initialiser& init) {
    for (const std::string& name : model::expand_blocks({names})) {
      const std::string place = std::to_string(sublayers_.size());
      sublayers_.push_back(add_child(place, model::make_sublayer(law_config(sizes), name, 1, init.child(place))));
    }
  }
  Variable forward(const Variable& x, const nn::Sequence& sequence, const nn::Carry& carry) override {
    if (sublayers_.size() == 1) {
      return sublayers_[0]->forward(x, sequence, carry);
    }
    Variable stream = x;
    for (size_t i = 0; i < sublayers_.size(); ++i) {
      stream = ops::add(stream, sublayers_[i]->forward(stream, sequence, carry.child(std::to_string(i))));
    }
    return stream;
  }
  nn::MemoryClass memory_class() const override { return nn::MemoryClass::kGrowing; }
  int64_t stride() const override {
    int64_t common = 1;
    for (const nn::Sublayer* child : sublayers_) {
      common = std::lcm(common, child->stride());
    }
    return common;
  }
  int64_t carry_bytes(int64_t, DType) const override { return 0; }

 private:
  std::vector<nn::Sublayer*> sublayers_;
};

/// A subject by its name or names; `dtype` is of parameters and activations. Its parameters are moved off their special
/// initial values, so that no gradient is zero by accident.
inline Subject law_subject(const std::string& names, const LawSizes& sizes = {}, DType dtype = DType::kFloat64,
                           Device device = {}) {
  const auto stack = std::make_shared<LawStack>(names, sizes, nn::Initialiser(5, dtype, device));
  Subject subject;
  subject.forward = [stack](const Variable& x, const nn::Sequence& sequence, nn::CarryMap* carry) {
    return stack->forward(x, sequence, carry == nullptr ? nn::Carry() : nn::Carry(carry));
  };
  subject.parameters = stack->parameters();
  uint64_t key = 1000;
  for (const nn::Parameter& parameter : subject.parameters) {
    Tensor value = parameter.variable.value();
    std::vector<double> moved = values_of(value);
    const std::vector<double> by = random_normal<double>(key++, value.elements(), 0.05);
    std::transform(moved.begin(), moved.end(), by.begin(), moved.begin(), std::plus<>());
    value.copy_from(Tensor::from(value.shape(), moved).to(dtype));
  }
  parameters_changed();
  subject.module = stack;
  return subject;
}

inline Tensor random_input(int64_t B, int64_t L, int64_t D, uint64_t key, DType dtype = DType::kFloat64,
                           Device device = {}) {
  return Tensor::from({B, L, D}, shared_normal(key, B * L * D)).to(dtype).to(device);
}

/// Rows of L steps, each with records of the given lengths at the first multiples of `stride` that have room; padding
/// between and behind them.
inline nn::Sequence packed_sequence(const std::vector<std::vector<int64_t>>& rows, int64_t L, int64_t stride,
                                    Device device = {}) {
  const auto B = static_cast<int64_t>(rows.size());
  std::vector<int64_t> position(static_cast<size_t>(B * L), -1), record = position;
  int64_t records = 0;
  for (int64_t b = 0; b < B; ++b) {
    int64_t begin = 0;
    for (const int64_t length : rows[static_cast<size_t>(b)]) {
      require(begin + length <= L, "records do not fit in ", L, " steps");
      for (int64_t t = 0; t < length; ++t) {
        position[static_cast<size_t>(b * L + begin + t)] = t;
        record[static_cast<size_t>(b * L + begin + t)] = records;
      }
      ++records;
      begin += (length + stride - 1) / stride * stride;
    }
  }
  return nn::make_sequence(Tensor::from({B, L}, position), Tensor::from({B, L}, record), records, 0, device);
}

}  // namespace blockstate::test
