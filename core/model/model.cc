// SPDX-License-Identifier: Apache-2.0
#include "core/model/model.h"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "core/autograd/ops.h"
#include "core/autograd/recompute.h"
#include "core/base/random.h"
#include "core/config/nearest.h"
#include "core/model/block_pattern.h"

namespace blockstate::model {

/// One pre-norm residual sublayer.
struct Model::Layer : public nn::Module {
  Layer(const ModelConfig& config, const std::string& name, int64_t residuals, const nn::Initialiser& init) {
    norm = add_child("norm", std::make_unique<nn::Norm>(config.d_model, config.norm, init.child("norm")));
    mixer = add_child("mixer", make_sublayer(config, name, residuals, init.child("mixer")));
  }

  /// The sublayer on a chunk; `prefix` names its part of the carry.
  Variable mix(const Variable& x, const nn::Sequence& sequence, nn::CarryMap* carry, const std::string& prefix) const;

  nn::Norm* norm;
  nn::Sublayer* mixer;
  Recompute recomputed = Recompute::kNone;
};

Variable Model::Layer::mix(const Variable& x, const nn::Sequence& sequence, nn::CarryMap* carry,
                           const std::string& prefix) const {
  if (recomputed == Recompute::kNone || !grad_enabled()) {
    return mixer->forward(x, sequence, carry == nullptr ? nn::Carry() : nn::Carry(carry, prefix));
  }
  NamedVariables inputs = {{"x", x}};
  if (carry != nullptr) {
    std::copy_if(carry->begin(), carry->end(), std::back_inserter(inputs),
                 [&](const auto& entry) { return entry.first.compare(0, prefix.size(), prefix) == 0; });
  }
  const Segment segment = [this, sequence, prefix, with_carry = carry != nullptr](const NamedVariables& in) {
    nn::CarryMap own(in.begin() + 1, in.end());
    NamedVariables out = {
        {"y", mixer->forward(in[0].second, sequence, with_carry ? nn::Carry(&own, prefix) : nn::Carry())}};
    out.insert(out.end(), own.begin(), own.end());
    return out;
  };
  const NamedVariables outputs = recompute(segment, inputs, recomputed == Recompute::kCheap);
  for (size_t i = 1; i < outputs.size(); ++i) {
    (*carry)[outputs[i].first] = outputs[i].second;
  }
  return outputs[0].second;
}

Model::Model(const ModelConfig& config, const ModelShape& shape, const nn::Initialiser& init, DType activations)
    : config_(config),
      shape_(shape),
      dtype_(init.dtype()),
      activations_(activations),
      device_(init.device()),
      names_(expand_blocks(config.blocks)) {
  const int64_t D = config.d_model;
  require(shape.outputs > 0, "the model's head has no outputs; is the list of classes empty?");
  if (shape.vocabulary > 0) {
    const int64_t rows = shape.vocabulary + (shape.start_token ? 1 : 0);
    embedding_ = add_parameter("embedding.weight", init.normal("embedding.weight", {rows, D}, 0.02), nn::no_decay());
  } else {
    require(shape.channels > 0, "the model's input has neither a vocabulary nor channels");
    frames_ = add_child("frames", std::make_unique<nn::Linear>(shape.channels, D, true, init.child("frames")));
  }
  for (size_t i = 0; i < names_.size(); ++i) {
    const std::string name = "layers." + std::to_string(i);
    layers_.push_back(add_child(
        name, std::make_unique<Layer>(config, names_[i], static_cast<int64_t>(names_.size()), init.child(name))));
    stride_ = std::lcm(stride_, layers_.back()->mixer->stride());
  }
  norm_ = add_child("norm", std::make_unique<nn::Norm>(D, config.norm, init.child("norm")));
  const bool tied = config.tie_embeddings && shape.head == HeadKind::kLanguageModel && embedding_.defined();
  if (shape.head == HeadKind::kClassify) {
    pooling_ = add_child("pooling", std::make_unique<nn::Pooling>(config.pooling, D, init.child("pooling")));
  }
  if (!tied) {
    const bool bias = shape.head != HeadKind::kLanguageModel;
    head_ = add_child("head", std::make_unique<nn::Linear>(D, shape.outputs, bias, init.child("head")));
  }
}

Variable Model::embed(const ModelInput& input) const {
  if (shape_.vocabulary > 0) {
    require(input.tokens.defined(), "this model reads tokens, but frames were given");
    return ops::embedding(input.tokens, embedding_);
  }
  require(input.frames.defined(), "this model reads frames, but tokens were given");
  require(input.frames.size(2) == shape_.channels, "this model reads ", shape_.channels,
          " numbers a step, the input has ", input.frames.size(2));
  return frames_->forward(Variable(input.frames));
}

std::pair<Variable, Variable> Model::stream(const ModelInput& input, nn::CarryMap* carry) const {
  Variable residual = embed(input);
  Variable branch;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const ops::Normed normed = branch.defined() ? layers_[i]->norm->forward(branch, residual, activations_)
                                                : layers_[i]->norm->forward(residual, {}, activations_);
    residual = normed.h;
    branch = layers_[i]->mix(normed.y, input.sequence, carry, "layers." + std::to_string(i) + ".");
    if (config_.dropout > 0 && input.sequence.training) {
      branch = ops::dropout(branch, input.sequence.record, input.sequence.position,
                            mix_key(input.sequence.random_key, i), config_.dropout);
    }
  }
  return {branch, residual};
}

Variable Model::features(const ModelInput& input, nn::CarryMap* carry) const {
  const auto [branch, residual] = stream(input, carry);
  return norm_->forward(branch, residual, activations_).y;
}

Variable Model::pooled(const Variable& x, const ModelInput& input, nn::CarryMap* carry) const {
  const nn::Carry all = carry == nullptr ? nn::Carry() : nn::Carry(carry);
  return pooling_->forward(x, input.sequence, all.child("pooling"));
}

Variable Model::forward(const ModelInput& input, nn::CarryMap* carry) const {
  const Variable x = features(input, carry);
  if (pooling_ != nullptr) {
    return head_->forward(pooled(x, input, carry));
  }
  if (head_ != nullptr) {
    return head_->forward(x);
  }
  return ops::linear(x, shape_.start_token ? ops::slice(embedding_, 0, 0, shape_.outputs) : embedding_);
}

void Model::run(const ModelInput& input, nn::CarryMap* carry) const {
  if (pooling_ != nullptr) {
    pooled(features(input, carry), input, carry);
  } else {
    stream(input, carry);
  }
}

void Model::set_recompute(Recompute what, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const std::string near = config::nearest(name, names_);
    require(std::find(names_.begin(), names_.end(), name) != names_.end(),
            "train.recompute_sublayers: model.blocks has no \"", name, "\"",
            near.empty() ? "" : join("; did you mean \"", near, "\"?"));
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    const bool chosen = names.empty() || std::find(names.begin(), names.end(), names_[i]) != names.end();
    layers_[i]->recomputed = chosen ? what : Recompute::kNone;
  }
}

std::vector<std::string> Model::growing_sublayers() const {
  std::vector<std::string> found;
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (layers_[i]->mixer->memory_class() == nn::MemoryClass::kGrowing) {
      found.push_back("layers." + std::to_string(i) + " (" + names_[i] + ")");
    }
  }
  return found;
}

std::vector<std::string> Model::whole_sublayers() const {
  std::vector<std::string> found;
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (layers_[i]->mixer->memory_class() == nn::MemoryClass::kWhole) {
      found.push_back("layers." + std::to_string(i) + " (" + names_[i] + ")");
    }
  }
  return found;
}

bool Model::steps_repeat() const {
  return std::all_of(layers_.begin(), layers_.end(), [](const Layer* layer) { return layer->mixer->steps_repeat(); });
}

int64_t Model::carry_bytes(int64_t length) const {
  int64_t bytes = 0;
  for (const Layer* layer : layers_) {
    bytes += layer->mixer->carry_bytes(length, activations_);
  }
  return bytes;
}

}  // namespace blockstate::model
