// SPDX-License-Identifier: Apache-2.0
#include "core/nn/norm.h"

namespace blockstate::nn {

Norm::Norm(int64_t width, NormKind kind, const Initialiser& init, double epsilon) : kind_(kind), epsilon_(epsilon) {
  weight_ = add_parameter("weight", init.constant({width}, 1), no_decay());
  if (kind == NormKind::kLayer) {
    bias_ = add_parameter("bias", init.constant({width}, 0), no_decay());
  }
}

ops::Normed Norm::forward(const Variable& x, const Variable& residual, DType dtype) const {
  return ops::norm(x, residual, weight_, bias_, kind_ == NormKind::kLayer, epsilon_, dtype);
}

}  // namespace blockstate::nn
