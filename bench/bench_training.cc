// SPDX-License-Identifier: Apache-2.0
// A training step (forward, backward, AdamW) of a language model on random tokens, float32, and where its time goes.
//   bench_training [--blocks "mamba * 4"] [--d-model 64] [--batch 16] [--length 1024] [--vocabulary 16]
//                  [--threads 1] [--steps 10]
// The peer's side of the same measurement is bench/peers/torch_mamba_step.py.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "core/base/parallel.h"
#include "core/base/profile.h"
#include "core/base/random.h"
#include "core/train/objective.h"
#include "core/train/optimizer.h"

namespace {

using namespace blockstate;

struct Options {
  std::string blocks = "mamba * 4";
  int64_t d_model = 64, batch = 16, length = 1024, vocabulary = 16, threads = 1, steps = 10;
};

Options parse(int argc, char** argv) {
  Options options;
  const auto number = [](const char* text) { return static_cast<int64_t>(std::stoll(text)); };
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    const char* value = argv[i + 1];
    if (flag == "--blocks") {
      options.blocks = value;
    } else if (flag == "--d-model") {
      options.d_model = number(value);
    } else if (flag == "--batch") {
      options.batch = number(value);
    } else if (flag == "--length") {
      options.length = number(value);
    } else if (flag == "--vocabulary") {
      options.vocabulary = number(value);
    } else if (flag == "--threads") {
      options.threads = number(value);
    } else if (flag == "--steps") {
      options.steps = number(value);
    } else {
      fail("bench_training: unknown option ", flag);
    }
  }
  return options;
}

data::Batch random_batch(const Options& options) {
  RandomStream random(1);
  std::vector<data::Example> examples(static_cast<size_t>(options.batch));
  for (data::Example& example : examples) {
    example.name = "random";
    for (int64_t t = 0; t <= options.length; ++t) {
      example.tokens.push_back(static_cast<int64_t>(random.below(static_cast<uint64_t>(options.vocabulary))));
    }
  }
  data::BatchOptions batch;
  batch.targets = data::TargetKind::kNextToken;
  return data::collate(examples, batch);
}

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void print_profile(const std::map<std::string, profile::Cost>& costs) {
  std::vector<std::pair<std::string, profile::Cost>> rows(costs.begin(), costs.end());
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  double total = 0;
  for (const auto& [name, cost] : rows) {
    total += cost.seconds;
  }
  std::printf("\n%-28s %6s %9s %8s %8s %9s\n", "op", "calls", "ms", "share", "GB/s", "GFLOP/s");
  for (const auto& [name, cost] : rows) {
    std::printf("%-28s %6lld %9.2f %7.1f%% %8.1f", name.c_str(), static_cast<long long>(cost.calls), 1e3 * cost.seconds,
                100 * cost.seconds / total, 1e-9 * cost.bytes / cost.seconds);
    cost.flops > 0 ? std::printf(" %9.1f\n", 1e-9 * cost.flops / cost.seconds) : std::printf("\n");
  }
}

void run(const Options& options) {
  set_thread_count(static_cast<int>(options.threads));
  model::ModelConfig config;
  config.d_model = options.d_model;
  config.blocks = {options.blocks};
  model::ModelShape shape;
  shape.head = model::HeadKind::kLanguageModel;
  shape.vocabulary = shape.outputs = options.vocabulary;
  const model::Model model(config, shape, nn::Initialiser(1));
  train::AdamW optimizer(model, {});
  const data::Batch batch = random_batch(options);
  std::vector<double> times;
  for (int64_t i = -2; i < options.steps; ++i) {  // two steps to warm up
    if (i == options.steps - 1) {
      profile::start();
    }
    const double begin = seconds();
    const model::ModelInput input = train::model_input(model, batch, true, 0);
    optimizer.clear_gradients();
    train::accumulate_gradients(model, batch, input, {});
    profile::mark("loss and the like", 0);
    optimizer.step(1);
    profile::mark("adamw", 0);
    if (i >= 0) {
      times.push_back(seconds() - begin);
    }
  }
  const auto costs = profile::stop();
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  std::printf("%s, d_model %lld, %lld parameters, batch %lld, length %lld, %lld thread(s)\n", options.blocks.c_str(),
              static_cast<long long>(options.d_model), static_cast<long long>(model.parameter_count()),
              static_cast<long long>(options.batch), static_cast<long long>(options.length),
              static_cast<long long>(options.threads));
  std::printf("median of %lld steps: %.1f ms, %.0f tokens/s; fastest %.1f ms; peak memory %.0f MiB\n",
              static_cast<long long>(options.steps), 1e3 * median,
              static_cast<double>(options.batch * options.length) / median, 1e3 * times.front(),
              static_cast<double>(memory_statistics({}).peak) / (1 << 20));
  print_profile(costs);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(parse(argc, argv));
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "error: %s\n", problem.what());
    return 1;
  }
  return 0;
}
