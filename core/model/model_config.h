// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "core/config/visitor.h"
#include "core/nn/attention.h"
#include "core/nn/block_state.h"
#include "core/nn/mamba.h"
#include "core/nn/mlp.h"
#include "core/nn/norm.h"
#include "core/nn/pooling.h"
#include "core/nn/s4d.h"

namespace blockstate::model {

/// Activation checkpointing: what of a sublayer is computed a second time in the backward pass rather than saved for it
/// (docs/chunk_and_carry.md).
enum class Recompute : uint8_t {
  kNone,
  kCheap,  ///< all but scans and attention, which take long and are small to save
  kAll,    ///< only the sublayer's input is saved
};

/// Settings of one kind of sublayer: [model.NAME] of a run file. `type` names the system; it is NAME itself where NAME
/// is a system.
struct SublayerConfig {
  std::string type;
  std::variant<nn::MambaConfig, nn::S4dConfig, nn::AttentionConfig, nn::BlockStateConfig, nn::MlpConfig> settings;

  void visit(config::Visitor& v);
};

/// Names of the systems that can stand in `blocks`.
const std::vector<std::string>& system_names();
/// The defaults of a system. Error names the nearest known system.
SublayerConfig default_sublayer(const std::string& system);

/// [model] of a run file.
struct ModelConfig {
  int64_t d_model = 64;
  std::vector<std::string> blocks = {"(mamba gated_mlp) * 4"};
  nn::NormKind norm = nn::NormKind::kRms;
  double dropout = 0;
  bool tie_embeddings = true;
  nn::PoolingKind pooling = nn::PoolingKind::kMean;
  std::map<std::string, SublayerConfig> sublayers;

  void visit(config::Visitor& v);
  /// Settings of a name used in `blocks`: its section, or the system's defaults.
  SublayerConfig sublayer(const std::string& name) const;
};

enum class HeadKind : uint8_t {
  kLanguageModel,  ///< next token: (B, L, V)
  kClassify,       ///< one label a record: (R, C)
  kPerPosition,    ///< one label a step: (B, L, C)
};

/// What the data and the task ask of a model; with ModelConfig it fixes every shape.
struct ModelShape {
  HeadKind head = HeadKind::kLanguageModel;
  int64_t vocabulary = 0;    ///< V token ids come in; 0: frames come in
  int64_t channels = 0;      ///< C numbers a step come in, where vocabulary is 0
  int64_t outputs = 0;       ///< V for a language model, classes otherwise
  bool start_token = false;  ///< one more id, V, stands for "nothing before"

  void visit(config::Visitor& v);
};

}  // namespace blockstate::model
