// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "core/base/check.h"
#include "core/model/model.h"

namespace blockstate::model {
namespace {

/// The SSM inside a block-state layer: `settings.ssm` names a system or a section.
std::unique_ptr<nn::Ssm> make_ssm(const ModelConfig& config, const std::string& owner, const std::string& name,
                                  nn::SsmUse use, const nn::Initialiser& init) {
  const SublayerConfig section = config.sublayer(name);
  if (const auto* mamba = std::get_if<nn::MambaConfig>(&section.settings)) {
    return std::make_unique<nn::Mamba>(*mamba, config.d_model, 1, init, use);
  }
  if (const auto* s4d = std::get_if<nn::S4dConfig>(&section.settings)) {
    return std::make_unique<nn::S4d>(*s4d, config.d_model, 1, init, use);
  }
  fail("model.", owner, ".ssm = \"", name, "\" is a ", section.type,
       "; a state-space sublayer is wanted: s4d or mamba");
}

}  // namespace

std::unique_ptr<nn::Sublayer> make_sublayer(const ModelConfig& config, const std::string& name, int64_t residuals,
                                            const nn::Initialiser& init) {
  const SublayerConfig section = config.sublayer(name);
  const double gain = 1 / std::sqrt(static_cast<double>(residuals));
  const int64_t D = config.d_model;
  if (const auto* mamba = std::get_if<nn::MambaConfig>(&section.settings)) {
    return std::make_unique<nn::Mamba>(*mamba, D, gain, init);
  }
  if (const auto* s4d = std::get_if<nn::S4dConfig>(&section.settings)) {
    return std::make_unique<nn::S4d>(*s4d, D, gain, init);
  }
  if (const auto* attention = std::get_if<nn::AttentionConfig>(&section.settings)) {
    return std::make_unique<nn::Attention>(*attention, D, gain, init);
  }
  if (const auto* block_state = std::get_if<nn::BlockStateConfig>(&section.settings)) {
    const nn::SsmUse use =
        block_state->variant == nn::BlockStateVariant::kMultiFilter ? nn::SsmUse::kStates : nn::SsmUse::kOutputs;
    const nn::SsmFactory factory = [&](const nn::Initialiser& below) {
      return make_ssm(config, name, block_state->ssm, use, below);
    };
    return std::make_unique<nn::BlockState>(*block_state, factory, D, gain, init);
  }
  const auto& mlp = std::get<nn::MlpConfig>(section.settings);
  if (section.type == "mlp") {
    return std::make_unique<nn::Mlp>(mlp, D, gain, init);
  }
  return std::make_unique<nn::GatedMlp>(mlp, D, gain, init);
}

}  // namespace blockstate::model
