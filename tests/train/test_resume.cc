// SPDX-License-Identifier: Apache-2.0
// A run that is stopped and goes on has the same bits as one that was never stopped: losses, parameters, optimiser.
#include <catch2/catch.hpp>
#include <cstring>

#include "core/train/trainer.h"
#include "tests/support/fill.h"
#include "tests/support/temp_dir.h"
#include "tests/train/different.h"

namespace blockstate {
namespace {

constexpr int64_t kSteps = 12, kVocabulary = 6;

/// 22 records of uneven length: 6 batches of 4 an epoch, the last one short, so 12 steps are two epochs.
class Records : public data::Dataset {
 public:
  int64_t size() const override { return 22; }
  int64_t length(int64_t index) const override { return 9 + index % 7; }
  data::Example get(int64_t index) const override {
    data::Example example;
    example.name = join("record ", index);
    example.tokens = test::random_ids(static_cast<uint64_t>(index), length(index), 0, kVocabulary);
    example.label = index % 3;
    return example;
  }
};

model::ModelConfig mixed_config() {
  model::ModelConfig config;
  config.d_model = 8;
  config.blocks = {"mamba block_state gated_mlp attention"};
  config.dropout = 0.2;
  config.pooling = nn::PoolingKind::kAttention;
  config.sublayers["attention"] = {"attention", nn::AttentionConfig{.heads = 2, .window = 5}};
  config.sublayers["block_state"] = {"block_state", nn::BlockStateConfig{.window = 4, .states = 2, .heads = 2}};
  return config;
}

struct Report {
  std::vector<double> losses;
  std::vector<int64_t> saves;
  train::NamedTensors parameters, optimizer;
  train::TrainState state;
  train::TrainSummary summary;
};

/// One process: a fresh model, resumed from the store if there is something, trained until `stop_at` steps are done.
Report train_once(const std::filesystem::path& run, int64_t stop_at, int64_t save_every = 0, uint64_t seed = 7,
                  int64_t chunk = 0) {
  const model::Model model(mixed_config(),
                           {.head = model::HeadKind::kClassify, .vocabulary = kVocabulary, .outputs = 3},
                           nn::Initialiser(seed));
  data::Loader loader(std::make_shared<Records>(),
                      {.batch_size = 4, .seed = 11, .batch = {.targets = data::TargetKind::kLabel}});
  const train::CheckpointStore store(run);
  store.prepare();
  Report report;
  std::atomic<bool> stop = false;
  train::TrainerObserver observer;
  observer.on_step = [&](const train::StepEvent& event) {
    report.losses.push_back(event.loss);
    stop = event.step >= stop_at;
  };
  observer.on_save = [&](int64_t step, const std::filesystem::path&) { report.saves.push_back(step); };
  train::TrainerOptions options;
  options.optimizer.lr = 1e-2;
  options.schedule.warmup = 3;
  options.steps = kSteps;
  options.save_every = save_every;
  options.seed = seed;
  options.chunking.steps = chunk;
  train::Trainer trainer(model, {.label_smoothing = 0.1}, options, loader, {}, store,
                         config::Value(config::Value::Table()), observer);
  trainer.resume();
  report.summary = trainer.run(stop);
  const train::Checkpoint checkpoint = train::read_checkpoint(store.latest()->directory);
  report.parameters = checkpoint.model;
  report.optimizer = checkpoint.optimizer;
  report.state = checkpoint.state;
  // The file holds what the model has.
  for (const auto& [name, tensor] : train::parameter_tensors(model)) {
    REQUIRE(std::memcmp(tensor.bytes(), checkpoint.model.at(name).bytes(),
                        static_cast<size_t>(tensor.elements() * dtype_size(tensor.dtype()))) == 0);
  }
  return report;
}

}  // namespace

TEST_CASE("stopping and going on gives the bits of not stopping", "[training]") {
  const int64_t chunk = GENERATE(0, 4);
  const test::TempDir folder;
  const Report whole = train_once(folder.path() / "whole", kSteps, 0, 7, chunk);
  REQUIRE(whole.losses.size() == kSteps);
  CHECK(whole.summary.finished);
  CHECK(whole.state.loader_position == kSteps);
  for (const std::vector<int64_t>& stops :
       {std::vector<int64_t>{1}, {6}, {4, 9}, {2, 3, 5, 11}}) {  // an epoch is 6 steps: before, at and behind its end
    const std::filesystem::path run = folder.path() / join("parts_", stops.size(), "_", stops[0]);
    std::vector<double> losses;
    for (const int64_t stop : stops) {
      const Report part = train_once(run, stop, 0, 7, chunk);
      CHECK_FALSE(part.summary.finished);
      CHECK(part.summary.step == stop);
      CHECK(part.saves == std::vector<int64_t>{stop});  // the stop flag saves
      CHECK(part.state.loader_position == stop);
      losses.insert(losses.end(), part.losses.begin(), part.losses.end());
    }
    const Report rest = train_once(run, kSteps, 0, 7, chunk);
    losses.insert(losses.end(), rest.losses.begin(), rest.losses.end());
    CAPTURE(stops.size(), stops[0]);
    CHECK(losses == whole.losses);
    CHECK(test::different(rest.parameters, whole.parameters) == 0);
    CHECK(test::different(rest.optimizer, whole.optimizer) == 0);
    CHECK(rest.state.tokens_seen == whole.state.tokens_seen);
    CHECK(rest.summary.finished);
  }
  // A control: another seed draws other dropout and other parameters.
  CHECK(train_once(folder.path() / "other", kSteps, 0, 8, chunk).losses != whole.losses);
}

TEST_CASE("a run that ended does nothing more, and says so", "[training]") {
  const test::TempDir folder;
  const Report whole = train_once(folder.path(), kSteps);
  const Report again = train_once(folder.path(), kSteps);
  CHECK(again.losses.empty());
  CHECK(again.summary.finished);
  CHECK(test::different(again.parameters, whole.parameters) == 0);
}

TEST_CASE("checkpoints are saved as often as asked", "[training]") {
  const test::TempDir folder;
  CHECK(train_once(folder.path(), kSteps, 5).saves == std::vector<int64_t>{5, 10, 12});
  const train::CheckpointStore store(folder.path());
  CHECK(store.list().size() == 2);
}

TEST_CASE("a run is not resumed with another seed", "[training]") {
  const test::TempDir folder;
  train_once(folder.path(), 2);
  CHECK_THROWS_WITH(train_once(folder.path(), kSteps, 0, 8),
                    Catch::Matchers::Contains("seed 7") && Catch::Matchers::Contains("seed 8"));
}

}  // namespace blockstate
