// SPDX-License-Identifier: Apache-2.0
#include "core/train/checkpoint.h"

#include <cmath>
#include <system_error>

#include "core/base/check.h"
#include "core/config/schema.h"
#include "core/train/durable_file.h"

namespace blockstate::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfigFile = "config.json";
constexpr const char* kModelFile = "model.safetensors";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kStateFile = "state.json";

TextMap file_metadata(const TrainState& state) {
  return {{"format", "blockstate"}, {"version", std::to_string(state.format)}, {"step", std::to_string(state.step)}};
}

void write_files(const fs::path& directory, const Checkpoint& checkpoint) {
  write_text(directory / kConfigFile, config::to_json(checkpoint.config));
  write_safetensors(directory / kModelFile, checkpoint.model, file_metadata(checkpoint.state));
  if (!checkpoint.optimizer.empty()) {
    write_safetensors(directory / kOptimizerFile, checkpoint.optimizer, file_metadata(checkpoint.state));
  }
  TrainState state = checkpoint.state;
  // JSON has no NaN; a metric that is none is no metric.
  if (state.metric && !std::isfinite(*state.metric)) {
    state.metric.reset();
  }
  write_text(directory / kStateFile, config::to_json(config::write(state)));
  sync_directory(directory);
}

}  // namespace

void TrainState::visit(config::Visitor& v) {
  v.field("format", format, "version of the checkpoint's layout");
  v.field("step", step, "optimiser steps taken", config::at_least(0));
  v.field("loader_position", loader_position, "batches taken", config::at_least(0));
  v.field("seed", seed, "of the run");
  v.field("tokens_seen", tokens_seen, "steps of training data, padding left out", config::at_least(0));
  v.field("metric", metric, "of the validation at this step");
  v.field("best_metric", best_metric, "of the run so far");
  v.field("best_step", best_step, "at which best_metric was reached");
}

NamedTensors parameter_tensors(const nn::Module& module) {
  NamedTensors tensors;
  for (const nn::Parameter& parameter : module.parameters()) {
    const bool added = tensors.emplace(parameter.name, parameter.variable.value()).second;
    require(added, "two parameters of the model are called \"", parameter.name, "\"");
  }
  return tensors;
}

void load_parameters(const nn::Module& module, const NamedTensors& tensors, const std::string& file) {
  copy_tensors(parameter_tensors(module), tensors, file, "the model");
}

void write_checkpoint(const fs::path& directory, const Checkpoint& checkpoint) {
  const fs::path target = (fs::absolute(directory) / "").lexically_normal().parent_path();
  const fs::path temporary = target.parent_path() / (kTemporaryPrefix + target.filename().string());
  std::error_code error;
  fs::create_directories(target.parent_path(), error);
  require(!error, target.parent_path().string(), ": cannot make this directory: ", error.message());
  fs::remove_all(temporary, error);
  fs::create_directory(temporary, error);
  require(!error, temporary.string(), ": cannot make this directory: ", error.message());
  try {
    write_files(temporary, checkpoint);
    replace_directory(temporary, target);
  } catch (...) {
    fs::remove_all(temporary, error);  // gives the space back; what remains, prepare() removes
    throw;
  }
  sync_directory(target.parent_path());
}

TrainState read_state(const fs::path& directory) {
  const std::string file = (directory / kStateFile).string();
  const config::Value value = config::parse_json(read_text(file), file);
  const config::Value* format = value.find("format");
  require(format != nullptr && format->is(config::Value::Kind::kInteger), file, ": names no checkpoint format");
  require(format->integer() == kCheckpointFormat, file, ": is of checkpoint format ", format->integer(),
          ", this program reads format ", kCheckpointFormat);
  TrainState state;
  config::read(value, state);
  return state;
}

Checkpoint read_checkpoint(const fs::path& directory, bool with_optimizer) {
  Checkpoint checkpoint;
  const std::string config_file = (directory / kConfigFile).string();
  checkpoint.config = config::parse_json(read_text(config_file), config_file);
  checkpoint.model = SafetensorsFile(directory / kModelFile).read_all();
  if (with_optimizer) {
    checkpoint.optimizer = SafetensorsFile(directory / kOptimizerFile).read_all();
  }
  checkpoint.state = read_state(directory);
  return checkpoint;
}

fs::path find_checkpoint(const fs::path& path, bool latest) {
  if (fs::exists(path / kModelFile)) {
    return path;
  }
  require(fs::exists(path), path.string(), ": no such file or directory, wanted a checkpoint or a run's directory");
  const CheckpointStore store(path);
  require(fs::is_directory(store.directory()), path.string(), ": is neither a checkpoint (it holds no ", kModelFile,
          ") nor a run's directory (it holds no checkpoints)");
  const std::optional<CheckpointPlace> place = latest ? store.latest() : store.best();
  require(place.has_value(), store.directory().string(), ": holds no checkpoint yet");
  return place->directory;
}

}  // namespace blockstate::train
