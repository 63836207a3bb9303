// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "apps/format.h"
#include "apps/session.h"
#include "apps/verbs.h"
#include "core/base/check.h"
#include "core/train/memory_plan.h"

namespace blockstate::apps {
namespace {

void print_parameters(const model::Model& model) {
  std::printf("%-44s %-20s %12s  %s\n", "parameter", "shape", "count", "optimiser");
  for (const nn::Parameter& parameter : model.parameters()) {
    std::string how = parameter.options.decay ? "decay" : "no decay";
    if (parameter.options.max_lr) {
      how += ", lr at most " + format_significant(*parameter.options.max_lr, 2);
    }
    std::printf("%-44s %-20s %12s  %s\n", parameter.name.c_str(), shape_text(parameter.variable.shape()).c_str(),
                format_count(parameter.variable.value().elements()).c_str(), how.c_str());
  }
}

void print_plan(const model::Model& model, const train::MemoryPlan& plan, int64_t batch, int64_t length,
                int64_t chunk) {
  std::printf("\nmemory of a training step: batch %s, length %s%s\n", format_count(batch).c_str(),
              format_count(length).c_str(), chunk > 0 ? (", chunk " + format_count(chunk)).c_str() : "");
  const auto line = [](const char* what, int64_t bytes) {
    std::printf("  %-34s %12s\n", what, format_bytes(bytes).c_str());
  };
  line("parameters", plan.parameters);
  line("gradients", plan.gradients);
  line("optimiser state", plan.optimizer);
  line("activations (measured, extended)", plan.activations);
  line("kernels' working memory", plan.working);
  if (chunk > 0) {
    line("carries at chunk edges", plan.edges);
  }
  line("together", plan.total());
  line("streaming: carry of one row", plan.carry);
  const std::vector<std::string> growing = model.growing_sublayers();
  if (growing.empty()) {
    std::printf("every carry has one size at any length: streams and chunks run in constant memory\n");
  }
  for (const std::string& name : growing) {
    std::printf("%s: its carry grows with the length\n", name.c_str());
  }
}

}  // namespace

int run_inspect(const InspectArguments& arguments) {
  LoadedModel loaded;
  if (!arguments.model.empty()) {
    loaded = load_model(arguments.model, arguments.run.overrides);
  } else {
    loaded.run = load_run_config(arguments.run.config, arguments.run.overrides);
    prepare_process(loaded.run);
    loaded.task = open_training_data(loaded.run).task;
    loaded.model = build_model(loaded.run, loaded.task);
  }
  const model::Model& model = *loaded.model;
  print_parameters(model);
  std::printf("%-44s %-20s %12s\n", "together", "", format_count(model.parameter_count()).c_str());
  std::printf("\nrecords start at multiples of %s steps in a row (stride)\n", format_count(model.stride()).c_str());
  const DataConfig& data = loaded.run.data;
  // Samples or bases of one step.
  const int64_t patch = data.input == "kmer" ? data.kmer : model.shape().vocabulary > 0 ? 1 : data.patch;
  int64_t length = arguments.length;
  if (length == 0) {
    length = data.length > 0 ? (data.length + patch - 1) / patch : 1024;
  }
  const int64_t batch = arguments.batch > 0 ? arguments.batch : loaded.run.train.batch;
  int64_t chunk = loaded.run.train.chunk;
  if (chunk == kAuto) {
    chunk = train::choose_chunk(model, batch, length);
  }
  print_plan(model, train::plan_memory(model, batch, length, chunk), batch, length, chunk);
  return 0;
}

}  // namespace blockstate::apps
