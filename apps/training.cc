// SPDX-License-Identifier: Apache-2.0
#include "apps/training.h"

#include <cmath>
#include <filesystem>
#include <fstream>

#include "apps/format.h"
#include "apps/run_log.h"
#include "apps/session.h"
#include "core/base/check.h"
#include "core/data/loader.h"
#include "core/train/memory_plan.h"
#include "core/train/trainer.h"

namespace blockstate::apps {
namespace {

namespace fs = std::filesystem;
using config::Value;

constexpr int64_t kLongBatch = 1 << 19;  // steps

/// Steps of the longest row of a batch.
int64_t longest_row(const RunConfig& run, const data::Dataset& data) {
  int64_t longest = run.train.pack;
  for (int64_t i = 0; i < data.size(); ++i) {
    longest = std::max(longest, data.length(i));
  }
  return longest;
}

data::LoaderOptions loader_options(const RunConfig& run, const TaskShape& task, const data::Dataset& data,
                                   int64_t stride, bool training) {
  data::LoaderOptions options;
  options.batch_size = training || run.train.eval_batch == 0 ? run.train.batch : run.train.eval_batch;
  options.seed = static_cast<uint64_t>(run.seed);
  options.sequential = !training;
  options.bucket = run.train.bucket;
  options.batch = batch_options(task, true);
  options.batch.pack = run.train.pack;
  options.batch.stride = stride;
  // Batches of very long records are read ahead one at a time: four of them would be most of a small run's memory.
  if (longest_row(run, data) * options.batch_size > kLongBatch) {
    options.prefetch = 1;
  }
  return options;
}

train::Evaluation evaluate_on(const model::Model& model, const std::shared_ptr<data::Dataset>& data,
                              const RunConfig& run, const TaskShape& task) {
  data::Loader loader(data, loader_options(run, task, *data, model.stride(), false));
  return train::evaluate(model, loader, {run.task.label_smoothing}, run.train.chunk);
}

/// A token budget as steps: the same for every variant, since it depends on the data alone.
int64_t steps_of(const RunConfig& run, const data::Dataset& train) {
  if (run.train.tokens == 0) {
    return run.train.steps;
  }
  double total = 0;
  for (int64_t i = 0; i < train.size(); ++i) {
    total += static_cast<double>(train.length(i));
  }
  const double per_step = total / static_cast<double>(train.size()) * static_cast<double>(run.train.batch);
  return std::max<int64_t>(1, std::llround(static_cast<double>(run.train.tokens) / std::max(1.0, per_step)));
}

/// First key in which two tables differ, dotted; empty: none.
std::string first_difference(const Value& a, const Value& b, const std::string& prefix = "") {
  if (!a.is(Value::Kind::kTable) || !b.is(Value::Kind::kTable)) {
    return a == b ? "" : prefix;
  }
  for (const Value* table : {&a, &b}) {
    for (const Value::Entry& entry : table->table()) {
      const std::string name = prefix.empty() ? entry.key : prefix + "." + entry.key;
      const Value *left = a.find(entry.key), *right = b.find(entry.key);
      if (left == nullptr || right == nullptr) {
        return name;
      }
      const std::string below = first_difference(*left, *right, name);
      if (!below.empty()) {
        return below;
      }
    }
  }
  return "";
}

/// The part of the run file that decides the numbers: going on with another would mix two runs.
Value decisive(RunConfig run) {
  run.threads = 0;
  run.device = "auto";
  run.run = {};
  run.compare = {};
  run.train.save_every = 0;
  run.train.eval_batch = 0;
  run.train.carry_on_host = false;
  run.train.keep = 0;
  run.train.recompute = model::Recompute::kNone;
  run.train.recompute_sublayers = {};
  run.train.steps = 1;  // a finished run may be given more steps
  run.train.tokens = 0;
  return config::write(run);
}

void write_whole(const fs::path& path, const std::string& text) {
  const fs::path part = path.string() + ".part";
  std::ofstream out(part, std::ios::binary);
  out << text;
  out.close();
  if (!out.good()) {
    fs::remove(part);
    fail(path.string(), " could not be written; is the disk full or the folder read-only?");
  }
  fs::rename(part, path);
}

void prepare_directory(const RunConfig& run) {
  const fs::path directory = run.run.dir;
  std::error_code problem;
  fs::create_directories(directory, problem);
  require(!problem, "run.dir = \"", run.run.dir, "\" cannot be made: ", problem.message());
  const fs::path file = directory / "config.toml";
  // A run that never came to a checkpoint, for a mistake in its data perhaps, binds nobody.
  if (fs::exists(file) && train::CheckpointStore(directory).latest()) {
    const RunConfig stored = load_run_config(file.string(), {});
    const std::string key = first_difference(decisive(stored), decisive(run));
    require(key.empty(), directory.string(), " holds a run with another ", key, " (see ", file.string(),
            "); set run.dir to a new directory, or remove this one to start again");
  }
  write_whole(file, config::to_toml(config::write(run)));
}

Value result_value(const TrainingOutcome& outcome) {
  const ComparisonRun& run = outcome.result;
  Value table{Value::Table{}};
  table.set("step", Value(outcome.step));
  table.set("parameters", Value(run.parameters));
  table.set("judged_on", Value(outcome.judged_on));
  table.set("metric", Value(outcome.metric));
  table.set("higher_is_better", Value(outcome.higher_is_better));
  if (!outcome.judged_on.empty()) {
    table.set("value", Value(run.metric));
    table.set("loss", Value(run.loss));
  }
  table.set("tokens_per_second", Value(run.tokens_per_second));
  table.set("peak_memory_bytes", Value(run.peak_memory_bytes));
  table.set("seconds", Value(run.seconds));
  return table;
}

/// result.json of a finished run. False where there is none for this many steps.
bool read_result(const fs::path& directory, int64_t steps, TrainingOutcome& outcome) {
  std::ifstream in(directory / "result.json");
  if (!in.good()) {
    return false;
  }
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const Value table = config::parse_json(text, (directory / "result.json").string());
  if (table.find("step") == nullptr || table.find("step")->integer() != steps) {
    return false;
  }
  outcome.finished = true;
  outcome.step = steps;
  outcome.metric = table.find("metric")->text();
  outcome.higher_is_better = table.find("higher_is_better")->truth();
  outcome.judged_on = table.find("judged_on")->text();
  ComparisonRun& run = outcome.result;
  run.parameters = table.find("parameters")->integer();
  if (!outcome.judged_on.empty()) {
    run.metric = table.find("value")->number();
    run.loss = table.find("loss")->number();
  }
  run.tokens_per_second = table.find("tokens_per_second")->number();
  run.peak_memory_bytes = table.find("peak_memory_bytes")->integer();
  run.seconds = table.find("seconds")->number();
  RunLog::read_curves(directory, run);
  return true;
}

/// Mean training loss since the last line of the log.
class MeanLoss {
 public:
  void add(double loss) {
    sum_ += loss;
    ++count_;
  }
  double take() {
    const double mean = sum_ / static_cast<double>(std::max<int64_t>(1, count_));
    sum_ = 0;
    count_ = 0;
    return mean;
  }

 private:
  double sum_ = 0;
  int64_t count_ = 0;
};

std::string evaluation_text(const train::Evaluation& evaluation) {
  return join("loss ", format_significant(evaluation.loss, 4), ", ", evaluation.metric, " ",
              format_significant(evaluation.value, 4));
}

}  // namespace

TrainingOutcome run_training(const RunConfig& given, const std::string& label, ProgressSink& sink) {
  RunConfig run = given;
  prepare_process(run);
  const TrainingData data = open_training_data(run);
  run.train.steps = steps_of(run, *data.train);
  // Whatever is wrong with the model or the data comes out before anything is written.
  const std::unique_ptr<model::Model> model = build_model(run, data.task);
  check_files(data);
  prepare_directory(run);
  const fs::path directory = run.run.dir;

  TrainingOutcome outcome;
  outcome.metric = train::primary_metric(data.task.shape.head);
  outcome.higher_is_better = train::higher_is_better(data.task.shape.head);
  outcome.result.variant = label;
  outcome.result.seed = run.seed;
  if (read_result(directory, run.train.steps, outcome)) {
    sink.write(join(label.empty() ? "" : label + ": ", directory.string(), " is finished at step ", outcome.step,
                    "; raise train.steps to train on\n"));
    return outcome;
  }

  if (run.train.chunk == kAuto) {
    const int64_t longest = longest_row(run, *data.train);
    run.train.chunk = train::choose_chunk(*model, run.train.batch, longest);
    const train::MemoryPlan plan = train::plan_memory(*model, run.train.batch, longest, run.train.chunk);
    release_cached_memory(model->device());
    sink.write(join("train.chunk: ", run.train.chunk > 0 ? format_count(run.train.chunk) + " steps" : "none is needed",
                    "; a step of training needs ", format_bytes(plan.total()), ", ",
                    format_bytes(free_memory(model->device())), " are free\n"));
  }
  int64_t keep = std::max<int64_t>(0, run.train.keep) << 20;
  if (run.train.keep == kAuto && run.train.chunk > 0) {
    const train::MemoryPlan plan =
        train::plan_memory(*model, run.train.batch, longest_row(run, *data.train), run.train.chunk);
    release_cached_memory(model->device());
    keep = train::spare_memory(*model, plan);
  }
  outcome.result.parameters = model->parameter_count();
  train::TrainerOptions options;
  options.optimizer = run.train.optimizer;
  options.schedule = run.train.schedule;
  options.length = run.train.length;
  options.steps = run.train.steps;
  options.chunking = {run.train.chunk, run.train.truncate, run.train.carry_on_host, keep};
  options.eval_every = run.train.eval_every;
  options.save_every = run.train.save_every;
  options.seed = static_cast<uint64_t>(run.seed);
  data::Loader loader(data.train, loader_options(run, data.task, *data.train, model->stride(), true));
  const train::CheckpointStore store(directory);
  store.prepare();

  std::unique_ptr<RunLog> log;
  std::unique_ptr<Progress> progress;
  MeanLoss mean_loss;
  ProgressReading reading;
  train::TrainerObserver observer;
  observer.on_step = [&](const train::StepEvent& event) {
    mean_loss.add(event.loss);
    reading.step = event.step;
    reading.loss = event.loss;
    reading.tokens_per_second = event.tokens_per_second;
    progress->update(reading);
    if (event.skipped) {
      progress->message(join("step ", event.step, ": the gradients were not finite; the step was skipped"));
    }
    if (event.step % run.train.log_every == 0 || event.step == event.steps) {
      log->add(event, mean_loss.take());
    }
  };
  observer.on_evaluation = [&](const train::StepEvent& event, const train::Evaluation& evaluation) {
    reading.metric_name = evaluation.metric;
    reading.metric = evaluation.value;
    log->add(event, evaluation);
    progress->message(join("step ", event.step, ": validation ", evaluation_text(evaluation)));
  };
  std::function<train::Evaluation()> evaluate;
  if (data.valid != nullptr) {
    evaluate = [&] { return evaluate_on(*model, data.valid, run, data.task); };
  }
  train::Trainer trainer(*model, {run.task.label_smoothing}, options, loader, evaluate, store,
                         checkpoint_config(run, data.task), observer);
  const int64_t resumed = trainer.resume();
  sink.write(join(label.empty() ? "" : label + ": ", describe(run, data), "; ", format_count(model->parameter_count()),
                  " parameters", resumed > 0 ? join("; going on at step ", resumed) : "", "\n"));
  log = std::make_unique<RunLog>(directory, resumed);
  ProgressOptions shown;
  shown.label = label.empty() ? "train" : label;
  shown.first_step = resumed;
  shown.total = run.train.steps;
  progress = std::make_unique<Progress>(sink, shown);
  train::TrainSummary summary;
  try {
    summary = trainer.run(stop_requested());
  } catch (const train::StepOutOfMemory& problem) {
    progress->finish();
    throw Error(join(problem.what(), ". The batch had ", problem.batch, " records of ", problem.length,
                     " steps: ", train::advise_memory(*model, problem.batch, problem.length)));
  }
  progress->finish();

  outcome.step = summary.step;
  outcome.finished = summary.finished;
  outcome.result.tokens_per_second = summary.tokens_per_second;
  outcome.result.peak_memory_bytes = summary.peak_bytes;
  outcome.result.seconds = log->earlier_seconds() + summary.seconds;
  if (!summary.finished) {
    return outcome;
  }
  // The model that validation found best is the one that is judged, and the one that other verbs read.
  if (const auto best = store.best(); best && data.valid != nullptr) {
    train::load_parameters(*model, train::read_checkpoint(best->directory, false).model, best->directory.string());
  }
  const std::shared_ptr<data::Dataset> judged = data.test != nullptr ? data.test : data.valid;
  if (judged != nullptr) {
    const train::Evaluation evaluation = evaluate_on(*model, judged, run, data.task);
    outcome.judged_on = data.test != nullptr ? "test" : "validation";
    outcome.result.loss = evaluation.loss;
    outcome.result.metric = evaluation.value;
    sink.write(join(label.empty() ? "" : label + ": ", outcome.judged_on, " ", evaluation_text(evaluation), "\n"));
  }
  write_whole(directory / "result.json", config::to_json(result_value(outcome)));
  RunLog::read_curves(directory, outcome.result);
  return outcome;
}

}  // namespace blockstate::apps
