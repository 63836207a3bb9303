// SPDX-License-Identifier: Apache-2.0
#include "core/train/memory_plan.h"

#include <algorithm>

#include "core/train/objective.h"

namespace blockstate::train {
namespace {

data::Batch probe_batch(const model::ModelShape& shape, int64_t batch, int64_t length) {
  data::Example example;
  example.name = "memory plan";
  data::BatchOptions options;
  options.targets = target_kind(shape.head);
  options.start_token = shape.start_token ? shape.vocabulary : -1;
  if (shape.vocabulary > 0) {
    const bool last_is_target_only = options.targets == data::TargetKind::kNextToken && !shape.start_token;
    example.tokens.assign(static_cast<size_t>(length) + (last_is_target_only ? 1 : 0), 0);
  } else {
    example.channels = shape.channels;
    example.frames.assign(static_cast<size_t>(length * shape.channels), 0.5F);
  }
  example.label = 0;
  if (options.targets == data::TargetKind::kPerPosition) {
    example.position_labels.assign(static_cast<size_t>(length), 0);
  }
  return data::collate(std::vector<data::Example>(static_cast<size_t>(batch), example), options);
}

/// Carries at the edges of a row's chunks. What has one size is there for each. What grows (keys and values of all
/// steps) is there once for the edges, and in the last chunk joined with the chunk's own, handed on, and as the
/// gradients of both.
int64_t edge_bytes(const model::Model& model, int64_t length, int64_t chunk) {
  const int64_t edges = (length - 1) / chunk, whole = model.carry_bytes(length);
  if (edges < 2) {
    return edges * whole;
  }
  const int64_t a_chunk = model.carry_bytes(chunk);
  const double growth = static_cast<double>(whole - a_chunk) / static_cast<double>(length - chunk);  // a step
  const auto grown = static_cast<int64_t>(growth * static_cast<double>(length));
  return edges * (whole - grown) + 5 * grown;
}

/// Peak bytes of one forward and backward above `before`, of rows in one piece, or in two of which the second begins
/// with a carry; without the edges between. Gradients are gone again afterwards.
int64_t measured_step(const model::Model& model, int64_t batch, int64_t piece, bool chunked, int64_t before) {
  const int64_t length = chunked ? 2 * piece : piece, chunk = chunked ? piece : 0;
  const data::Batch examples = probe_batch(model.shape(), batch, length);
  reset_peak_memory(model.device());
  accumulate_gradients(model, examples, model_input(model, examples, true, 0, chunk), {}, {.steps = chunk});
  const int64_t edges = chunked ? batch * edge_bytes(model, length, piece) : 0;
  const int64_t peak = memory_statistics(model.device()).peak - before - edges;
  for (const nn::Parameter& parameter : model.parameters()) {
    Variable variable = parameter.variable;
    variable.clear_grad();
  }
  return peak;
}

/// Steps of all rows together that are measured: enough that what kernels work with has its full size, little enough
/// to take no time.
int64_t probe_steps(Device device) { return device.kind == DeviceKind::kCuda ? 1 << 16 : 1 << 10; }

}  // namespace

MemoryPlan plan_memory(const model::Model& model, int64_t batch, int64_t length, int64_t chunk) {
  MemoryPlan plan;
  for (const nn::Parameter& parameter : model.parameters()) {
    plan.parameters += parameter.variable.value().elements() * dtype_size(parameter.variable.dtype());
  }
  plan.gradients = plan.parameters;
  plan.optimizer = 2 * plan.parameters;
  plan.carry = model.carry_bytes(length);
  const bool chunked = chunk > 0 && chunk < length;
  const int64_t piece = chunked ? chunk : length;
  const int64_t shortest = std::max<int64_t>(512, 2 * model.stride());
  const int64_t rows = std::clamp<int64_t>(probe_steps(model.device()) / (2 * shortest), 1, batch);
  const int64_t unit = std::max(shortest, std::min(piece / 2, probe_steps(model.device()) / (2 * rows)));
  const int64_t before = memory_statistics(model.device()).in_use;
  const double short_step = static_cast<double>(measured_step(model, rows, unit, chunked, before));
  const double long_step = static_cast<double>(measured_step(model, rows, 2 * unit, chunked, before));
  const double slope = std::max(0.0, long_step - short_step) / static_cast<double>(rows * unit);
  plan.steps = piece * batch;
  plan.activations = static_cast<int64_t>(slope * static_cast<double>(piece * batch));
  // What stays as the length goes to zero: gradients, which are counted apart, rounded copies of parameters, and what
  // kernels work with.
  const double rest = short_step - slope * static_cast<double>(rows * unit);
  plan.working = std::max<int64_t>(0, static_cast<int64_t>(rest) - plan.gradients);
  if (chunked) {
    plan.edges = batch * edge_bytes(model, length, piece);
  }
  return plan;
}

namespace {

/// Bytes left for activations: of what is free, a tenth goes to fragments.
int64_t free_for_activations(const model::Model& model, const MemoryPlan& plan, bool before_training) {
  const int64_t others = plan.gradients + plan.working + (before_training ? plan.optimizer : 0);
  return static_cast<int64_t>(0.9 * static_cast<double>(free_memory(model.device()) - others));
}

/// The largest power of two that is a chunk which fits, or the whole length; 0: none.
int64_t fitting_chunk(const model::Model& model, const MemoryPlan& plan, int64_t batch, int64_t length, int64_t room) {
  const auto a_step = [](const MemoryPlan& of) {
    return static_cast<double>(of.activations) / static_cast<double>(std::max<int64_t>(1, of.steps));
  };
  if (a_step(plan) * static_cast<double>(length * batch) <= static_cast<double>(room)) {
    return length;
  }
  const double a_step_of_chunk = a_step(plan_memory(model, 1, length, (length + 1) / 2));
  const auto needs = [&](int64_t chunk) {
    const int64_t edges = batch * edge_bytes(model, length, chunk);
    return a_step_of_chunk * static_cast<double>(chunk * batch) + static_cast<double>(edges);
  };
  int64_t chunk = 1;
  while (2 * chunk < length) {
    chunk *= 2;
  }
  while (chunk >= model.stride() && chunk > 1 && needs(chunk) > static_cast<double>(room)) {
    chunk /= 2;  // needs less for activations, more for carries
  }
  return chunk >= model.stride() && needs(chunk) <= static_cast<double>(room) ? chunk : 0;
}

}  // namespace

std::string advise_memory(const model::Model& model, int64_t batch, int64_t length) {
  const MemoryPlan plan = plan_memory(model, 1, length, 0);
  release_cached_memory(model.device());
  const int64_t room = free_for_activations(model, plan, false);
  const int64_t records = room / std::max<int64_t>(1, plan.activations);
  const int64_t chunk = fitting_chunk(model, plan, batch, length, room);
  std::string advice;
  if (records >= 1) {
    advice = join("train.batch = ", std::min(records, batch), " would fit");
  }
  if (chunk > 0 && chunk < length) {
    advice += join(advice.empty() ? "" : ", or ", "train.chunk = ", chunk, advice.empty() ? " would fit" : "");
  }
  return advice.empty() ? "no batch of this length fits, nor a chunk of it; lower model.d_model" : advice;
}

int64_t spare_memory(const model::Model& model, const MemoryPlan& plan) {
  const int64_t step = plan.activations + plan.edges;
  return std::max<int64_t>(0, free_for_activations(model, plan, true) - step);
}

int64_t choose_chunk(const model::Model& model, int64_t batch, int64_t length) {
  const MemoryPlan plan = plan_memory(model, batch, length, 0);
  release_cached_memory(model.device());
  const int64_t chunk = fitting_chunk(model, plan, batch, length, free_for_activations(model, plan, true));
  require(chunk > 0, "train.chunk = \"auto\": no chunk of ", batch, " records of ", length,
          " steps fits into memory; lower train.batch or model.d_model");
  return chunk < length ? chunk : 0;
}

}  // namespace blockstate::train
