// SPDX-License-Identifier: Apache-2.0
#include "core/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace blockstate::train {

void ScheduleConfig::visit(config::Visitor& v) {
  v.field("warmup", warmup, "steps over which the learning rate rises from 0 to lr", config::at_least(0));
  v.field("schedule", schedule, "the learning rate after the warm-up",
          config::EnumNames<ScheduleKind>{{"constant", ScheduleKind::kConstant}, {"cosine", ScheduleKind::kCosine}});
  v.field("lr_final", lr_final, "where cosine ends, as a fraction of lr", config::at_least(0).at_most(1));
}

void LengthConfig::visit(config::Visitor& v) {
  v.field("length_start", length_start,
          "sequences are cut to this many steps at first, all pieces in one batch; 0: never cut", config::at_least(0));
  v.field("length_warmup", length_warmup, "steps until sequences are whole, their length doubling on the way",
          config::at_least(0));
  v.check("length_warmup", length_start == 0 || length_warmup > 0, "must be above 0 where length_start is");
}

int64_t warmed_up_length(const LengthConfig& config, int64_t step, int64_t whole) {
  if (config.length_start == 0 || step >= config.length_warmup || config.length_start >= whole) {
    return whole;
  }
  int64_t stages = 0;
  for (int64_t length = config.length_start; length < whole; length *= 2) {
    ++stages;
  }
  return std::min(whole, config.length_start << (step * stages / config.length_warmup));
}

double schedule_factor(const ScheduleConfig& config, int64_t step, int64_t steps) {
  if (step < config.warmup) {
    return static_cast<double>(step + 1) / static_cast<double>(config.warmup + 1);
  }
  if (config.schedule == ScheduleKind::kConstant) {
    return 1;
  }
  const auto span = static_cast<double>(std::max<int64_t>(1, steps - config.warmup));
  const double progress = std::min(1.0, static_cast<double>(step - config.warmup) / span);
  return config.lr_final + (1 - config.lr_final) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
}

}  // namespace blockstate::train
