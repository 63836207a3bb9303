// SPDX-License-Identifier: Apache-2.0
// A step of training beside its memory plan, on any device.
#pragma once

#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <vector>

#include "core/base/random.h"
#include "core/train/memory_plan.h"
#include "core/train/optimizer.h"
#include "core/train/recorded_gradients.h"

namespace blockstate::test {

struct PlannedStep {
  std::vector<std::string> blocks;
  int64_t d_model, batch, length, chunk;
  model::Recompute recompute = model::Recompute::kNone;
};

/// Sizes at which activations are most of it.
inline std::vector<PlannedStep> planned_steps() {
  return {{{"mamba * 2"}, 64, 2, 3000, 0},
          {{"mamba gated_mlp", "block_state gated_mlp"}, 64, 3, 2048, 0},
          {{"attention gated_mlp"}, 64, 2, 2048, 0},
          {{"mamba * 2"}, 64, 1, 16384, 4096},
          {{"mamba full"}, 64, 1, 4096, 512},
          {{"mamba * 4"}, 64, 2, 3000, 0, model::Recompute::kCheap},
          {{"mamba * 2 block_state"}, 64, 1, 16384, 4096},
          {{"mamba * 2 block_state"}, 64, 1, 16384, 4096, model::Recompute::kAll}};
}

inline std::unique_ptr<model::Model> planned_model(const PlannedStep& step, Device device, DType activations) {
  model::ModelConfig config;
  config.d_model = step.d_model;
  config.blocks = step.blocks;
  for (const char* name : {"attention", "block_state"}) {
    config.sublayers[name] = model::default_sublayer(name);
  }
  config.sublayers["full"] = {"attention", nn::AttentionConfig{}};
  const model::ModelShape shape{
      .head = model::HeadKind::kLanguageModel, .vocabulary = 16, .channels = 0, .outputs = 16};
  auto model = std::make_unique<model::Model>(config, shape, nn::Initialiser(1, DType::kFloat32, device), activations);
  model->set_recompute(step.recompute);
  return model;
}

/// The peak of `steps` steps, parameters and optimiser included, is within 10 % of the plan. Returns it.
inline double check_plan(const PlannedStep& step, Device device, DType activations, int steps = 1) {
  const int64_t before = memory_statistics(device).in_use;
  const auto model = planned_model(step, device, activations);
  const train::MemoryPlan plan = train::plan_memory(*model, step.batch, step.length, step.chunk);
  train::AdamW optimizer(*model, {});
  RandomStream random(3);
  std::vector<data::Example> examples(static_cast<size_t>(step.batch));
  for (data::Example& example : examples) {
    for (int64_t t = 0; t <= step.length; ++t) {
      example.tokens.push_back(static_cast<int64_t>(random.below(16)));
    }
  }
  const data::Batch batch = data::collate(examples, {.targets = data::TargetKind::kNextToken});
  reset_peak_memory(device);
  const model::ModelInput input = train::model_input(*model, batch, true, 0);
  train::RecordedGradients gradients(*model, {});
  for (int i = 0; i < steps; ++i) {
    optimizer.clear_gradients();
    gradients(batch, input, {.steps = step.chunk}).wait();
    optimizer.step(1);
  }
  const auto peak = static_cast<double>(memory_statistics(device).peak - before);
  const auto planned = static_cast<double>(plan.total());
  const bool replayed = gradients.replayed() > 0;
  CAPTURE(step.blocks.front(), step.d_model, step.batch, step.length, step.chunk, replayed, planned, peak);
  CAPTURE(plan.parameters, plan.gradients, plan.optimizer, plan.activations, plan.working, plan.edges);
  CHECK(planned <= 1.1 * peak);
  CHECK(planned >= 0.9 * peak);
  CHECK(replayed == (device.kind == DeviceKind::kCuda && step.chunk == 0 && steps > 2));
  return peak;
}

}  // namespace blockstate::test
