// SPDX-License-Identifier: Apache-2.0
// Checkpoints of a run (docs/checkpoint_format.md): RUN/checkpoints/STEP/{config.json, model.safetensors,
// optimizer.safetensors, state.json}, each directory there whole or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/config/value.h"
#include "core/config/visitor.h"
#include "core/nn/module.h"
#include "core/train/safetensors.h"

namespace blockstate::train {

inline constexpr int64_t kCheckpointFormat = 1;
/// Directories being written or removed are called this and the step.
inline constexpr const char* kTemporaryPrefix = ".unfinished-";

/// state.json: what a run needs beside its tensors to go on. Random numbers are functions of seed and step,
/// so no generator has to be saved.
struct TrainState {
  int64_t format = kCheckpointFormat;
  int64_t step = 0;             ///< optimiser steps taken
  int64_t loader_position = 0;  ///< batches taken
  int64_t seed = 0;
  int64_t tokens_seen = 0;
  std::optional<double> metric;       ///< of the validation at this step, if there was one
  std::optional<double> best_metric;  ///< of the run so far
  std::optional<int64_t> best_step;   ///< whose checkpoint is kept

  void visit(config::Visitor& v);
};

struct Checkpoint {
  config::Value config;    ///< all that is needed to build the model again; what it holds is the caller's
  NamedTensors model;      ///< parameters by name
  NamedTensors optimizer;  ///< empty: no optimizer.safetensors, such as in an exported model
  TrainState state;
};

/// The parameters of a module by name; they share memory with it.
NamedTensors parameter_tensors(const nn::Module& module);
/// Copies tensors into a module's parameters. Nothing is changed if one is missing, unexpected, or of another shape or
/// type: the Error then lists them (name, wanted, found), and names `file`.
void load_parameters(const nn::Module& module, const NamedTensors& tensors, const std::string& file);

/// Writes `directory` whole or not at all: into a temporary directory beside it, fsync, rename. Error names the path
/// and what the system said; a checkpoint of that name stays as it was.
void write_checkpoint(const std::filesystem::path& directory, const Checkpoint& checkpoint);
/// Error names the file that is missing, cut short or unsound. `with_optimizer` false: that file is neither read nor
/// wanted.
Checkpoint read_checkpoint(const std::filesystem::path& directory, bool with_optimizer = true);

/// state.json alone.
TrainState read_state(const std::filesystem::path& directory);

struct CheckpointPlace {
  int64_t step = 0;
  std::filesystem::path directory;
};

/// The checkpoints of one run.
class CheckpointStore {
 public:
  explicit CheckpointStore(const std::filesystem::path& run_directory);

  /// Makes RUN/checkpoints if need be and removes temporaries that an interrupted run left there. To be called by the
  /// one process that trains.
  void prepare() const;
  /// Writes checkpoint number `checkpoint.state.step`, then removes all but the last two and that of state.best_step.
  void save(const Checkpoint& checkpoint) const;

  /// By step, ascending. Directories whose name is no step are passed over.
  std::vector<CheckpointPlace> list() const;
  /// The one with the highest step; nullopt if there is none. Whether it is sound shows when it is read: a damaged one
  /// is an Error that names the file, never a silent step back to an older one.
  std::optional<CheckpointPlace> latest() const;
  /// That of `best_step` in the latest one's state; the latest one if no validation has run yet; nullopt if there is
  /// none. Error if that directory is gone.
  std::optional<CheckpointPlace> best() const;

  const std::filesystem::path& directory() const { return directory_; }

 private:
  std::filesystem::path directory_;  ///< RUN/checkpoints
};

/// What a user means by a path: a checkpoint directory itself, or a run's, of which the best is taken (`latest` true:
/// the latest). Error if it is neither.
std::filesystem::path find_checkpoint(const std::filesystem::path& path, bool latest = false);

}  // namespace blockstate::train
