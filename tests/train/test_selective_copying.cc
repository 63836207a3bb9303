// SPDX-License-Identifier: Apache-2.0
// What selection buys: copying symbols from random places needs it. Mamba learns the task, time-invariant S4D does not,
// in the same budget. Gu & Dao 2023 (arXiv 2312.00752), 4.1, at a length that takes seconds.
#include <catch2/catch.hpp>

#include "core/base/random.h"
#include "core/data/synthetic.h"
#include "core/model/model.h"
#include "core/train/evaluate.h"
#include "core/train/optimizer.h"
#include "core/train/schedule.h"

namespace blockstate {
namespace {

constexpr int64_t kSymbols = 16, kCopies = 6, kLength = 32;

struct Budget {
  int64_t steps = 2000;
  int64_t batch = 32;
  double lr = 1e-2;
};

/// Accuracy on unseen examples after training; chance is 1 / kSymbols.
double accuracy_after(const std::string& system, const Budget& budget) {
  data::SyntheticOptions task{
      .length = kLength, .symbols = kSymbols, .copies = kCopies, .examples = 1 << 16, .seed = 1};
  const data::BatchOptions targets{.targets = data::TargetKind::kPerPosition};
  data::Loader loader(std::make_shared<data::SelectiveCopying>(task),
                      {.batch_size = budget.batch, .seed = 2, .bucket = false, .batch = targets});
  model::ModelConfig config;
  config.d_model = 32;
  config.blocks = {system + " * 2"};
  config.sublayers["s4d"] = {"s4d", nn::S4dConfig{.state = 32, .max_lr = budget.lr}};
  const model::Model model(config,
                           {.head = model::HeadKind::kPerPosition, .vocabulary = kSymbols + 2, .outputs = kSymbols},
                           nn::Initialiser(3));
  train::AdamW optimizer(model, {.lr = budget.lr, .weight_decay = 0});
  for (int64_t step = 0; step < budget.steps; ++step) {
    const data::Batch batch = *loader.next();
    optimizer.clear_gradients();
    train::accumulate_gradients(model, batch, train::model_input(model, batch, true, 0), {});
    optimizer.step(train::schedule_factor({.warmup = 20}, step, budget.steps));
  }
  task.seed = 99;
  task.examples = 512;
  data::Loader unseen(std::make_shared<data::SelectiveCopying>(task),
                      {.batch_size = 64, .sequential = true, .batch = targets});
  return train::evaluate(model, unseen, {}).value;
}

}  // namespace

TEST_CASE("Mamba learns selective copying where S4D does not", "[training]") {
  const Budget budget;
  const double mamba = accuracy_after("mamba", budget);
  const double s4d = accuracy_after("s4d", budget);
  INFO("accuracy: mamba " << mamba << ", s4d " << s4d);
  // Initialisations 3 and 4 end at 1.00 and 0.96 for Mamba, 0.76 and 0.75 for S4D, whose two layers of GELU and gates
  // are not time-invariant as a whole: it beats chance (1/16), and does so more easily the shorter the sequence.
  CHECK(mamba >= 0.95);
  CHECK(s4d <= 0.85);
}

}  // namespace blockstate
