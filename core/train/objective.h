// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/data/batch.h"
#include "core/model/model.h"

namespace blockstate::train {

/// What a model is trained to do with a batch.
struct Objective {
  double label_smoothing = 0;
};

/// What a batch must bring for a head to learn from.
data::TargetKind target_kind(model::HeadKind head);

struct LossResult {
  Variable loss;        ///< (1): mean over targets, in nats
  Tensor logits;        ///< rows (M, outputs): one a record, or one a step
  Tensor row_loss;      ///< (M): without label smoothing where that is 0; 0 at ignored rows
  int64_t targets = 0;  ///< rows that count
};

/// A batch as a model takes it, on the model's device; where it will be taken in chunks of fewer than its steps, in
/// host memory, from which slice_steps brings each chunk. `random_key` mixes seed and step; dropout draws from it when
/// `training`.
model::ModelInput model_input(const model::Model& model, const data::Batch& batch, bool training, uint64_t random_key,
                              int64_t chunk = 0);

/// Steps [begin, end) of an input, a chunk, on the model's device.
model::ModelInput slice_steps(const model::Model& model, const model::ModelInput& input, int64_t begin, int64_t end);

/// Error where a target is none of the model's outputs.
void check_targets(const Tensor& targets, int64_t outputs);

/// Sum of the row losses of logits (..., outputs) against targets (...), divided by `target_count`. Targets that lie on
/// a GPU have been checked, and are not counted.
LossResult loss_of_logits(const Variable& logits, const Tensor& targets, const Objective& objective,
                          int64_t target_count);

/// Forward and loss of a whole batch. `target_count` counts the valid targets of the optimiser step: the mean is over
/// those, so that parts of a step add up to it.
LossResult batch_loss(const model::Model& model, const data::Batch& batch, const model::ModelInput& input,
                      const Objective& objective, int64_t target_count);

/// The loss of a step that a GPU may still be working on.
struct PendingLoss {
  std::vector<Tensor> parts;  ///< they add up to it
  double wait() const;
};

/// How a step's sequences are cut (docs/chunk_and_carry.md).
struct Chunking {
  int64_t steps = 0;      ///< of a chunk; 0: sequences in one piece
  bool truncate = false;  ///< no gradient passes from a chunk to the one before
  bool on_host = false;   ///< the carries at chunk edges wait in host memory
  int64_t keep = 0;       ///< bytes for outputs of scans and attention that the second pass then need not compute again
};

/// Forward and backward of one step, parameter gradients added up. Does not wait for a GPU. Chunks give exact
/// gradients unless truncated: forward keeps only the carries at chunk edges, backward runs over the chunks in reverse
/// and recomputes inside each. The loss is the mean over the batch's targets. Error where gradients are to be truncated
/// and the loss is not one of every step.
/// `input` may lie in host memory where it is taken in chunks.
PendingLoss accumulate_gradients(const model::Model& model, const data::Batch& batch, const model::ModelInput& input,
                                 const Objective& objective, const Chunking& chunking = {});

}  // namespace blockstate::train
