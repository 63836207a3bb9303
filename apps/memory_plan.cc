// SPDX-License-Identifier: Apache-2.0
#include "apps/memory_plan.h"

#include <algorithm>

#include "apps/data_source.h"
#include "core/train/objective.h"

namespace blockstate::apps {
namespace {

data::Batch probe_batch(const model::ModelShape& shape, int64_t length) {
  data::Example example;
  example.name = "memory plan";
  if (shape.vocabulary > 0) {
    example.tokens.assign(static_cast<size_t>(length), 0);
  } else {
    example.channels = shape.channels;
    example.frames.assign(static_cast<size_t>(length * shape.channels), 0.5F);
  }
  example.label = 0;
  example.position_labels.assign(static_cast<size_t>(length), 0);
  const data::BatchOptions options = batch_options({shape, {}}, true);
  if (options.targets != data::TargetKind::kPerPosition) {
    example.position_labels.clear();
  }
  return data::collate({example}, options);
}

/// Peak bytes above what is there already, of one forward and backward.
int64_t measured_step(const model::Model& model, int64_t length) {
  const data::Batch batch = probe_batch(model.shape(), length);
  const int64_t before = memory_statistics(model.device()).in_use;
  reset_peak_memory(model.device());
  train::accumulate_gradients(model, batch, train::model_input(model, batch, true, 0), {}, 0);
  const int64_t peak = memory_statistics(model.device()).peak - before;
  for (const nn::Parameter& parameter : model.parameters()) {
    Variable variable = parameter.variable;
    variable.clear_grad();
  }
  return peak;
}

}  // namespace

MemoryPlan plan_memory(const model::Model& model, int64_t batch, int64_t length, int64_t chunk) {
  MemoryPlan plan;
  for (const nn::Parameter& parameter : model.parameters()) {
    plan.parameters += parameter.variable.value().elements() * dtype_size(parameter.variable.dtype());
  }
  plan.gradients = plan.parameters;
  plan.optimizer = 2 * plan.parameters;
  plan.carry = model.carry_bytes(length);
  const int64_t unit = std::max<int64_t>(512, 2 * model.stride());
  const double short_step = static_cast<double>(measured_step(model, unit));
  const double long_step = static_cast<double>(measured_step(model, 2 * unit));
  const double slope = (long_step - short_step) / static_cast<double>(unit);
  const int64_t piece = chunk > 0 ? std::min(chunk, length) : length;
  // What does not grow with the length is the gradients, which are counted apart.
  plan.activations = static_cast<int64_t>(slope * static_cast<double>(piece * batch));
  if (chunk > 0) {
    plan.activations += (length + piece - 1) / piece * batch * plan.carry;
  }
  return plan;
}

std::string advise_memory(const model::Model& model, int64_t batch, int64_t length) {
  const MemoryPlan one = plan_memory(model, 1, length, 0);
  release_cached_memory(model.device());
  // Gradients have yet to come; a tenth is left to what kernels work with and to fragments.
  const double room = 0.9 * static_cast<double>(free_memory(model.device()) - one.gradients);
  const double a_record = static_cast<double>(std::max<int64_t>(1, one.activations));
  const auto records = static_cast<int64_t>(room / a_record);
  int64_t chunk = 1;
  while (2 * chunk <= length &&
         static_cast<double>(2 * chunk * batch) / static_cast<double>(length) * a_record <= room) {
    chunk *= 2;
  }
  std::string advice;
  if (records >= 1) {
    advice = join("train.batch = ", std::min(records, batch), " would fit");
  }
  if (chunk >= model.stride()) {
    advice += join(advice.empty() ? "" : ", or ", "train.chunk = ", chunk, advice.empty() ? " would fit" : "");
  }
  return advice.empty() ? "no batch of this length fits, nor a chunk of it; lower model.d_model" : advice;
}

}  // namespace blockstate::apps
