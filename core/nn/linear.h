// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "core/nn/module.h"

namespace blockstate::nn {

/// y = x W^T + b; weight (O, I), bias (O) optional. Initialised uniform in +-1/sqrt(I), weight times `gain`
/// (Kaiming uniform with a = sqrt(5), as PyTorch does).
class Linear : public Module {
 public:
  Linear(int64_t in, int64_t out, bool bias, const Initialiser& init, double gain = 1);
  Variable forward(const Variable& x) const;
  /// The columns of y as separate results.
  std::vector<Variable> split(const Variable& x, const std::vector<int64_t>& sizes) const;
  const Variable& weight() const { return weight_; }

 private:
  Variable weight_;
  Variable bias_;
};

}  // namespace blockstate::nn
