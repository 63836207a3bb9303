// SPDX-License-Identifier: Apache-2.0
#include "core/nn/mlp.h"

#include "core/autograd/ops.h"

namespace blockstate::nn {

void MlpConfig::visit(config::Visitor& v) {
  v.field("hidden", hidden, "hidden width; 0: 4 d_model, or for gated_mlp 8/3 d_model up to a multiple of 8",
          config::at_least(0));
}

Mlp::Mlp(const MlpConfig& config, int64_t d_model, double output_gain, const Initialiser& init) {
  const int64_t hidden = config.hidden > 0 ? config.hidden : 4 * d_model;
  fc1_ = add_child("fc1", std::make_unique<Linear>(d_model, hidden, true, init.child("fc1")));
  fc2_ = add_child("fc2", std::make_unique<Linear>(hidden, d_model, true, init.child("fc2"), output_gain));
}

Variable Mlp::forward(const Variable& x, const Sequence&, const Carry&) {
  return fc2_->forward(ops::activation(fc1_->forward(x), kernels::Activation::kGelu));
}

GatedMlp::GatedMlp(const MlpConfig& config, int64_t d_model, double output_gain, const Initialiser& init)
    : hidden_(config.hidden > 0 ? config.hidden : (8 * d_model / 3 + 7) / 8 * 8) {
  fc1_ = add_child("fc1", std::make_unique<Linear>(d_model, 2 * hidden_, false, init.child("fc1")));
  fc2_ = add_child("fc2", std::make_unique<Linear>(hidden_, d_model, false, init.child("fc2"), output_gain));
}

Variable GatedMlp::forward(const Variable& x, const Sequence&, const Carry&) {
  const auto halves = fc1_->split(x, {hidden_, hidden_});
  return fc2_->forward(ops::gated(halves[0], halves[1], kernels::Activation::kSilu));
}

}  // namespace blockstate::nn
