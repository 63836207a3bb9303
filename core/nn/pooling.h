// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/nn/linear.h"
#include "core/nn/sublayer.h"

namespace blockstate::nn {

enum class PoolingKind : uint8_t { kMean, kLast, kAttention };

/// One vector a record from its steps: (B, L, D) -> (R, D). Padding does not count. Each kind is a running quantity, so
/// it obeys the chunk law; the result after a chunk is that of the steps so far.
///   mean       sum of steps / count                                   carry "sum" (R, D), "count" (R)
///   last       the record's latest step                               carry "last" (R, D)
///   attention  softmax(w . x) weighted sum, w learned                 carry "sum" (R, D), "weight" (R, 1), "max" (R)
class Pooling : public Module {
 public:
  Pooling(PoolingKind kind, int64_t width, const Initialiser& init);
  Variable forward(const Variable& x, const Sequence& sequence, const Carry& carry) const;

 private:
  Variable mean(const Variable& x, const Sequence& sequence, const Carry& carry) const;
  Variable last(const Variable& x, const Sequence& sequence, const Carry& carry) const;
  Variable attention(const Variable& x, const Sequence& sequence, const Carry& carry) const;

  PoolingKind kind_;
  Linear* score_ = nullptr;
};

}  // namespace blockstate::nn
