// SPDX-License-Identifier: Apache-2.0
#include "core/train/recorded_gradients.h"

#include <algorithm>
#include <exception>

#include "core/tensor/recording.h"

namespace blockstate::train {
namespace {

constexpr size_t kShapes = 4;  // that are remembered, recorded or not

}  // namespace

RecordedGradients::RecordedGradients(const model::Model& model, const Objective& objective, bool record)
    : model_(model),
      objective_(objective),
      record_(record && may_record(model.device())),
      parameters_(model.parameters()) {}

/// A graph has the numbers that the host decided on: only such as the shape implies may be among them. Where there are
/// chunks, a step may be several groups of rows, and gradients that add up in place cannot be a graph's.
bool RecordedGradients::may_replay(const data::Batch& batch, const model::ModelInput& input,
                                   const Chunking& chunking) const {
  return record_ && chunking.steps == 0 && input.sequence.uniform && batch.targets.defined() &&
         model_.config().dropout == 0 && no_gradients();
}

bool RecordedGradients::no_gradients() const {
  return std::none_of(parameters_.begin(), parameters_.end(),
                      [](const nn::Parameter& parameter) { return parameter.variable.grad().defined(); });
}

RecordedGradients::Shape& RecordedGradients::shape_of(const data::Batch& batch, const model::ModelInput& input) {
  const Tensor& steps = input.tokens.defined() ? input.tokens : input.frames;
  const std::vector<std::vector<int64_t>> sizes = {
      steps.shape(), batch.targets.shape(), {batch.target_count, batch.records}};
  const auto found =
      std::find_if(shapes_.begin(), shapes_.end(), [&](const Shape& shape) { return shape.sizes == sizes; });
  if (found != shapes_.end()) {
    shapes_.splice(shapes_.begin(), shapes_, found);
    return shapes_.front();
  }
  if (shapes_.size() == kShapes) {
    shapes_.pop_back();
  }
  shapes_.emplace_front().sizes = sizes;
  return shapes_.front();
}

PendingLoss RecordedGradients::operator()(const data::Batch& batch, const model::ModelInput& input,
                                          const Chunking& chunking) {
  if (!may_replay(batch, input, chunking)) {
    return run(batch, input, chunking);
  }
  Shape& shape = shape_of(batch, input);
  ++shape.seen;
  if (shape.seen == 1 || shape.too_large) {
    return run(batch, input, chunking);
  }
  fill(shape, batch, input);
  if (shape.seen == 2) {
    return watched_run(shape);
  }
  if (!shape.graph && !record(shape)) {
    return run(batch, input, chunking);
  }
  shape.graph->launch();
  for (size_t i = 0; i < parameters_.size(); ++i) {
    parameters_[i].variable.edge()->grad = shape.gradients[i];
  }
  ++replayed_;
  return {{shape.loss}};
}

/// Where recordings hold memory that a step needs, they go.
PendingLoss RecordedGradients::run(const data::Batch& batch, const model::ModelInput& input, const Chunking& chunking) {
  const bool can_begin_again = no_gradients() && std::any_of(shapes_.begin(), shapes_.end(),
                                                             [](const Shape& shape) { return shape.graph != nullptr; });
  try {
    return accumulate_gradients(model_, batch, input, objective_, chunking);
  } catch (const OutOfMemory&) {
    if (!can_begin_again) {
      throw;
    }
    give_up();
  }
  return accumulate_gradients(model_, batch, input, objective_, chunking);
}

/// Brings a batch to where the shape's graph reads it.
void RecordedGradients::fill(Shape& shape, const data::Batch& batch, const model::ModelInput& input) const {
  check_targets(batch.targets, model_.shape().outputs);
  if (!shape.batch.targets.defined()) {
    shape.batch.targets = batch.targets.to(model_.device());
    shape.batch.target_count = batch.target_count;
    shape.input = input;
    shape.input.tokens = input.tokens.defined() ? input.tokens.clone() : Tensor();
    shape.input.frames = input.frames.defined() ? input.frames.clone() : Tensor();
    return;
  }
  shape.batch.targets.copy_from(batch.targets);
  if (input.tokens.defined()) {
    shape.input.tokens.copy_from(input.tokens);
  } else {
    shape.input.frames.copy_from(input.frames);
  }
}

PendingLoss RecordedGradients::watched_run(Shape& shape) {
  PendingLoss loss;
  forget_derived();
  shape.needs.watch([&] { loss = run(shape.batch, shape.input, {}); });
  // Beside its recording there must be room for a step as large that is not recorded, and to validate.
  shape.too_large = shape.needs.bytes() > free_memory(model_.device()) / 2;
  return loss;
}

bool RecordedGradients::record(Shape& shape) {
  const kernels::cuda::Exec exec = kernels::cuda::exec(model_.device().index);
  // What is derived from parameters must be derived in each replay, and its place is then the graph's.
  forget_derived();
  try {
    shape.graph = std::make_unique<kernels::cuda::StreamGraph>(exec);
    kernels::cuda::GraphMemory::of(exec).plan(shape.needs);
    shape.graph->record(
        [&] { shape.loss = accumulate_gradients(model_, shape.batch, shape.input, objective_).parts.front(); });
  } catch (const std::exception&) {
    give_up();
    return false;
  }
  forget_derived();
  for (nn::Parameter& parameter : parameters_) {
    shape.gradients.push_back(parameter.variable.grad());
    parameter.variable.clear_grad();
  }
  return true;
}

/// The next to ask for what is kept of parameters, such as rounded copies, makes it anew.
void RecordedGradients::forget_derived() {
  parameters_changed();
  for (const nn::Parameter& parameter : parameters_) {
    parameter.variable.edge()->rounded = Tensor();
  }
}

void RecordedGradients::give_up() {
  record_ = false;
  for (nn::Parameter& parameter : parameters_) {
    parameter.variable.clear_grad();
  }
  forget_derived();
  for (Shape& shape : shapes_) {
    shape.graph.reset();
    shape.gradients.clear();
    shape.loss = Tensor();
  }
}

}  // namespace blockstate::train
