// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/config/visitor.h"
#include "core/nn/linear.h"
#include "core/nn/sublayer.h"

namespace blockstate::nn {

struct S4dConfig {
  int64_t state = 64;
  std::string init = "lin";
  double dt_min = 1e-3;
  double dt_max = 1e-1;
  double max_lr = 1e-3;

  void visit(config::Visitor& v);
};

/// S4D: a diagonal state-space system a channel, run as a recurrence, then GELU and a gated output projection.
/// Gu et al. 2022 (arXiv 2206.11893). Parameters: log_dt (D), log_real, imaginary (D, P), B, C (D, P, 2), D (D),
/// output (2 D, D), P = state/2; for SsmUse::kStates only the poles and the step size. Carry: "ssm" (B, D, P, 2).
class S4d : public Ssm {
 public:
  S4d(const S4dConfig& config, int64_t d_model, double output_gain, const Initialiser& init,
      SsmUse use = SsmUse::kOutputs);

  Variable forward(const Variable& x, const Sequence& sequence, const Carry& carry) override;
  Variable states_at_window_ends(const Variable& x, const Sequence& sequence, int64_t window,
                                 const Carry& carry) override;
  MemoryClass memory_class() const override { return MemoryClass::kBounded; }
  int64_t carry_bytes(int64_t, DType activations) const override {
    return dtype_size(state_dtype(activations)) * width_ * config_.state;
  }
  int64_t state_channels() const override { return width_; }
  int64_t state_size() const override { return config_.state; }

 private:
  S4dConfig config_;
  int64_t width_;
  Variable log_dt_, log_real_, imaginary_, B_, C_, D_;
  Linear* output_ = nullptr;  ///< null: states only
};

}  // namespace blockstate::nn
