// SPDX-License-Identifier: Apache-2.0
// Training on a GPU: the loss curve of the CPU, the bits of not having stopped, and checkpoints that change devices.
#include <catch2/catch.hpp>
#include <cmath>

#include "core/train/trainer.h"
#include "tests/support/fill.h"
#include "tests/support/temp_dir.h"
#include "tests/train/different.h"

namespace blockstate {
namespace {

constexpr Device kGpu{DeviceKind::kCuda, 0};
constexpr int64_t kSteps = 50, kVocabulary = 6;

/// Records whose next symbol follows from the one before but for some noise: there is something to learn.
class Records : public data::Dataset {
 public:
  int64_t size() const override { return 64; }
  int64_t length(int64_t index) const override { return 90 + index % 30; }
  data::Example get(int64_t index) const override {
    data::Example example;
    example.name = join("record ", index);
    const std::vector<int64_t> noise = test::random_ids(static_cast<uint64_t>(index), length(index), 0, 10);
    int64_t symbol = index % kVocabulary;
    for (const int64_t draw : noise) {
      symbol = draw == 0 ? (symbol * 5 + 2) % kVocabulary : (symbol + 1) % kVocabulary;
      example.tokens.push_back(symbol);
    }
    return example;
  }
};

model::ModelConfig mixed_config() {
  model::ModelConfig config;
  config.d_model = 32;
  config.blocks = {"mamba block_state gated_mlp attention"};
  config.dropout = 0.1;
  config.sublayers["attention"] = {"attention", nn::AttentionConfig{.heads = 2, .window = 24}};
  config.sublayers["block_state"] = {"block_state", nn::BlockStateConfig{.window = 16, .states = 2, .heads = 2}};
  return config;
}

struct Report {
  std::vector<double> losses;
  train::NamedTensors parameters, optimizer;
};

/// One process: resumed from the store if there is something, trained until `stop_at` steps are done.
Report train_once(const std::filesystem::path& run, Device device, DType activations, int64_t stop_at) {
  const model::Model model(mixed_config(), {.vocabulary = kVocabulary, .outputs = kVocabulary},
                           nn::Initialiser(5, DType::kFloat32, device), activations);
  data::Loader loader(std::make_shared<Records>(),
                      {.batch_size = 8, .seed = 11, .batch = {.targets = data::TargetKind::kNextToken}});
  const train::CheckpointStore store(run);
  store.prepare();
  Report report;
  std::atomic<bool> stop = false;
  train::TrainerObserver observer;
  observer.on_step = [&](const train::StepEvent& event) {
    report.losses.push_back(event.loss);
    stop = event.step >= stop_at;
  };
  train::TrainerOptions options;
  options.optimizer.lr = 3e-3;
  options.schedule.warmup = 5;
  options.steps = kSteps;
  options.seed = 5;
  train::Trainer trainer(model, {}, options, loader, {}, store, config::Value(config::Value::Table()), observer);
  trainer.resume();
  trainer.run(stop);
  const train::Checkpoint checkpoint = train::read_checkpoint(store.latest()->directory);
  report.parameters = checkpoint.model;
  report.optimizer = checkpoint.optimizer;
  return report;
}

}  // namespace

TEST_CASE("training on a GPU follows the loss curve of the CPU", "[cuda][training]") {
  const test::TempDir folder;
  const Report cpu = train_once(folder.path() / "cpu", {}, DType::kFloat32, kSteps);
  const Report gpu = train_once(folder.path() / "gpu", kGpu, DType::kFloat32, kSteps);
  const Report rounded = train_once(folder.path() / "rounded", kGpu, DType::kBFloat16, kSteps);
  REQUIRE(gpu.losses.size() == kSteps);
  CHECK(cpu.losses.back() < 0.8 * cpu.losses.front());
  for (size_t i = 0; i < gpu.losses.size(); ++i) {
    INFO("step " << i + 1);
    CHECK(gpu.losses[i] == Approx(cpu.losses[i]).epsilon(1e-3));
    CHECK(rounded.losses[i] == Approx(cpu.losses[i]).epsilon(0.05));
  }
}

TEST_CASE("stopping and going on gives the bits of not stopping on a GPU", "[cuda][training]") {
  const DType activations = GENERATE(DType::kFloat32, DType::kBFloat16);
  const test::TempDir folder;
  const Report whole = train_once(folder.path() / "whole", kGpu, activations, kSteps);
  train_once(folder.path() / "parts", kGpu, activations, 7);
  train_once(folder.path() / "parts", kGpu, activations, 31);
  const Report last = train_once(folder.path() / "parts", kGpu, activations, kSteps);
  CHECK(test::different(last.parameters, whole.parameters) == 0);
  CHECK(test::different(last.optimizer, whole.optimizer) == 0);
  CHECK(std::equal(last.losses.rbegin(), last.losses.rend(), whole.losses.rbegin()));
}

TEST_CASE("a checkpoint of one device is continued on the other", "[cuda][training]") {
  const test::TempDir folder;
  const Report whole = train_once(folder.path() / "cpu", {}, DType::kFloat32, kSteps);
  train_once(folder.path() / "there", {}, DType::kFloat32, 20);
  train_once(folder.path() / "there", kGpu, DType::kFloat32, 40);
  const Report back = train_once(folder.path() / "there", {}, DType::kFloat32, kSteps);
  REQUIRE(back.losses.size() == 10);
  for (size_t i = 0; i < back.losses.size(); ++i) {
    CHECK(back.losses[i] == Approx(whole.losses[40 + i]).epsilon(1e-3));
  }
}

}  // namespace blockstate
