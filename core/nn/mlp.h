// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/config/visitor.h"
#include "core/nn/linear.h"
#include "core/nn/sublayer.h"

namespace blockstate::nn {

struct MlpConfig {
  int64_t hidden = 0;  ///< 0: 4 D, or for gated_mlp 8/3 D rounded up to a multiple of 8 (the same parameter count)

  void visit(config::Visitor& v);
};

/// y = W2 gelu(W1 x + b1) + b2
class Mlp : public Sublayer {
 public:
  Mlp(const MlpConfig& config, int64_t d_model, double output_gain, const Initialiser& init);
  Variable forward(const Variable& x, const Sequence& sequence, const Carry& carry) override;
  MemoryClass memory_class() const override { return MemoryClass::kBounded; }
  int64_t carry_bytes(int64_t, DType) const override { return 0; }

 private:
  Linear* fc1_;
  Linear* fc2_;
};

/// y = W2 (W_value x * silu(W_gate x)), no biases. Shazeer 2020 (arXiv 2002.05202), SwiGLU.
class GatedMlp : public Sublayer {
 public:
  GatedMlp(const MlpConfig& config, int64_t d_model, double output_gain, const Initialiser& init);
  Variable forward(const Variable& x, const Sequence& sequence, const Carry& carry) override;
  MemoryClass memory_class() const override { return MemoryClass::kBounded; }
  int64_t carry_bytes(int64_t, DType) const override { return 0; }

 private:
  int64_t hidden_;
  Linear* fc1_;  // value rows, then gate rows
  Linear* fc2_;
};

}  // namespace blockstate::nn
