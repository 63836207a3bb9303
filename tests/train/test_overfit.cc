// SPDX-License-Identifier: Apache-2.0
// One batch is learned by heart by every kind of sublayer, alone in its model.
#include <catch2/catch.hpp>

#include "core/model/model.h"
#include "core/train/objective.h"
#include "core/train/optimizer.h"
#include "tests/support/fill.h"

namespace blockstate {
namespace {

constexpr int64_t kVocabulary = 8, kLength = 16, kRecords = 4, kSteps = 120;

model::ModelConfig config_of(const std::string& name) {
  model::ModelConfig config;
  config.d_model = 32;
  config.blocks = {name + " * 2"};
  config.sublayers["s4d"] = {"s4d", nn::S4dConfig{.state = 16, .max_lr = 1e-2}};
  config.sublayers["mamba"] = {"mamba", nn::MambaConfig{.state = 8}};
  config.sublayers["window"] = {"attention", nn::AttentionConfig{.heads = 2, .window = 8}};
  const auto hybrid = [&](const std::string& key, nn::BlockStateVariant variant, const std::string& ssm) {
    config.sublayers[key] = {
        "block_state", nn::BlockStateConfig{.variant = variant, .ssm = ssm, .window = 4, .states = 4, .heads = 2}};
  };
  hybrid("single", nn::BlockStateVariant::kSingleHead, "s4d");
  hybrid("multi", nn::BlockStateVariant::kMultiHead, "mamba");
  hybrid("filter", nn::BlockStateVariant::kMultiFilter, "s4d");
  return config;
}

/// Next-token batch of random records: only memory can predict them. An MLP sees one token at a time, so its records
/// are ones in which each token has one successor.
data::Batch batch_for(bool remembers) {
  std::vector<data::Example> examples;
  for (int64_t r = 0; r < kRecords; ++r) {
    data::Example example;
    example.name = join("record ", r);
    if (remembers) {
      // Different first tokens: what follows is then a function of the past.
      example.tokens = test::random_ids(static_cast<uint64_t>(r) + 10, kLength, 0, kVocabulary);
      example.tokens[0] = r;
    } else {
      for (int64_t t = 0; t < kLength; ++t) {
        example.tokens.push_back((r + 3 * t) % kVocabulary);
      }
    }
    examples.push_back(example);
  }
  return data::collate(examples, {.targets = data::TargetKind::kNextToken, .start_token = -1});
}

}  // namespace

TEST_CASE("one batch is learned by heart", "[training]") {
  const std::string name =
      GENERATE("mamba", "s4d", "attention", "window", "single", "multi", "filter", "mlp", "gated_mlp");
  const model::Model model(config_of(name), {.vocabulary = kVocabulary, .outputs = kVocabulary}, nn::Initialiser(1));
  const data::Batch batch = batch_for(name != "mlp" && name != "gated_mlp");
  const model::ModelInput input = train::model_input(model, batch, true, 1);
  train::AdamW optimizer(model, {.lr = 1e-2, .weight_decay = 0});
  double first = 0, last = 0;
  for (int64_t step = 0; step < kSteps; ++step) {
    optimizer.clear_gradients();
    last = train::accumulate_gradients(model, batch, input, {}, {.steps = step % 3 == 2 ? 7 : 0}).wait();
    first = step == 0 ? last : first;
    optimizer.step(1);
  }
  INFO(name << ": loss from " << first << " to " << last);
  CHECK(last <= 0.1 * first);
}

}  // namespace blockstate
