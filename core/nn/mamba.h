// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/autograd/ops.h"
#include "core/config/visitor.h"
#include "core/nn/linear.h"
#include "core/nn/sublayer.h"

namespace blockstate::nn {

struct MambaConfig {
  int64_t state = 16;
  int64_t conv = 4;
  int64_t expand = 2;
  int64_t dt_rank = 0;
  double dt_min = 1e-3;
  double dt_max = 1e-1;

  void visit(config::Visitor& v);
};

/// Mamba's mixer (S6). Gu & Dao 2023 (arXiv 2312.00752), section 3.4; parameters named and shaped as in the released
/// checkpoints: in_proj (2 E, D) x then z, conv1d (E, K), x_proj (R + 2 N, E) dt, B, C, dt_proj (E, R), A_log (E, N),
/// D (E), out_proj (D, E), with E = expand * D. For SsmUse::kStates in_proj is (E, D), x_proj (R + N, E), and there is
/// neither D nor out_proj. Carry: "conv" (B, K-1, E), "ssm" (B, E, N).
class Mamba : public Ssm {
 public:
  Mamba(const MambaConfig& config, int64_t d_model, double output_gain, const Initialiser& init,
        SsmUse use = SsmUse::kOutputs);

  Variable forward(const Variable& x, const Sequence& sequence, const Carry& carry) override;
  Variable states_at_window_ends(const Variable& x, const Sequence& sequence, int64_t window,
                                 const Carry& carry) override;
  MemoryClass memory_class() const override { return MemoryClass::kBounded; }
  int64_t carry_bytes(int64_t length, DType activations) const override;
  int64_t state_channels() const override { return inner_; }
  int64_t state_size() const override { return config_.state; }

 private:
  struct Projected {
    Variable u, low, B, C, z;  ///< low: what dt is projected from, (B, L, R); C and z are for outputs alone
  };
  Projected project(const Variable& x, const Sequence& sequence, const Carry& carry) const;

  ops::WithState scan(const Projected& in, const Variable& initial, const Tensor& position, bool want_state) const;

  /// A (E, N). Without gradients it is made once for all steps of generation.
  Variable decay() const;

  MambaConfig config_;
  int64_t inner_;
  int64_t rank_;
  Linear* in_proj_;
  Linear* x_proj_;
  Linear* out_proj_ = nullptr;  ///< null: states only
  mutable Tensor decay_;
  mutable uint64_t decay_version_ = 0;
  Variable conv_weight_, conv_bias_, dt_weight_, dt_bias_, A_log_, D_;
};

}  // namespace blockstate::nn
