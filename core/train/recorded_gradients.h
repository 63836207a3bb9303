// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <list>
#include <memory>
#include <vector>

#include "core/train/objective.h"
#include "kernels/cuda_exec.h"
#include "kernels/graph_memory.h"

namespace blockstate::train {

/// accumulate_gradients of step after step. On a GPU, steps of the same shape are recorded once and replayed, at a
/// fraction of the launches' cost: a small model waits for those. Values are the same to the bit.
///
/// The first step of a shape runs as ever, so that everything kept for later ones is there, and the second is watched
/// for the memory it takes. Steps go on running as ever where they are chunked, padded or packed, draw random numbers,
/// need a large part of the memory (launches are no matter then), or do something that needs the host, which the
/// recording finds out.
class RecordedGradients {
 public:
  /// `record` false: never. Parameters must stay where they are; their values may change.
  RecordedGradients(const model::Model& model, const Objective& objective, bool record = true);

  /// Gradients add up, but only a step that begins without any is replayed. What the loss and the gradients hold then
  /// lasts until the next call.
  PendingLoss operator()(const data::Batch& batch, const model::ModelInput& input, const Chunking& chunking);

  /// For memory: nothing is recorded any more, and no recordings and no gradients are left.
  void give_up();

  /// Steps that were replayed.
  int64_t replayed() const { return replayed_; }

 private:
  /// A shape that came up lately.
  struct Shape {
    std::vector<std::vector<int64_t>> sizes;
    int64_t seen = 0;
    bool too_large = false;
    kernels::cuda::MemoryNeeds needs;
    // What a replay reads and writes.
    data::Batch batch;
    model::ModelInput input;
    std::vector<Tensor> gradients;
    Tensor loss;
    std::unique_ptr<kernels::cuda::StreamGraph> graph;
  };

  bool may_replay(const data::Batch& batch, const model::ModelInput& input, const Chunking& chunking) const;
  Shape& shape_of(const data::Batch& batch, const model::ModelInput& input);
  PendingLoss run(const data::Batch& batch, const model::ModelInput& input, const Chunking& chunking);
  void fill(Shape& shape, const data::Batch& batch, const model::ModelInput& input) const;
  PendingLoss watched_run(Shape& shape);
  /// False where it cannot be.
  bool record(Shape& shape);
  bool no_gradients() const;
  void forget_derived();

  const model::Model& model_;
  Objective objective_;
  bool record_;
  std::vector<nn::Parameter> parameters_;
  std::list<Shape> shapes_;  ///< the latest first
  int64_t replayed_ = 0;
};

}  // namespace blockstate::train
