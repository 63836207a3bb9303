// SPDX-License-Identifier: Apache-2.0
#include "core/nn/mamba.h"

#include <algorithm>
#include <cmath>

#include "core/autograd/kept.h"
#include "core/autograd/ops.h"

namespace blockstate::nn {

void MambaConfig::visit(config::Visitor& v) {
  v.field("state", state, "state size N of each channel", config::at_least(1).at_most(256));
  v.field("conv", conv, "width K of the causal convolution", config::at_least(2).at_most(8));
  v.field("expand", expand, "inner width as a multiple of d_model", config::at_least(1));
  v.field("dt_rank", dt_rank, "rank of the step-size projection; 0: d_model/16, rounded up", config::at_least(0));
  v.field("dt_min", dt_min, "smallest initial step size", config::above(0));
  v.field("dt_max", dt_max, "largest initial step size", config::above(0));
  v.check("dt_min", dt_min <= dt_max, "must be at most dt_max");
}

Mamba::Mamba(const MambaConfig& config, int64_t d_model, double output_gain, const Initialiser& init, SsmUse use)
    : config_(config),
      inner_(config.expand * d_model),
      rank_(config.dt_rank > 0 ? config.dt_rank : (d_model + 15) / 16) {
  const int64_t E = inner_, N = config.state, K = config.conv;
  const bool outputs = use == SsmUse::kOutputs;
  in_proj_ = add_child("in_proj", std::make_unique<Linear>(d_model, outputs ? 2 * E : E, false, init.child("in_proj")));
  const double conv_bound = 1 / std::sqrt(static_cast<double>(K));
  conv_weight_ = add_parameter("conv1d.weight", init.uniform("conv1d.weight", {E, K}, -conv_bound, conv_bound));
  conv_bias_ = add_parameter("conv1d.bias", init.uniform("conv1d.bias", {E}, -conv_bound, conv_bound), no_decay());
  x_proj_ =
      add_child("x_proj", std::make_unique<Linear>(E, rank_ + (outputs ? 2 : 1) * N, false, init.child("x_proj")));
  const double dt_bound = 1 / std::sqrt(static_cast<double>(rank_));
  dt_weight_ = add_parameter("dt_proj.weight", init.uniform("dt_proj.weight", {E, rank_}, -dt_bound, dt_bound));
  // softplus(bias) is log-uniform in [dt_min, dt_max]: bias = dt + log(1 - exp(-dt)).
  dt_bias_ = add_parameter("dt_proj.bias",
                           init.generate("dt_proj.bias", {E},
                                         [&](const auto& unit) {
                                           const double low = std::log(config.dt_min);
                                           const double high = std::log(config.dt_max);
                                           const double dt = std::max(1e-4, std::exp(low + (high - low) * unit()));
                                           return dt + std::log(-std::expm1(-dt));
                                         }),
                           no_decay());
  std::vector<double> a_log(static_cast<size_t>(E * N));
  for (size_t i = 0; i < a_log.size(); ++i) {
    a_log[i] = std::log(static_cast<double>(i % N + 1));  // S4D-Real: A = -(n + 1)
  }
  A_log_ = add_parameter("A_log", init.values({E, N}, a_log), no_decay());
  if (!outputs) {
    return;
  }
  D_ = add_parameter("D", init.constant({E}, 1), no_decay());
  out_proj_ = add_child("out_proj", std::make_unique<Linear>(E, d_model, false, init.child("out_proj"), output_gain));
}

namespace {

/// A step of generation: ops that join several, and have no backward, serve it. They round in another order, so not
/// where a pass with gradients repeats this one.
bool is_step(const Variable& x) { return x.size(1) == 1 && !grad_enabled() && !will_repeat(); }

}  // namespace

Mamba::Projected Mamba::project(const Variable& x, const Sequence& sequence, const Carry& carry) const {
  const bool outputs = out_proj_ != nullptr;
  ops::WithState conv;
  Variable z;
  if (is_step(x)) {
    const ops::ProjectedConv step =
        ops::projected_conv_step(x, in_proj_->weight(), conv_weight_, conv_bias_, carry.get("conv"),
                                 sequence.kernel_position(), true, carry.wanted());
    conv = step.conv;
    z = step.rest;
  } else {
    const auto halves =
        in_proj_->split(x, outputs ? std::vector<int64_t>{inner_, inner_} : std::vector<int64_t>{inner_});
    conv = ops::causal_conv1d(halves[0], conv_weight_, conv_bias_, carry.get("conv"), sequence.kernel_position(), true,
                              carry.wanted());
    z = outputs ? halves[1] : Variable();
  }
  if (carry.wanted()) {
    carry.set("conv", conv.state);
  }
  std::vector<int64_t> sizes = {rank_, config_.state};
  if (outputs) {
    sizes.push_back(config_.state);
  }
  const auto selected = x_proj_->split(conv.y, sizes);
  return {conv.y, selected[0], selected[1], outputs ? selected[2] : Variable(), z};
}

Variable Mamba::decay() const {
  if (grad_enabled()) {
    return ops::activation(A_log_, kernels::Activation::kNegativeExp);
  }
  if (decay_version_ != parameters_version()) {
    decay_ = ops::activation(A_log_, kernels::Activation::kNegativeExp).value();
    decay_version_ = parameters_version();
  }
  return Variable(decay_);
}

Variable Mamba::forward(const Variable& x, const Sequence& sequence, const Carry& carry) {
  require(out_proj_ != nullptr, "mamba: made for its states only, it has no outputs");
  const Projected in = project(x, sequence, carry);
  const ops::WithState scanned = scan(in, carry.get("ssm"), sequence.kernel_position(), carry.wanted());
  if (carry.wanted()) {
    carry.set("ssm", scanned.state);
  }
  return out_proj_->forward(scanned.y);
}

/// The bias of dt is added inside the scan, before the softplus.
ops::WithState Mamba::scan(const Projected& in, const Variable& initial, const Tensor& position,
                           bool want_state) const {
  const Variable A = decay();
  if (is_step(in.u)) {
    return ops::selective_scan_step({in.u, in.low, A, in.B, in.C, D_, in.z, dt_bias_, initial}, dt_weight_, position,
                                    want_state);
  }
  return ops::selective_scan({in.u, ops::linear(in.low, dt_weight_), A, in.B, in.C, D_, in.z, dt_bias_, initial},
                             position, want_state);
}

Variable Mamba::states_at_window_ends(const Variable& x, const Sequence& sequence, int64_t window, const Carry& carry) {
  const Projected in = project(x, sequence, carry);
  const ops::States states = ops::selective_scan_states(
      {in.u, ops::linear(in.low, dt_weight_), decay(), in.B, {}, {}, {}, dt_bias_, carry.get("ssm")},
      sequence.kernel_position(), first_window(sequence, window), window);
  if (carry.wanted()) {
    carry.set("ssm", states.final);
  }
  return states.at_ends;
}

int64_t Mamba::carry_bytes(int64_t, DType activations) const {
  return inner_ * (dtype_size(activations) * (config_.conv - 1) + dtype_size(state_dtype(activations)) * config_.state);
}

}  // namespace blockstate::nn
