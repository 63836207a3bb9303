// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "core/model/model.h"

namespace blockstate::train {

/// Bytes a training step needs on this device.
struct MemoryPlan {
  int64_t parameters = 0;
  int64_t gradients = 0;
  int64_t optimizer = 0;
  int64_t activations = 0;  ///< of the whole batch, or of one chunk of it
  int64_t working = 0;      ///< rounded copies of parameters, and what kernels work with
  int64_t edges = 0;        ///< carries at the edges of chunks
  int64_t steps = 0;        ///< that are in memory at once, of all rows
  int64_t carry = 0;        ///< of one row when streaming, after `length` steps
  int64_t total() const { return parameters + gradients + optimizer + activations + working + edges; }
};

/// Memory of a step of `batch` records of `length` steps. Activations are not estimated from a formula that could go
/// stale: two short steps are run and measured, and the straight line through them is extended (every op's memory is
/// linear in the length). chunk > 0: the activations of one chunk, and the carries at all chunk edges.
MemoryPlan plan_memory(const model::Model& model, int64_t batch, int64_t length, int64_t chunk);

/// What would fit on the model's device instead of a batch of this shape, as the end of a sentence.
std::string advise_memory(const model::Model& model, int64_t batch, int64_t length);

/// Bytes that a step planned like this leaves free, before there is an optimiser; a tenth goes to fragments.
int64_t spare_memory(const model::Model& model, const MemoryPlan& plan);

/// The chunk for `train.chunk = "auto"`, before there is an optimiser: 0 where a step fits in one piece, else the
/// largest power of two whose step fits. Error where none does.
int64_t choose_chunk(const model::Model& model, int64_t batch, int64_t length);

}  // namespace blockstate::train
