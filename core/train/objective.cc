// SPDX-License-Identifier: Apache-2.0
#include "core/train/objective.h"

#include <algorithm>
#include <optional>

#include "core/autograd/kept.h"
#include "core/autograd/ops.h"

namespace blockstate::train {
namespace {

/// A kernel of a GPU cannot say which id was wrong, so ids are looked at before they go there.
void check_ids(const char* what, const Tensor& ids, int64_t count) {
  const int64_t* id = ids.data<int64_t>();
  for (int64_t i = 0; i < ids.elements(); ++i) {
    require(id[i] < count, what, " ", id[i], " at place ", i, " of the batch: the model has ", count,
            ", numbered from 0");
  }
}

}  // namespace

data::TargetKind target_kind(model::HeadKind head) {
  switch (head) {
    case model::HeadKind::kLanguageModel:
      return data::TargetKind::kNextToken;
    case model::HeadKind::kClassify:
      return data::TargetKind::kLabel;
    case model::HeadKind::kPerPosition:
      return data::TargetKind::kPerPosition;
  }
  return data::TargetKind::kNone;
}

model::ModelInput slice_steps(const model::Model& model, const model::ModelInput& input, int64_t begin, int64_t end) {
  model::ModelInput part;
  part.tokens = input.tokens.defined() ? input.tokens.slice(1, begin, end).packed().to(model.device()) : Tensor();
  part.frames = input.frames.defined() ? input.frames.slice(1, begin, end).packed().to(model.device()) : Tensor();
  part.sequence = input.sequence.slice(begin, end, model.device());
  return part;
}

void check_targets(const Tensor& targets, int64_t outputs) { check_ids("target", targets, outputs); }

LossResult loss_of_logits(const Variable& logits, const Tensor& targets, const Objective& objective,
                          int64_t target_count) {
  const Variable rows = ops::reshape(logits, {-1, logits.size(-1)});
  const Tensor flat = targets.reshape({-1});
  const bool on_host = flat.device().kind == DeviceKind::kCpu;
  if (on_host) {
    check_targets(flat, rows.size(1));
  }
  const Variable row_loss = ops::cross_entropy(rows, flat.to(rows.value().device()), objective.label_smoothing);
  LossResult result;
  result.loss =
      ops::scale(ops::weighted_sum(row_loss, Tensor()), 1.0 / static_cast<double>(std::max<int64_t>(1, target_count)));
  result.logits = rows.value();
  result.row_loss = row_loss.value();
  if (on_host) {
    const int64_t* target = flat.data<int64_t>();
    result.targets = std::count_if(target, target + flat.elements(), [](int64_t t) { return t >= 0; });
  }
  return result;
}

namespace {

bool per_step(const model::Model& model) { return model.shape().head != model::HeadKind::kClassify; }

using Bounds = std::vector<std::pair<int64_t, int64_t>>;

Bounds chunk_bounds(int64_t length, int64_t chunk) {
  Bounds bounds;
  for (int64_t begin = 0; begin < length; begin += chunk) {
    bounds.emplace_back(begin, std::min(length, begin + chunk));
  }
  return bounds;
}

/// The same tensors at another place, without what led to them; as leaves that collect gradients where asked.
nn::CarryMap moved(const nn::CarryMap& carry, Device device, bool leaves) {
  nn::CarryMap result;
  for (const auto& [name, value] : carry) {
    result[name] = Variable(value.value().to(device), leaves);
  }
  return result;
}

/// A carry that holds something of every step so far (keys and values of full attention) begins with the one before it
/// where no row is padded: earlier edges then are views of the latest, so that all of them take the memory of one.
void share_grown(const Bounds& bounds, std::vector<nn::CarryMap>& edges) {
  const auto holds_all = [&](size_t edge, const Tensor& carry) {
    return carry.rank() > 1 && carry.size(1) == bounds[edge - 1].second;
  };
  for (const auto& [name, latest] : edges.back()) {
    for (size_t i = 1; i + 1 < edges.size() && holds_all(edges.size() - 1, latest.value()); ++i) {
      Variable& earlier = edges[i].at(name);
      if (!holds_all(i, earlier.value())) {
        break;
      }
      earlier = Variable(latest.value().slice(1, 0, earlier.size(1)));
    }
  }
}

/// The loss of steps [begin, end), if there is one.
std::optional<LossResult> chunk_loss(const model::Model& model, const data::Batch& batch, const Variable& logits,
                                     const Objective& objective, int64_t begin, int64_t end) {
  if (per_step(model)) {
    return loss_of_logits(logits, batch.targets.slice(1, begin, end).packed(), objective, batch.target_count);
  }
  if (end < batch.length()) {
    return std::nullopt;
  }
  return loss_of_logits(logits, batch.targets, objective, batch.target_count);
}

PendingLoss chunked_gradients(const model::Model& model, const data::Batch& batch, const model::ModelInput& input,
                              const Objective& objective, const Chunking& chunking) {
  const Bounds bounds = chunk_bounds(input.sequence.length(), chunking.steps);
  const Device keep = chunking.on_host ? Device{} : model.device();
  PendingLoss loss;
  // Forward: the carries at chunk edges stay, and what there is room for.
  std::vector<nn::CarryMap> edges(1);
  std::vector<Kept> kept(bounds.size());
  const bool grows = !model.growing_sublayers().empty();
  {
    GradMode off(false);
    nn::CarryMap carry;
    // What is worth keeping a little of runs on a GPU.
    KeepRoom room{.bytes = chunking.keep, .little_only = bounds.size() > 2 && model.device().kind == DeviceKind::kCuda};
    int64_t little = 0;  // of a chunk
    for (size_t i = 0; i + 1 < bounds.size(); ++i) {
      room.promised = little * static_cast<int64_t>(bounds.size() - 2 - i);
      const LeaveScope keeping(kept[i], room);
      model.run(slice_steps(model, input, bounds[i].first, bounds[i].second), &carry);
      if (room.little_only) {
        little = chunking.keep - room.bytes;
        room.little_only = false;
      }
      edges.push_back(moved(carry, keep, false));
      if (grows && input.sequence.uniform) {
        share_grown(bounds, edges);
      }
    }
  }
  // Backward, last chunk first: its loss and the gradient of the carry it handed on.
  std::map<std::string, Tensor> carry_grads;
  for (size_t i = bounds.size(); i-- > 0;) {
    const auto [begin, end] = bounds[i];
    const nn::CarryMap leaves = moved(edges[i], model.device(), true);
    edges.pop_back();
    nn::CarryMap carry = leaves;
    const Variable logits = [&, from = begin, to = end] {
      const TakeScope taking(kept[i]);
      return model.forward(slice_steps(model, input, from, to), &carry);
    }();
    kept.pop_back();
    std::vector<Variable> roots;
    std::vector<Tensor> grads;
    if (const auto part = chunk_loss(model, batch, logits, objective, begin, end)) {
      loss.parts.push_back(part->loss.value());
      roots.push_back(part->loss);
      grads.emplace_back();
    }
    for (const auto& [name, grad] : carry_grads) {
      roots.push_back(carry.at(name));
      grads.push_back(grad);
    }
    backward(roots, grads);
    carry_grads.clear();
    for (const auto& [name, leaf] : leaves) {
      if (leaf.grad().defined()) {
        carry_grads[name] = leaf.grad();
      }
    }
  }
  return loss;
}

/// Forward and backward chunk by chunk from the first, the carry being a constant: one pass, no edges to keep.
PendingLoss truncated_gradients(const model::Model& model, const data::Batch& batch, const model::ModelInput& input,
                                const Objective& objective, int64_t chunk) {
  require(per_step(model),
          "train.truncate needs a loss at every step; a classifier has one at the end, which would teach the last "
          "chunk alone. Leave it out: gradients over chunks are exact then");
  PendingLoss loss;
  nn::CarryMap carry;
  for (const auto& [begin, end] : chunk_bounds(input.sequence.length(), chunk)) {
    const Variable logits = model.forward(slice_steps(model, input, begin, end), &carry);
    const auto part = chunk_loss(model, batch, logits, objective, begin, end);
    loss.parts.push_back(part->loss.value());
    backward(part->loss);
    carry = moved(carry, model.device(), false);
  }
  return loss;
}

}  // namespace

model::ModelInput model_input(const model::Model& model, const data::Batch& batch, bool training, uint64_t random_key,
                              int64_t chunk) {
  const Device device = chunk > 0 && chunk < batch.length() ? Device{} : model.device();
  model::ModelInput input;
  if (batch.tokens.defined()) {
    const model::ModelShape& shape = model.shape();
    check_ids("token", batch.tokens, shape.vocabulary + (shape.start_token ? 1 : 0));
  }
  input.tokens = batch.tokens.to(device);
  input.frames = batch.frames.defined() ? batch.frames.to(model.dtype()).to(device) : Tensor();
  input.sequence = nn::make_sequence(batch.position, batch.record, batch.records, 0, device);
  input.sequence.training = training;
  input.sequence.random_key = random_key;
  return input;
}

LossResult batch_loss(const model::Model& model, const data::Batch& batch, const model::ModelInput& input,
                      const Objective& objective, int64_t target_count) {
  return loss_of_logits(model.forward(input), batch.targets, objective, target_count);
}

double PendingLoss::wait() const {
  double sum = 0;
  for (const Tensor& part : parts) {
    sum += part.item();
  }
  return sum;
}

PendingLoss accumulate_gradients(const model::Model& model, const data::Batch& batch, const model::ModelInput& input,
                                 const Objective& objective, const Chunking& chunking) {
  if (chunking.steps > 0 && chunking.steps < input.sequence.length()) {
    return chunking.truncate ? truncated_gradients(model, batch, input, objective, chunking.steps)
                             : chunked_gradients(model, batch, input, objective, chunking);
  }
  const LossResult result = batch_loss(model, batch, input, objective, batch.target_count);
  backward(result.loss);
  return {{result.loss.value()}};
}

}  // namespace blockstate::train
