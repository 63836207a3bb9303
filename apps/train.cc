// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "apps/format.h"
#include "apps/session.h"
#include "apps/training.h"
#include "apps/verbs.h"

namespace blockstate::apps {

int run_train(const RunFileArguments& arguments) {
  const RunConfig run = load_run_config(arguments.config, arguments.overrides);
  StderrSink sink;
  const TrainingOutcome outcome = run_training(run, "", sink);
  if (!outcome.finished) {
    std::fprintf(stderr, "stopped at step %s; the checkpoint is saved in %s. The same command goes on from there.\n",
                 format_count(outcome.step).c_str(), run.run.dir.c_str());
    return kInterrupted;
  }
  if (!outcome.judged_on.empty()) {
    std::printf("%s %s %s\n", outcome.judged_on.c_str(), outcome.metric.c_str(),
                format_significant(outcome.result.metric, 4).c_str());
  }
  return 0;
}

}  // namespace blockstate::apps
