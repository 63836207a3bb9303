// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/config/visitor.h"

namespace blockstate::train {

enum class ScheduleKind : uint8_t { kConstant, kCosine };

/// Keys of [train] in a run file.
struct ScheduleConfig {
  int64_t warmup = 0;  ///< steps
  ScheduleKind schedule = ScheduleKind::kCosine;
  double lr_final = 0;  ///< as a fraction of lr

  void visit(config::Visitor& v);
};

/// Learning rate as a fraction of the base rate for step `step` (from 0) of `steps`: (step + 1) / (warmup + 1) during
/// the warm-up, then 1, or half a cosine from 1 at step `warmup` to lr_final at step `steps` (one behind the last) and
/// after.
double schedule_factor(const ScheduleConfig& config, int64_t step, int64_t steps);

}  // namespace blockstate::train
