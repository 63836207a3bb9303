// SPDX-License-Identifier: Apache-2.0
#include "core/model/model_config.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/config/nearest.h"

namespace blockstate::model {
namespace {

using Settings = decltype(SublayerConfig::settings);

Settings default_settings(const std::string& system) {
  if (system == "mamba") {
    return nn::MambaConfig{};
  }
  if (system == "s4d") {
    return nn::S4dConfig{};
  }
  if (system == "attention") {
    return nn::AttentionConfig{};
  }
  if (system == "block_state") {
    return nn::BlockStateConfig{};
  }
  return nn::MlpConfig{};  // mlp, gated_mlp
}

bool is_system(const std::string& name) {
  return std::find(system_names().begin(), system_names().end(), name) != system_names().end();
}

const config::EnumNames<nn::NormKind> kNormNames = {{"rms", nn::NormKind::kRms}, {"layer", nn::NormKind::kLayer}};
const config::EnumNames<nn::PoolingKind> kPoolingNames = {
    {"mean", nn::PoolingKind::kMean}, {"last", nn::PoolingKind::kLast}, {"attention", nn::PoolingKind::kAttention}};
const config::EnumNames<HeadKind> kHeadNames = {{"language_model", HeadKind::kLanguageModel},
                                                {"classify", HeadKind::kClassify},
                                                {"per_position", HeadKind::kPerPosition}};

}  // namespace

const std::vector<std::string>& system_names() {
  static const std::vector<std::string> names = {"mamba", "s4d", "attention", "block_state", "mlp", "gated_mlp"};
  return names;
}

SublayerConfig default_sublayer(const std::string& system) {
  if (!is_system(system)) {
    const std::string near = config::nearest(system, system_names());
    fail("\"", system, "\" is neither a system nor a [model.", system, "] section",
         near.empty() ? "" : "; did you mean ", near, "?");
  }
  return {system, default_settings(system)};
}

void SublayerConfig::visit(config::Visitor& v) {
  const std::string before = type;
  v.field("type", type, "the system these settings are for", config::one_of(system_names()));
  v.check("type", !type.empty(), "must name the system that these settings are for");
  if (type != before) {
    settings = default_settings(type);
  }
  std::visit([&](auto& chosen) { chosen.visit(v); }, settings);
}

void ModelConfig::visit(config::Visitor& v) {
  v.field("d_model", d_model, "width D of the residual stream", config::at_least(1));
  v.field("blocks", blocks, "pre-norm residual sublayers in order: systems or sections of [model]");
  v.field("norm", norm, "normalisation before each sublayer", kNormNames);
  v.field("dropout", dropout, "dropout of each sublayer's output", config::at_least(0).below(1));
  v.field("tie_embeddings", tie_embeddings, "language model: the output weights are the embedding's");
  v.field("pooling", pooling, "classify: one vector from all steps", kPoolingNames);
  config::NamedSections<SublayerConfig> sections;
  sections.doc = "settings of a system, or of a name of your own with type = \"SYSTEM\"";
  sections.examples = system_names();
  sections.make = [](const std::string& name) {
    return is_system(name) ? default_sublayer(name) : SublayerConfig{"", nn::MlpConfig{}};
  };
  v.named_sections(sublayers, sections);
}

SublayerConfig ModelConfig::sublayer(const std::string& name) const {
  const auto found = sublayers.find(name);
  return found != sublayers.end() ? found->second : default_sublayer(name);
}

void ModelShape::visit(config::Visitor& v) {
  v.field("head", head, "what the model gives", kHeadNames);
  v.field("vocabulary", vocabulary, "token ids that come in; 0: frames");
  v.field("channels", channels, "numbers a step that come in, where vocabulary is 0");
  v.field("outputs", outputs, "width of the result");
  v.field("start_token", start_token, "whether id `vocabulary` stands for the start");
}

}  // namespace blockstate::model
