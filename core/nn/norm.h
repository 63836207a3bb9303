// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/autograd/ops.h"
#include "core/nn/module.h"

namespace blockstate::nn {

enum class NormKind : uint8_t { kRms, kLayer };

/// RMSNorm or LayerNorm over D with the residual addition fused in: (x, residual) -> (norm(x + residual), x +
/// residual).
class Norm : public Module {
 public:
  Norm(int64_t width, NormKind kind, const Initialiser& init, double epsilon = 1e-5);
  /// y in the type of x.
  ops::Normed forward(const Variable& x, const Variable& residual = {}) const {
    return forward(x, residual, x.dtype());
  }
  ops::Normed forward(const Variable& x, const Variable& residual, DType dtype) const;

 private:
  NormKind kind_;
  double epsilon_;
  Variable weight_;
  Variable bias_;
};

}  // namespace blockstate::nn
