// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "apps/format.h"
#include "apps/session.h"
#include "apps/verbs.h"
#include "core/base/check.h"
#include "core/data/loader.h"
#include "core/train/evaluate.h"

namespace blockstate::apps {
namespace {

using config::Value;

SplitKind parse_split(const std::string& name) {
  if (name == "train") {
    return SplitKind::kTrain;
  }
  if (name == "valid") {
    return SplitKind::kValid;
  }
  require(name == "test", "--split ", name, " is not known; choose train, valid or test");
  return SplitKind::kTest;
}

void print_text(const Value& details) {
  for (const Value::Entry& entry : details.table()) {
    if (entry.value.is(Value::Kind::kInteger)) {
      std::printf("%-16s %s\n", entry.key.c_str(), format_count(entry.value.integer()).c_str());
    } else if (entry.value.is(Value::Kind::kNumber)) {
      std::printf("%-16s %s\n", entry.key.c_str(), format_significant(entry.value.number(), 5).c_str());
    }
  }
}

/// Per class F1 and the confusion matrix, rows the truth.
void print_classes(const Value& details, const std::vector<std::string>& classes) {
  const Value *f1 = details.find("f1"), *confusion = details.find("confusion");
  if (classes.empty() || f1 == nullptr || confusion == nullptr) {
    return;
  }
  std::printf("\n%-24s %8s   predicted as\n", "class", "F1");
  for (size_t i = 0; i < classes.size(); ++i) {
    std::printf("%s %8s  ", pad_right(classes[i], 24).c_str(), format_fixed(f1->array()[i].number(), 4).c_str());
    for (const Value& count : confusion->array()[i].array()) {
      std::printf(" %6lld", static_cast<long long>(count.integer()));
    }
    std::printf("\n");
  }
}

}  // namespace

int run_eval(const EvalArguments& arguments) {
  const LoadedModel loaded = load_model(arguments.model, arguments.overrides);
  const SplitKind split = parse_split(arguments.split);
  std::shared_ptr<data::Dataset> data = open_data(loaded.run, loaded.task, arguments.data, split);
  if (data == nullptr && arguments.data.empty() && split == SplitKind::kTest) {
    data = open_data(loaded.run, loaded.task, "", SplitKind::kValid);
    if (data == nullptr) {
      data = open_training_data(loaded.run).valid;
    }
    std::fprintf(stderr, "the run has no test data: these are its validation data\n");
  }
  require(data != nullptr, "the run has no data of split ", arguments.split, "; name some with --data FILE");
  data::LoaderOptions options;
  options.batch_size = loaded.run.train.eval_batch > 0 ? loaded.run.train.eval_batch : loaded.run.train.batch;
  options.sequential = true;
  options.batch = batch_options(loaded.task, true);
  data::Loader loader(data, options);
  const train::Evaluation evaluation = train::evaluate(*loaded.model, loader, {}, arguments.chunk);
  if (arguments.json) {
    Value out = evaluation.details;
    Value::Array classes;
    for (const std::string& label : loaded.task.classes) {
      classes.emplace_back(label);
    }
    out.set("classes", Value(std::move(classes)));
    out.set("checkpoint", Value(loaded.source));
    std::fputs(config::to_json(out).c_str(), stdout);
    return 0;
  }
  print_text(evaluation.details);
  print_classes(evaluation.details, loaded.task.classes);
  return 0;
}

}  // namespace blockstate::apps
