// SPDX-License-Identifier: Apache-2.0
// metrics.jsonl: one JSON object a line, {"step", "tokens", "seconds", "loss", "lr", "grad_norm", "tokens_per_second"}
// for training and {"step", "tokens", "seconds", "valid": {...}} for validation.
#pragma once

#include <filesystem>
#include <fstream>

#include "apps/report/compare_report.h"
#include "core/train/trainer.h"

namespace blockstate::apps {

class RunLog {
 public:
  /// Opens RUN/metrics.jsonl to append after step `resumed_from`: lines of later steps, which a killed run may have
  /// left behind, are dropped.
  RunLog(const std::filesystem::path& run_directory, int64_t resumed_from);

  void add(const train::StepEvent& event, double mean_loss);
  void add(const train::StepEvent& event, const train::Evaluation& evaluation);

  /// Training seconds of earlier processes.
  double earlier_seconds() const { return earlier_seconds_; }

  /// Curves of the whole run.
  static void read_curves(const std::filesystem::path& run_directory, ComparisonRun& run);

 private:
  void write(const config::Value& line);

  std::filesystem::path path_;
  std::ofstream out_;
  double earlier_seconds_ = 0;
};

}  // namespace blockstate::apps
