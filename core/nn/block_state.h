// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>

#include "core/config/visitor.h"
#include "core/nn/attention.h"
#include "core/nn/norm.h"

namespace blockstate::nn {

enum class BlockStateVariant : uint8_t { kSingleHead, kMultiHead, kMultiFilter };

struct BlockStateConfig {
  BlockStateVariant variant = BlockStateVariant::kMultiFilter;
  std::string ssm = "s4d";
  int64_t window = 512;
  int64_t states = 32;
  int64_t heads = 4;
  bool sees_self = true;
  PositionKind position = PositionKind::kRotary;
  double rotary_base = 10000;

  void visit(config::Visitor& v);
  AttentionConfig attention() const;
};

/// Makes the SSM of a block-state layer, by its place ("ssm" or "ssm.3") among the layer's children.
using SsmFactory = std::function<std::unique_ptr<Ssm>(const Initialiser& init)>;

/// Block-State Transformer layer without its MLP (which is a sublayer of its own): an SSM runs over the whole sequence;
/// window self-attention and cross-attention to context states read from the SSM share one output projection.
/// Pilault et al. 2023 (arXiv 2306.09539). Variants:
///   SH  one SSM; a step sees its outputs at the steps of its own window up to itself
///   MH  one SSM a head, each head sees its own
///   MF  `states` learned readouts of the SSM's state at the end of each window; a step sees those of the previous
///       window. Keys get learned context ids. A record's first window has no context: its cross-attention is 0.
/// Context vectors are normed before keys and values are made.
/// Carry: that of the SSM(s) under "ssm", "self.k", "self.v" (B, W-1, H, P); SH, MH: "context.k", "context.v" of the
/// window begun; MF: "context.k", "context.v" (B, S, H P) of the last finished window. Stride: the window.
class BlockState : public Sublayer {
 public:
  BlockState(const BlockStateConfig& config, const SsmFactory& make_ssm, int64_t d_model, double output_gain,
             const Initialiser& init);

  Variable forward(const Variable& x, const Sequence& sequence, const Carry& carry) override;
  MemoryClass memory_class() const override { return MemoryClass::kBounded; }
  int64_t stride() const override { return config_.window; }
  /// MF makes contexts at window ends only.
  bool steps_repeat() const override { return config_.variant != BlockStateVariant::kMultiFilter; }
  int64_t carry_bytes(int64_t length, DType activations) const override;

 private:
  Variable same_window_context(const Variable& x, const Variable& q, const Sequence& sequence, const Carry& carry);
  Variable previous_window_context(const Variable& x, const Variable& q, const Sequence& sequence, const Carry& carry);
  /// (B, contexts): 0 .. states - 1 over and over.
  Tensor context_numbers(int64_t batch, int64_t contexts, Device device);
  Variable attend(const Variable& q, const Variable& k, const Variable& v, const ops::AttentionRange& range) const;

  BlockStateConfig config_;
  int64_t width_;
  std::vector<Ssm*> ssms_;
  std::vector<Norm*> context_norms_;
  std::vector<Linear*> context_kv_;
  SelfAttention* self_;
  Linear* context_q_;
  Linear* out_proj_;
  Variable readout_, context_ids_;  // MF only
  /// By size. They stay: all chunks but the last ask for the same, and a recorded step goes on reading them.
  std::map<int64_t, Tensor> numbers_;
};

}  // namespace blockstate::nn
