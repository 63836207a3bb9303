// SPDX-License-Identifier: Apache-2.0
#include "apps/match_width.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "core/base/check.h"
#include "core/model/block_pattern.h"
#include "core/model/model.h"

namespace blockstate::apps {
namespace {

constexpr double kTolerance = 0.02;

/// Widths must be multiples of this: heads divide them, and rotary positions need even head widths.
int64_t width_step(const model::ModelConfig& config) {
  int64_t step = 1;
  for (const std::string& name : model::expand_blocks(config.blocks)) {
    const model::SublayerConfig section = config.sublayer(name);
    if (const auto* attention = std::get_if<nn::AttentionConfig>(&section.settings)) {
      step = std::lcm(step, 2 * attention->heads);
    }
    if (const auto* hybrid = std::get_if<nn::BlockStateConfig>(&section.settings)) {
      step = std::lcm(step, 2 * hybrid->heads);
    }
  }
  return step;
}

/// The names in `blocks` that are MLPs; each gets its section, so that its hidden width can be set.
std::vector<std::string> mlp_names(const model::ModelConfig& config) {
  std::vector<std::string> names;
  for (const std::string& name : model::expand_blocks(config.blocks)) {
    if (std::holds_alternative<nn::MlpConfig>(config.sublayer(name).settings) &&
        std::find(names.begin(), names.end(), name) == names.end()) {
      names.push_back(name);
    }
  }
  return names;
}

model::ModelConfig with_hidden(model::ModelConfig config, const std::vector<std::string>& mlps, int64_t hidden) {
  for (const std::string& name : mlps) {
    model::SublayerConfig section = config.sublayer(name);
    std::get<nn::MlpConfig>(section.settings).hidden = hidden;
    config.sublayers[name] = section;
  }
  return config;
}

double off_by(int64_t found, int64_t wanted) {
  return std::abs(static_cast<double>(found - wanted)) / static_cast<double>(wanted);
}

}  // namespace

int64_t count_parameters(const model::ModelConfig& config, const model::ModelShape& shape) {
  return model::Model(config, shape, nn::Initialiser(0)).parameter_count();
}

model::ModelConfig match_parameters(const model::ModelConfig& config, const model::ModelShape& shape,
                                    int64_t parameters) {
  model::ModelConfig best = config;
  double best_error = off_by(count_parameters(config, shape), parameters);
  if (best_error <= kTolerance) {
    return best;
  }
  const auto consider = [&](const model::ModelConfig& candidate) {
    const int64_t count = count_parameters(candidate, shape);
    if (off_by(count, parameters) < best_error) {
      best_error = off_by(count, parameters);
      best = candidate;
    }
    return count;
  };
  const int64_t step = width_step(config);
  const std::vector<std::string> mlps = mlp_names(config);
  model::ModelConfig candidate = config;
  // Counts rise with the width, so the crossing is found by walking up; the MLPs then fill the gap below it.
  for (candidate.d_model = step; candidate.d_model <= 65536; candidate.d_model += step) {
    const int64_t count = consider(candidate);
    if (!mlps.empty() && off_by(count, parameters) < 0.5) {
      int64_t low = 1, high = 16 * candidate.d_model;
      while (low < high) {
        const int64_t middle = (low + high) / 2;
        consider(with_hidden(candidate, mlps, middle)) < parameters ? low = middle + 1 : high = middle;
      }
    }
    if (count > 2 * parameters || best_error <= kTolerance / 4) {
      break;
    }
  }
  require(best_error <= kTolerance, "compare.match = \"parameters\": ", parameters,
          " parameters cannot be met within 2 % ", "by this variant; its nearest has ", count_parameters(best, shape),
          ". Choose fewer heads, give it an MLP, or set match = \"none\"");
  return best;
}

}  // namespace blockstate::apps
