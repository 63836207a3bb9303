// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "apps/bench/cases.h"
#include "core/base/check.h"
#include "core/base/random.h"
#include "core/model/generator.h"
#include "core/model/model.h"
#include "core/train/evaluate.h"
#include "core/train/objective.h"
#include "core/train/optimizer.h"
#include "core/train/recorded_gradients.h"

namespace blockstate::apps {
namespace {

struct Stack {
  std::string name;
  std::string blocks;
  int64_t d_model;
  int64_t vocabulary;
};

std::unique_ptr<model::Model> build(const Stack& stack, const Bench& bench) {
  model::ModelConfig config;
  config.d_model = stack.d_model;
  config.blocks = {stack.blocks};
  for (const char* name : {"attention", "block_state"}) {
    model::SublayerConfig settings = model::default_sublayer(name);
    const int64_t heads = std::max<int64_t>(1, stack.d_model / 64);
    if (auto* attention = std::get_if<nn::AttentionConfig>(&settings.settings)) {
      attention->heads = heads;
    } else if (auto* block_state = std::get_if<nn::BlockStateConfig>(&settings.settings)) {
      block_state->heads = heads;
      block_state->window = 512;
      block_state->ssm = "mamba";
    }
    config.sublayers[name] = settings;
  }
  model::ModelShape shape;
  shape.vocabulary = shape.outputs = stack.vocabulary;
  return std::make_unique<model::Model>(config, shape, nn::Initialiser(1, DType::kFloat32, bench.device()),
                                        bench.dtype());
}

data::Batch random_batch(int64_t batch, int64_t length, int64_t vocabulary) {
  RandomStream random(1);
  std::vector<data::Example> examples(static_cast<size_t>(batch));
  for (data::Example& example : examples) {
    example.name = "random";
    for (int64_t t = 0; t <= length; ++t) {
      example.tokens.push_back(static_cast<int64_t>(random.below(static_cast<uint64_t>(vocabulary))));
    }
  }
  data::BatchOptions options;
  options.targets = data::TargetKind::kNextToken;
  return data::collate(examples, options);
}

std::string shape_of(int64_t batch, int64_t length, int64_t chunk) {
  return join("B", batch, " L", length, chunk > 0 ? join(" chunk ", chunk) : "");
}

/// What is computed twice, to save memory.
struct Twice {
  int64_t keep = 0;  ///< MiB for what a chunk's second pass then need not compute
  model::Recompute recompute = model::Recompute::kNone;

  std::string text() const {
    const char* names[] = {"", " recompute cheap", " recompute all"};
    return (keep > 0 ? join(" keep ", keep) : "") + names[static_cast<size_t>(recompute)];
  }
};

/// A step of training: batch to the device, forward, backward, clipping, AdamW.
ModelCase training(const Stack& stack, int64_t batch, int64_t length, int64_t chunk, int64_t steps,
                   const Twice& twice = {}) {
  return {stack.name, "training step", shape_of(batch, length, chunk) + twice.text(), [=](const Bench& bench) {
            const auto model = build(stack, bench);
            model->set_recompute(twice.recompute);
            train::AdamW optimizer(*model, {});
            train::RecordedGradients gradients(*model, {});
            const data::Batch tokens = random_batch(batch, length, stack.vocabulary);
            reset_peak_memory(bench.device());
            ModelResult result;
            // As the trainer does it: the next batch is made while the device works.
            model::ModelInput input = train::model_input(*model, tokens, true, 0, chunk);
            result.seconds = bench.median_wall(
                [&] {
                  const train::PendingLoss loss = gradients(tokens, input, {.steps = chunk, .keep = twice.keep << 20});
                  optimizer.start_step(1);
                  optimizer.clear_gradients();
                  input = train::model_input(*model, tokens, true, 0, chunk);
                  loss.wait();
                  optimizer.finish_step();
                },
                steps);
            result.tokens_per_second = static_cast<double>(batch * length) / result.seconds;
            result.peak_bytes = memory_statistics(bench.device()).peak;
            return result;
          }};
}

/// A prompt through the model: the carry after it, in chunks.
ModelCase prefill(const Stack& stack, int64_t length, int64_t chunk, int64_t repetitions) {
  return {stack.name, "prefill", shape_of(1, length, chunk), [=](const Bench& bench) {
            GradMode off(false);
            const auto model = build(stack, bench);
            const data::Batch tokens = random_batch(1, length, stack.vocabulary);
            const model::ModelInput input = train::model_input(*model, tokens, false, 0, chunk);
            reset_peak_memory(bench.device());
            ModelResult result;
            result.seconds = bench.median_wall(
                [&] {
                  nn::CarryMap carry;
                  for (int64_t begin = 0; begin < length; begin += chunk) {
                    model->run(train::slice_steps(*model, input, begin, std::min(length, begin + chunk)), &carry);
                  }
                },
                repetitions);
            result.tokens_per_second = static_cast<double>(length) / result.seconds;
            result.peak_bytes = memory_statistics(bench.device()).peak;
            return result;
          }};
}

/// Greedy, one token a row and step; the time of a token, the prompt left out.
ModelCase generation(const Stack& stack, int64_t batch, int64_t length, int64_t steps) {
  return {stack.name, "generation", join("B", batch, " prompt ", length, " new ", steps), [=](const Bench& bench) {
            GradMode off(false);
            const auto model = build(stack, bench);
            const data::Batch tokens = random_batch(batch, length, stack.vocabulary);
            reset_peak_memory(bench.device());
            model::Generator generator(*model, batch);
            generator.prompt(tokens.tokens);
            const auto advance = [&] { generator.step(generator.best()); };
            ModelResult result;
            result.seconds = bench.median_wall(advance, steps);
            result.tokens_per_second = static_cast<double>(batch) / result.seconds;
            result.peak_bytes = memory_statistics(bench.device()).peak;
            return result;
          }};
}

}  // namespace

std::vector<ModelCase> model_cases(Device device) {
  if (device.kind == DeviceKind::kCpu) {
    const Stack mamba{"mamba d64 x 4", "mamba * 4", 64, 256}, attention{"attention d64 x 4", "attention * 4", 64, 256};
    const Stack hybrid{"hybrid d64 x 4", "mamba block_state mamba attention", 64, 256};
    return {training(mamba, 4, 512, 0, 5),      training(hybrid, 4, 512, 0, 5), training(attention, 4, 512, 0, 5),
            training(mamba, 1, 16384, 2048, 3), prefill(mamba, 16384, 2048, 3), generation(mamba, 1, 128, 64)};
  }
  constexpr int64_t kMillion = 1 << 20;
  const Stack tiny{"mamba d64 x 4", "mamba * 4", 64, 256};
  const Stack large{"mamba d768 x 24", "mamba * 24", 768, 256};
  const Stack small{"mamba d256 x 8", "mamba * 8", 256, 16};
  const Stack wide{"mamba d512 x 8", "mamba * 8", 512, 16};
  const Stack hybrid{"hybrid d256 x 8", "(mamba * 3 block_state) * 2", 256, 16};
  const Stack attention{"attention d256", "(attention gated_mlp) * 4", 256, 16};
  const Stack gpt{"attention d768", "(attention gated_mlp) * 12", 768, 256};
  return {training(large, 8, 2048, 0, 10),
          training(gpt, 8, 2048, 0, 10),
          training(small, 64, 1024, 0, 10),
          training(small, 64, 1024, 0, 10, {.recompute = model::Recompute::kCheap}),
          training(small, 64, 1024, 0, 10, {.recompute = model::Recompute::kAll}),
          training(hybrid, 64, 1024, 0, 10),
          training(attention, 64, 1024, 0, 10),
          training(tiny, 4, 512, 0, 100),
          training(small, 1, kMillion, 1 << 17, 5),
          training(small, 1, kMillion, 1 << 17, 5, {.keep = 7 << 10}),
          training(hybrid, 1, kMillion, 1 << 17, 3),
          training(wide, 1, kMillion, 1 << 16, 3),
          prefill(small, kMillion, 1 << 18, 5),
          prefill(small, kMillion, kMillion, 3),
          prefill(large, 1 << 18, 1 << 17, 5),
          generation(large, 1, 128, 256),
          generation(large, 16, 128, 256),
          generation(large, 128, 128, 256)};
}

std::vector<ModelCase> length_cases(Device device) {
  const bool gpu = device.kind == DeviceKind::kCuda;
  const Stack mamba = gpu ? Stack{"mamba d256 x 8", "mamba * 8", 256, 16} : Stack{"mamba d32 x 2", "mamba * 2", 32, 16};
  const Stack hybrid = gpu ? Stack{"hybrid d256 x 8", "(mamba * 3 block_state) * 2", 256, 16}
                           : Stack{"hybrid d32 x 2", "mamba block_state", 32, 16};
  const int64_t chunk = gpu ? 1 << 16 : 1 << 12;
  const int first = gpu ? 16 : 12, last = gpu ? 24 : 16;
  std::vector<ModelCase> cases;
  for (const Stack& stack : {mamba, hybrid}) {
    for (int power = first; power <= last; power += 2) {
      const int64_t length = int64_t{1} << power;
      if (power <= first + 4) {
        cases.push_back(training(stack, 1, length, 0, 3));
      }
      if (length > chunk) {
        cases.push_back(training(stack, 1, length, chunk, power < last ? 3 : 1));
      }
      if (gpu && power == first + 4) {
        using model::Recompute;
        const std::pair<int64_t, Twice> cuts[] = {{0, {.recompute = Recompute::kCheap}},
                                                  {0, {.recompute = Recompute::kAll}},
                                                  {chunk / 4, {.keep = 4 << 10}},
                                                  {chunk, {.keep = 256}},
                                                  {chunk, {.keep = 10 << 10}},
                                                  {2 * chunk, {}},
                                                  {2 * chunk, {.keep = 256}},
                                                  {2 * chunk, {.keep = 256, .recompute = Recompute::kCheap}},
                                                  {2 * chunk, {.keep = 7 << 10}},
                                                  {3 * chunk, {}},
                                                  {3 * chunk, {.keep = 256}},
                                                  {4 * chunk, {}},
                                                  {4 * chunk, {.keep = 256}},
                                                  {4 * chunk, {.keep = 256, .recompute = Recompute::kCheap}},
                                                  {4 * chunk, {.keep = 256, .recompute = Recompute::kAll}}};
        for (const auto& [steps, twice] : cuts) {
          cases.push_back(training(stack, 1, length, steps, 3, twice));
        }
      }
    }
    if (gpu) {
      cases.push_back(training(stack, 1, int64_t{1} << last, 3 * chunk, 1));
    }
    for (int power = first; power <= last + 2; power += 2) {
      cases.push_back(prefill(stack, int64_t{1} << power, chunk, power < last ? 3 : 1));
    }
  }
  return cases;
}

}  // namespace blockstate::apps
