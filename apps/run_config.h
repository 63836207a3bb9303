// SPDX-License-Identifier: Apache-2.0
// The run file: every key of it, described once.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/config/schema.h"
#include "core/model/model_config.h"
#include "core/train/optimizer.h"
#include "core/train/schedule.h"

namespace blockstate::apps {

enum class DataKind : uint8_t { kAudio, kDna, kTokens, kSynthetic };

/// [data]: what is read and how.
struct DataConfig {
  DataKind kind = DataKind::kAudio;
  std::string train;
  std::string valid;
  std::string test;
  double valid_fraction = 0.1;
  std::string regions;
  std::string valid_regions;
  std::string test_regions;
  std::map<std::string, std::string> columns;
  std::vector<std::string> header;
  std::string separator = "\t";
  bool slice = false;
  std::string input;
  int64_t sample_rate = 16000;
  int64_t length = 0;
  int64_t hop = 0;
  int64_t patch = 1;
  int64_t kmer = 3;
  std::string lower_case = "upper";
  int64_t vocabulary = 0;
  std::string synthetic = "selective_copying";
  int64_t symbols = 8;
  int64_t copies = 4;
  int64_t examples = 2048;

  void visit(config::Visitor& v);
};

enum class TaskKind : uint8_t { kClassify, kPerPosition, kLanguageModel };

/// [task]: what the model learns to say.
struct TaskConfig {
  TaskKind kind = TaskKind::kClassify;
  double label_smoothing = 0;
  std::vector<std::string> classes;

  void visit(config::Visitor& v);
};

inline constexpr int64_t kAuto = -1;

/// [train]
struct TrainConfig {
  int64_t steps = 1000;
  int64_t tokens = 0;
  int64_t batch = 16;
  int64_t chunk = 0;  ///< kAuto: chosen from free memory
  bool truncate = false;
  bool carry_on_host = false;
  int64_t keep = 0;  ///< MiB; kAuto: what is free
  model::Recompute recompute = model::Recompute::kNone;
  std::vector<std::string> recompute_sublayers;
  int64_t pack = 0;
  int64_t eval_every = 100;
  int64_t save_every = 100;
  int64_t log_every = 10;
  int64_t eval_batch = 0;
  bool bucket = true;
  train::OptimizerConfig optimizer;
  train::ScheduleConfig schedule;
  train::LengthConfig length;

  void visit(config::Visitor& v);
};

/// [run]
struct RunPlace {
  std::string dir = "runs/default";

  void visit(config::Visitor& v);
};

enum class MatchKind : uint8_t { kNone, kParameters };

/// [compare]
struct CompareConfig {
  MatchKind match = MatchKind::kNone;
  std::vector<int64_t> seeds;
  config::Value::Table variants;

  void visit(config::Visitor& v);
};

struct RunConfig {
  int64_t seed = 1;
  std::string device = "auto";
  std::string dtype = "float32";
  int64_t threads = 0;
  DataConfig data;
  TaskConfig task;
  model::ModelConfig model;
  TrainConfig train;
  RunPlace run;
  CompareConfig compare;

  void visit(config::Visitor& v);
};

/// Reads a run file (none: all defaults), applies overrides "dotted.key=value" in order, checks every key. Paths are
/// relative to the working directory.
RunConfig load_run_config(const std::string& file, const std::vector<std::string>& overrides);
/// From a table, such as a checkpoint's.
RunConfig run_config_from(const config::Value& table);

}  // namespace blockstate::apps
