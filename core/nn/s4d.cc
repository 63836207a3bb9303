// SPDX-License-Identifier: Apache-2.0
#include "core/nn/s4d.h"

#include <cmath>

#include "core/autograd/ops.h"
#include "core/nn/hippo.h"

namespace blockstate::nn {

void S4dConfig::visit(config::Visitor& v) {
  v.field("state", state, "state size N of each channel: N/2 complex poles", config::at_least(2).at_most(512));
  v.check("state", state % 2 == 0, "must be even");
  v.field("init", init, "initial poles", config::one_of({"lin", "inv", "legs", "real"}));
  v.field("dt_min", dt_min, "smallest initial step size", config::above(0));
  v.field("dt_max", dt_max, "largest initial step size", config::above(0));
  v.check("dt_min", dt_min <= dt_max, "must be at most dt_max");
  v.field("max_lr", max_lr, "largest learning rate of the poles, B and the step size", config::above(0));
}

S4d::S4d(const S4dConfig& config, int64_t d_model, double output_gain, const Initialiser& init, SsmUse use)
    : config_(config), width_(d_model) {
  const int64_t D = d_model, P = config.state / 2;
  const ParameterOptions slow{.decay = false, .max_lr = config.max_lr};
  const std::vector<std::complex<double>> poles = s4d_poles(config.init, config.state);
  std::vector<double> log_real, imaginary, input;
  for (int64_t d = 0; d < D; ++d) {
    for (const std::complex<double>& pole : poles) {
      log_real.push_back(std::log(-pole.real()));
      imaginary.push_back(pole.imag());
      input.push_back(1);
      input.push_back(0);
    }
  }
  log_dt_ =
      add_parameter("log_dt", init.uniform("log_dt", {D}, std::log(config.dt_min), std::log(config.dt_max)), slow);
  log_real_ = add_parameter("log_real", init.values({D, P}, log_real), slow);
  imaginary_ = add_parameter("imaginary", init.values({D, P}, imaginary), slow);
  if (use == SsmUse::kStates) {
    // The state needs the poles alone; how it is read is up to who reads it.
    B_ = Variable(init.values({D, P, 2}, input));
    C_ = Variable(init.constant({D, P, 2}, 0));
    return;
  }
  B_ = add_parameter("B", init.values({D, P, 2}, input), slow);
  C_ = add_parameter("C", init.normal("C", {D, P, 2}, std::sqrt(0.5)));
  D_ = add_parameter("D", init.normal("D", {D}, 1), no_decay());
  output_ = add_child("output", std::make_unique<Linear>(D, 2 * D, true, init.child("output"), output_gain));
}

Variable S4d::forward(const Variable& x, const Sequence& sequence, const Carry& carry) {
  require(output_ != nullptr, "s4d: made for its states only, it has no outputs");
  const ops::Discretized system = ops::s4d_discretize(log_dt_, log_real_, imaginary_, B_, C_);
  const ops::WithState scan =
      ops::diagonal_scan(x, system.a, system.c, D_, carry.get("ssm"), sequence.kernel_position(), carry.wanted());
  if (carry.wanted()) {
    carry.set("ssm", scan.state);
  }
  const auto halves = output_->split(ops::activation(scan.y, kernels::Activation::kGelu), {width_, width_});
  return ops::gated(halves[0], halves[1], kernels::Activation::kSigmoid);
}

Variable S4d::states_at_window_ends(const Variable& x, const Sequence& sequence, int64_t window, const Carry& carry) {
  const ops::Discretized system = ops::s4d_discretize(log_dt_, log_real_, imaginary_, B_, C_);
  const ops::States states = ops::diagonal_scan_states(x, system.a, carry.get("ssm"), sequence.kernel_position(),
                                                       first_window(sequence, window), window);
  if (carry.wanted()) {
    carry.set("ssm", states.final);
  }
  return ops::reshape(states.at_ends, {x.size(0), states.at_ends.size(1), width_, config_.state});
}

}  // namespace blockstate::nn
