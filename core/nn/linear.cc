// SPDX-License-Identifier: Apache-2.0
#include "core/nn/linear.h"

#include <cmath>

#include "core/autograd/ops.h"

namespace blockstate::nn {

Linear::Linear(int64_t in, int64_t out, bool bias, const Initialiser& init, double gain) {
  const double bound = 1 / std::sqrt(static_cast<double>(in));
  weight_ = add_parameter("weight", init.uniform("weight", {out, in}, -bound * gain, bound * gain));
  if (bias) {
    bias_ = add_parameter("bias", init.uniform("bias", {out}, -bound, bound), no_decay());
  }
}

Variable Linear::forward(const Variable& x) const { return ops::linear(x, weight_, bias_); }

std::vector<Variable> Linear::split(const Variable& x, const std::vector<int64_t>& sizes) const {
  return ops::linear_split(x, weight_, sizes, bias_);
}

}  // namespace blockstate::nn
