// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "core/data/loader.h"
#include "core/train/checkpoint.h"
#include "core/train/evaluate.h"
#include "core/train/optimizer.h"
#include "core/train/recorded_gradients.h"
#include "core/train/schedule.h"

namespace blockstate::train {

struct TrainerOptions {
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  LengthConfig length;
  int64_t steps = 1000;
  Chunking chunking;
  int64_t eval_every = 0;  ///< steps; 0: only at the end
  int64_t save_every = 0;  ///< steps; 0: only at the end (and when stopped)
  uint64_t seed = 0;
  bool record = true;  ///< steps that repeat, on a GPU (RecordedGradients)
};

/// One optimiser step, as the log and the progress display see it.
struct StepEvent {
  int64_t step = 0;  ///< from 1
  int64_t steps = 0;
  int64_t epoch = 0;
  int64_t tokens = 0;  ///< seen so far
  double loss = 0;
  double lr = 0;
  double grad_norm = 0;
  bool skipped = false;  ///< gradients were not finite: the step changed nothing
  double tokens_per_second = 0;
  double seconds = 0;  ///< spent training since this process began, evaluation and saving left out
};

/// A batch that does not fit: its shape, for advice on one that would.
class StepOutOfMemory : public OutOfMemory {
 public:
  StepOutOfMemory(const std::string& what, int64_t batch_size, int64_t batch_length)
      : OutOfMemory(what), batch(batch_size), length(batch_length) {}
  int64_t batch;
  int64_t length;
};

/// What the trainer tells while it runs; every member may be empty.
struct TrainerObserver {
  std::function<void(const StepEvent&)> on_step;
  std::function<void(const StepEvent&, const Evaluation&)> on_evaluation;
  std::function<void(int64_t step, const std::filesystem::path&)> on_save;
};

struct TrainSummary {
  int64_t step = 0;
  bool finished = false;  ///< false: stopped before the last step
  int64_t tokens = 0;
  int64_t replayed = 0;  ///< steps whose gradients came from a recording
  double loss = 0;       ///< of the last step
  double seconds = 0;
  double tokens_per_second = 0;
  int64_t peak_bytes = 0;
  std::optional<Evaluation> evaluation;  ///< the last one
};

/// Trains a model step by step, evaluates, saves, resumes. A step is a pure function of (parameters, optimiser state,
/// seed, step, batch number), all of which a checkpoint holds: stopping and going on gives the same bits as not
/// stopping.
class Trainer {
 public:
  /// `evaluate` may be empty. `model_config` is what config.json of each checkpoint will hold.
  Trainer(const model::Model& model, const Objective& objective, const TrainerOptions& options, data::Loader& loader,
          std::function<Evaluation()> evaluate, const CheckpointStore& store, config::Value model_config,
          TrainerObserver observer);

  /// Loads the latest checkpoint of the store, if there is one; returns its step, else 0.
  int64_t resume();
  /// Trains up to the last step. When `stop` becomes true, finishes the step, saves and returns.
  TrainSummary run(const std::atomic<bool>& stop);

 private:
  /// A batch as the model reads it, in groups of rows.
  struct Prepared {
    std::vector<std::pair<data::Batch, model::ModelInput>> groups;
    int64_t rows = 0, length = 0, tokens = 0;
    int64_t epoch = 0;
    int64_t loader_position = 0;  ///< behind it
  };
  Prepared prepare(int64_t step);
  void prepare_next(int64_t loader_position);
  void one_step(StepEvent& event);
  /// True where this is the best model so far.
  bool evaluate_now(const StepEvent& event);
  void save();

  const model::Model& model_;
  TrainerOptions options_;
  data::Loader& loader_;
  std::function<Evaluation()> evaluate_;
  const CheckpointStore& store_;
  config::Value model_config_;
  TrainerObserver observer_;
  AdamW optimizer_;
  RecordedGradients gradients_;
  std::optional<Prepared> next_;  ///< of the next step, made while a GPU works on this one
  TrainState state_;
  TrainSummary summary_;
};

}  // namespace blockstate::train
