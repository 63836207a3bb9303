// SPDX-License-Identifier: Apache-2.0
// Training that begins with short sequences.
#include <catch2/catch.hpp>

#include "core/base/random.h"
#include "core/train/trainer.h"
#include "tests/support/temp_dir.h"

namespace blockstate {
namespace {

constexpr int64_t kSteps = 10, kVocabulary = 5;

class Records : public data::Dataset {
 public:
  int64_t size() const override { return 6; }
  int64_t length(int64_t index) const override { return 18 + 2 * index; }
  data::Example get(int64_t index) const override {
    data::Example example;
    example.name = join("record ", index);
    RandomStream random(static_cast<uint64_t>(index) + 1);
    for (int64_t t = 0; t < length(index); ++t) {
      example.tokens.push_back(static_cast<int64_t>(random.below(kVocabulary)));
    }
    return example;
  }
};

std::vector<double> losses(const std::filesystem::path& run, int64_t stop_at, const train::Chunking& chunking,
                           const train::LengthConfig& length, model::HeadKind head = model::HeadKind::kLanguageModel) {
  model::ModelConfig config;
  config.d_model = 8;
  config.blocks = {"mamba gated_mlp"};
  config.dropout = 0.2;
  const model::Model model(config, {.head = head, .vocabulary = kVocabulary, .channels = 0, .outputs = kVocabulary},
                           nn::Initialiser(3, DType::kFloat64));
  data::Loader loader(std::make_shared<Records>(),
                      {.batch_size = 3, .seed = 5, .batch = {.targets = data::TargetKind::kNextToken}});
  const train::CheckpointStore store(run);
  store.prepare();
  train::TrainerOptions options;
  options.steps = kSteps;
  options.chunking = chunking;
  options.length = length;
  std::vector<double> found;
  std::atomic<bool> stop = false;
  train::TrainerObserver observer;
  observer.on_step = [&](const train::StepEvent& event) {
    found.push_back(event.loss);
    stop = event.step >= stop_at;
  };
  train::Trainer trainer(model, {}, options, loader, {}, store, config::Value(config::Value::Table()), observer);
  trainer.resume();
  trainer.run(stop);
  return found;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(a[i] - b[i]));
  }
  return most;
}

TEST_CASE("sequences double at equal distances until they are whole", "[training]") {
  const train::LengthConfig config{.length_start = 4, .length_warmup = 9};
  std::vector<int64_t> found;
  for (int64_t step = 0; step < 11; ++step) {
    found.push_back(train::warmed_up_length(config, step, 20));
  }
  CHECK(found == std::vector<int64_t>{4, 4, 4, 8, 8, 8, 16, 16, 16, 20, 20});
  CHECK(train::warmed_up_length({}, 0, 20) == 20);
  CHECK(train::warmed_up_length(config, 0, 3) == 3);
}

TEST_CASE("short sequences first: groups of rows are the batch, and a stop changes nothing", "[training]") {
  const test::TempDir folder;
  const train::LengthConfig warm{.length_start = 4, .length_warmup = 6};
  const auto whole = losses(folder.path() / "whole", kSteps, {}, warm);
  REQUIRE(whole.size() == kSteps);
  // Pieces of 4 and 8 steps in groups of as many steps as 3 rows of a chunk.
  const auto grouped = losses(folder.path() / "grouped", kSteps, {.steps = 5}, warm);
  CHECK(largest_difference(grouped, whole) <= 1e-10);
  CHECK(largest_difference(losses(folder.path() / "cold", kSteps, {}, {}), whole) > 1e-3);
  auto parts = losses(folder.path() / "parts", 3, {.steps = 5}, warm);
  const auto rest = losses(folder.path() / "parts", kSteps, {.steps = 5}, warm);
  parts.insert(parts.end(), rest.begin(), rest.end());
  CHECK(parts == grouped);
}

TEST_CASE("a warm-up of the length needs targets at every step", "[training]") {
  const test::TempDir folder;
  CHECK_THROWS_WITH(
      losses(folder.path(), kSteps, {}, {.length_start = 4, .length_warmup = 6}, model::HeadKind::kClassify),
      Catch::Contains("train.length_start needs a target at every step"));
}

}  // namespace
}  // namespace blockstate
