// SPDX-License-Identifier: Apache-2.0
// From a run file's [data] and [task] to data sets and the shape that a model must have for them. The only place where
// both domains are known.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "apps/run_config.h"
#include "audio/audio_dataset.h"
#include "core/data/batch.h"
#include "core/data/dataset.h"
#include "core/model/model_config.h"

namespace blockstate::apps {

/// What the model of a task reads and says; stored with every checkpoint.
struct TaskShape {
  model::ModelShape shape;
  std::vector<std::string> classes;
};

struct TrainingData {
  std::shared_ptr<data::Dataset> train;
  std::shared_ptr<data::Dataset> valid;  ///< null: nothing to validate on
  std::shared_ptr<data::Dataset> test;   ///< null: none
  TaskShape task;
};

/// Opens everything that training needs. Errors name file, line and key: no data.train, a class without examples, data
/// that do not fit the task.
TrainingData open_training_data(const RunConfig& run);

/// Which of a run's data sets is meant.
enum class SplitKind : uint8_t { kTrain, kValid, kTest };

/// One data set for a task whose classes are known. `file` empty: the one of the run file for that split.
std::shared_ptr<data::Dataset> open_data(const RunConfig& run, const TaskShape& task, const std::string& file,
                                         SplitKind split);

/// The audio settings of a run.
audio::AudioOptions audio_options(const RunConfig& run);

/// Whether a file name is that of a manifest or another table (.tsv, .csv, also .gz).
bool is_table(const std::string& file);

/// Sequences of a manifest or rows of a token array, whole and unlabelled, whatever data.length was in training.
std::shared_ptr<data::Dataset> open_input(const RunConfig& run, const std::string& file);
/// Recordings of a manifest, unlabelled.
std::vector<audio::AudioItem> open_recordings(const RunConfig& run, const std::string& file);

/// Asks every example for its length, which opens each recording and reads its header. A file that is missing, cut
/// short or no audio is an Error here, before anything is trained, rather than in the middle of a run; one bad sample
/// (NaN, a letter that is no base) shows when it is read.
void check_files(const TrainingData& data);

/// How batches of this task are made. For kNone of a language model, targets are next tokens all the same: score needs
/// them.
data::BatchOptions batch_options(const TaskShape& task, bool labels);

/// "612 clips of 5 classes; 130 held out".
std::string describe(const RunConfig& run, const TrainingData& data);

}  // namespace blockstate::apps
