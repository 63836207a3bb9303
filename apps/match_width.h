// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/model/model_config.h"

namespace blockstate::apps {

/// A variant's configuration brought to `parameters` parameters: d_model is scaled to the nearest width that its heads
/// allow, then the hidden width of its MLPs takes up what is left. Error if the count cannot be met within 2 %.
model::ModelConfig match_parameters(const model::ModelConfig& config, const model::ModelShape& shape,
                                    int64_t parameters);

int64_t count_parameters(const model::ModelConfig& config, const model::ModelShape& shape);

}  // namespace blockstate::apps
