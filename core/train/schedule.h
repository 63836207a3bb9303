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

/// Keys of [train] in a run file: training begins with short sequences.
struct LengthConfig {
  int64_t length_start = 0;   ///< steps of the first sequences; 0: whole from the start
  int64_t length_warmup = 0;  ///< optimiser steps until they are whole

  void visit(config::Visitor& v);
};

/// Steps of a sequence in step `step` (from 0) of training on sequences of `whole` steps: length_start, doubled at
/// equal distances so that it is whole from step length_warmup on. Never more than `whole`.
int64_t warmed_up_length(const LengthConfig& config, int64_t step, int64_t whole);

/// Learning rate as a fraction of the base rate for step `step` (from 0) of `steps`: (step + 1) / (warmup + 1) during
/// the warm-up, then 1, or half a cosine from 1 at step `warmup` to lr_final at step `steps` (one behind the last) and
/// after.
double schedule_factor(const ScheduleConfig& config, int64_t step, int64_t steps);

}  // namespace blockstate::train
