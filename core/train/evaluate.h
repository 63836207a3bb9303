// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "core/config/value.h"
#include "core/data/loader.h"
#include "core/train/objective.h"

namespace blockstate::train {

/// What a pass over a data set gives.
struct Evaluation {
  double loss = 0;  ///< mean over targets, nats
  int64_t targets = 0;
  std::string metric;  ///< name of the one number that models are compared by
  double value = 0;
  bool higher_is_better = true;
  config::Value details;  ///< all metrics, as `eval --json` prints them
};

/// The number models of a task are compared by: accuracy, or bits_per_symbol for a language model.
std::string primary_metric(model::HeadKind head);
bool higher_is_better(model::HeadKind head);

/// One pass in order. Dropout is off. chunk > 0 runs long examples through the carry in chunks of that many steps.
Evaluation evaluate(const model::Model& model, data::Loader& loader, const Objective& objective, int64_t chunk = 0);

/// Logits of a batch, in chunks through the carry where chunk > 0: hands on (B, steps, outputs) of steps [begin, end),
/// or (R, outputs) at the end of a classifier's. Memory is that of one chunk.
void for_logits(const model::Model& model, const model::ModelInput& input, int64_t chunk,
                const std::function<void(const Tensor& logits, int64_t begin, int64_t end)>& use);

}  // namespace blockstate::train
