// SPDX-License-Identifier: Apache-2.0
// Models from run files and from checkpoints.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "apps/data_source.h"
#include "apps/run_config.h"
#include "core/model/model.h"

namespace blockstate::apps {

/// Applies what holds for the whole process: threads. Error where device or dtype cannot be had.
void prepare_process(const RunConfig& run);

std::unique_ptr<model::Model> build_model(const RunConfig& run, const TaskShape& task);

/// config.json of a checkpoint: the resolved run file, the shape of the task, the classes.
config::Value checkpoint_config(const RunConfig& run, const TaskShape& task);

struct LoadedModel {
  RunConfig run;
  TaskShape task;
  std::unique_ptr<model::Model> model;
  std::string source;  ///< the checkpoint's directory
};

/// From a run's directory (its best checkpoint) or a checkpoint's. `overrides` change data and task settings of the run
/// file that is stored there, never the model's.
LoadedModel load_model(const std::string& path, const std::vector<std::string>& overrides = {});

/// Becomes true at Ctrl-C or SIGTERM; a second Ctrl-C ends the process at once.
const std::atomic<bool>& stop_requested();
void install_stop_handlers();

}  // namespace blockstate::apps
