// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/config/visitor.h"
#include "core/nn/linear.h"
#include "core/nn/sublayer.h"

namespace blockstate::nn {

enum class PositionKind : uint8_t { kNone, kRotary, kT5 };

struct AttentionConfig {
  int64_t heads = 4;
  int64_t window = 0;
  bool sees_self = true;
  PositionKind position = PositionKind::kRotary;
  double rotary_base = 10000;

  void visit(config::Visitor& v);
};

/// How queries and keys learn of distance: rotary embedding (Su et al. 2021), or T5's relative bias, a learned table of
/// 32 buckets a head (Raffel et al. 2020, arXiv 1910.10683), or nothing.
class PositionTerm : public Module {
 public:
  PositionTerm(const AttentionConfig& config, const Initialiser& init);
  /// Rotates q or k (B, L, H, P), else returns it as it is.
  Variable rotate(const Variable& x, const Sequence& sequence) const;
  /// Bias by distance (H, M), or undefined.
  Variable bias() const;

 private:
  PositionKind kind_;
  double base_;
  Variable table_;
  mutable Tensor buckets_;  ///< bucket of each distance, on the device of the table
};

/// T5's bucket of a distance n >= 0: exact below 16, then logarithmic up to 128, 32 buckets.
int64_t t5_bucket(int64_t distance);

/// Causal self-attention over a sliding window, or over the whole past where the window is 0. Vaswani et al. 2017;
/// scale 1/sqrt(P). Carry: "k", "v" (B, W-1, H, P), already rotated; growing where the window is 0.
class SelfAttention : public Module {
 public:
  /// `width` = heads * P outputs, heads joined; no output projection.
  SelfAttention(const AttentionConfig& config, int64_t d_model, const Initialiser& init);
  Variable forward(const Variable& x, const Sequence& sequence, const Carry& carry) const;
  int64_t carried_steps(int64_t length) const;

 private:
  AttentionConfig config_;
  int64_t width_;
  Linear* qkv_;
  PositionTerm* position_;
};

/// `attention` of a run file: self-attention and its output projection.
class Attention : public Sublayer {
 public:
  Attention(const AttentionConfig& config, int64_t d_model, double output_gain, const Initialiser& init);
  Variable forward(const Variable& x, const Sequence& sequence, const Carry& carry) override;
  MemoryClass memory_class() const override;
  int64_t carry_bytes(int64_t length, DType activations) const override;

 private:
  AttentionConfig config_;
  int64_t width_;
  SelfAttention* attention_;
  Linear* out_proj_;
};

}  // namespace blockstate::nn
