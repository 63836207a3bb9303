// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/model/model_config.h"
#include "core/nn/linear.h"
#include "core/nn/norm.h"
#include "core/nn/pooling.h"
#include "core/nn/sublayer.h"

namespace blockstate::model {

/// What one chunk brings: token ids, or frames.
struct ModelInput {
  Tensor tokens;  ///< (B, L) int64, -1 padding; undefined where frames come
  Tensor frames;  ///< (B, L, C) float; undefined where tokens come
  nn::Sequence sequence;
};

/// embedding -> (norm -> sublayer -> add) x n -> norm -> head, on a chunk and a carry (README, the way of the data).
///
/// Parameters: embedding.weight (V [+1], D), or frames.{weight (D, C), bias}; layers.I.norm.*, layers.I.mixer.*;
/// norm.*; head.weight (outputs, D) unless tied, head.bias and pooling.* for classification.
/// Carry names: layers.I.<sublayer's own>, pooling.<...>.
class Model : public nn::Module {
 public:
  /// Parameters are of the initialiser's type and on its device. Activations are of the same type unless `activations`
  /// says bfloat16; the residual stream stays in the parameters'. Error where names, widths or heads do not fit.
  Model(const ModelConfig& config, const ModelShape& shape, const nn::Initialiser& init)
      : Model(config, shape, init, init.dtype()) {}
  Model(const ModelConfig& config, const ModelShape& shape, const nn::Initialiser& init, DType activations);

  /// Logits of a chunk: (B, L, outputs), or (R, outputs) for classify, of the steps so far. `carry` null: the chunk is
  /// a whole sequence. Otherwise it is read, and then holds the state after the chunk.
  Variable forward(const ModelInput& input, nn::CarryMap* carry = nullptr) const;

  /// Moves the carry over a chunk without making logits of every step.
  void run(const ModelInput& input, nn::CarryMap* carry) const;

  /// Residual stream after the final norm: (B, L, D).
  Variable features(const ModelInput& input, nn::CarryMap* carry = nullptr) const;

  /// For the sublayers of these names (as in `blocks`; no names: all); the others save everything. Changes time and
  /// memory, no result. Error for a name that is not in the model.
  void set_recompute(Recompute what, const std::vector<std::string>& names = {});

  /// Records must start at multiples of this in their row: least common multiple over sublayers.
  int64_t stride() const { return stride_; }
  /// Names of the sublayers whose carry grows with the length; empty: constant memory.
  std::vector<std::string> growing_sublayers() const;
  /// Names of the sublayers that need the whole sequence at once.
  std::vector<std::string> whole_sublayers() const;
  /// Sublayer::steps_repeat of all sublayers.
  bool steps_repeat() const;
  int64_t carry_bytes(int64_t length) const;

  /// Type of parameters and of the frames the model takes.
  DType dtype() const { return dtype_; }
  DType activations() const { return activations_; }
  Device device() const { return device_; }
  const ModelConfig& config() const { return config_; }
  const ModelShape& shape() const { return shape_; }
  const std::vector<std::string>& sublayer_names() const { return names_; }

 private:
  struct Layer;
  Variable embed(const ModelInput& input) const;
  /// What the last sublayer adds, and the residual stream before it.
  std::pair<Variable, Variable> stream(const ModelInput& input, nn::CarryMap* carry) const;
  Variable pooled(const Variable& x, const ModelInput& input, nn::CarryMap* carry) const;

  ModelConfig config_;
  ModelShape shape_;
  DType dtype_;
  DType activations_;
  Device device_;
  std::vector<std::string> names_;
  int64_t stride_ = 1;
  Variable embedding_;
  nn::Linear* frames_ = nullptr;
  std::vector<Layer*> layers_;
  nn::Norm* norm_ = nullptr;
  nn::Pooling* pooling_ = nullptr;
  nn::Linear* head_ = nullptr;
};

/// Builds one sublayer by its name in `blocks`. `residuals` is the number of sublayers that add to the stream: output
/// projections start 1/sqrt(residuals) smaller, as GPT-2 and Mamba do.
std::unique_ptr<nn::Sublayer> make_sublayer(const ModelConfig& config, const std::string& name, int64_t residuals,
                                            const nn::Initialiser& init);

}  // namespace blockstate::model
