// SPDX-License-Identifier: Apache-2.0
// Stacks of every kind of sublayer and the batch they are tried on, for tests of whole models on a GPU.
#pragma once

#include <string>
#include <vector>

#include "core/data/batch.h"
#include "core/model/model.h"
#include "tests/support/fill.h"

namespace blockstate::test {

inline constexpr Device kGpu{DeviceKind::kCuda, 0};
inline constexpr int64_t kVocabulary = 7, kClasses = 3;

inline const std::vector<std::string> kStacks = {"mamba mamba", "s4d gated_mlp", "window mlp",   "full", "sh",
                                                 "mh",          "mf window",     "mamba mf full"};

inline model::ModelConfig config_of(const std::string& blocks) {
  model::ModelConfig config;
  config.d_model = 32;
  config.blocks = {blocks};
  config.dropout = 0.1;
  config.sublayers["mamba"] = {"mamba", nn::MambaConfig{.state = 16}};
  config.sublayers["s4d"] = {"s4d", nn::S4dConfig{.state = 16}};
  config.sublayers["window"] = {"attention", nn::AttentionConfig{.heads = 2, .window = 20}};
  config.sublayers["full"] = {"attention",
                              nn::AttentionConfig{.heads = 2, .sees_self = false, .position = nn::PositionKind::kT5}};
  const auto hybrid = [](nn::BlockStateVariant variant, const std::string& ssm, int64_t window = 16) {
    return nn::BlockStateConfig{.variant = variant, .ssm = ssm, .window = window, .states = 3, .heads = 2};
  };
  config.sublayers["sh"] = {"block_state", hybrid(nn::BlockStateVariant::kSingleHead, "mamba")};
  config.sublayers["mh"] = {"block_state", hybrid(nn::BlockStateVariant::kMultiHead, "s4d")};
  config.sublayers["mf"] = {"block_state", hybrid(nn::BlockStateVariant::kMultiFilter, "mamba")};
  // Windows of more steps than scans keep a state of.
  config.sublayers["mf_wide"] = {"block_state", hybrid(nn::BlockStateVariant::kMultiFilter, "mamba", 512)};
  config.sublayers["mf_wide_s4d"] = {"block_state", hybrid(nn::BlockStateVariant::kMultiFilter, "s4d", 512)};
  return config;
}

inline model::ModelShape shape_of(model::HeadKind head) {
  return {.head = head,
          .vocabulary = kVocabulary,
          .channels = 0,
          .outputs = head == model::HeadKind::kLanguageModel ? kVocabulary : kClasses,
          .start_token = false};
}

/// Records of the given lengths with targets for a head. Where `pack` > 0, short ones share rows of that many steps.
inline data::Batch batch_of(model::HeadKind head, const std::vector<int64_t>& lengths = {150, 64, 101},
                            int64_t pack = 0) {
  std::vector<data::Example> examples;
  for (const int64_t length : lengths) {
    data::Example example;
    example.name = join("record of ", length);
    example.tokens = random_ids(static_cast<uint64_t>(length), length, 0, kVocabulary);
    example.label = length % kClasses;
    example.position_labels = random_ids(static_cast<uint64_t>(length) + 50, length, -1, kClasses);
    examples.push_back(example);
  }
  data::BatchOptions options;
  options.pack = pack;
  options.stride = 16;
  options.targets = head == model::HeadKind::kLanguageModel ? data::TargetKind::kNextToken
                    : head == model::HeadKind::kClassify    ? data::TargetKind::kLabel
                                                            : data::TargetKind::kPerPosition;
  return data::collate(examples, options);
}

}  // namespace blockstate::test
