// SPDX-License-Identifier: Apache-2.0
// One training run from its run file to its result: what `train` does once and `compare` for each variant.
#pragma once

#include <string>

#include "apps/report/compare_report.h"
#include "apps/run_config.h"
#include "apps/terminal.h"

namespace blockstate::apps {

struct TrainingOutcome {
  bool finished = false;  ///< false: stopped by a signal; the checkpoint is saved
  int64_t step = 0;
  ComparisonRun result;  ///< curves and final numbers; loss and metric of the test data where there are any
  std::string metric;
  bool higher_is_better = true;
  std::string judged_on;  ///< "test", "validation" or ""
};

/// Trains, or goes on where the run's directory stopped. Messages and progress go to `sink`. `label` names the run in
/// the progress line. A finished run is not trained again: its result is read.
TrainingOutcome run_training(const RunConfig& run, const std::string& label, ProgressSink& sink);

}  // namespace blockstate::apps
