// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "core/model/model.h"
#include "kernels/cuda_exec.h"

namespace blockstate::model {

/// Walks a language model over B rows at once, a prompt and then step by step: the carry holds everything before. On a
/// GPU a step that repeats (Model::steps_repeat, and carries that have reached their size) is recorded once and
/// replayed.
class Generator {
 public:
  Generator(const Model& model, int64_t batch);

  /// tokens (B, L) int64 on the CPU, fed in chunks. Logits after the last one: (B, V) on the model's device.
  Tensor prompt(const Tensor& tokens, int64_t chunk = 65536);
  /// One token a row. Logits (B, V) on the model's device; the next call writes over them.
  Tensor step(const std::vector<int64_t>& tokens);
  /// The same with tokens (B) int64 that lie on the model's device: nothing then waits for the host.
  Tensor step(const Tensor& tokens);
  /// The token of the largest of each row's last logits, (B) int64 on the model's device.
  Tensor best() const;
  /// Steps fed so far.
  int64_t position() const { return position_; }
  /// All that is needed from the past. The next call may write over it.
  const nn::CarryMap& carry() const { return carry_; }
  /// Goes on where `position` steps had left this carry: of as many rows, or of one row, which all rows then start
  /// from. Its tensors may lie on any device.
  void restore(const nn::CarryMap& carry, int64_t position);

 private:
  Tensor forward();
  void place_positions();
  Tensor advance();
  void fix_carry();

  const Model& model_;
  int64_t batch_;
  int64_t position_ = 0;
  Tensor step_;  ///< (3, B) int64 on the device: token, position, position + 1 of the step
  ModelInput input_;
  nn::CarryMap carry_;
  Tensor logits_;
  bool fixed_ = false;  ///< the carry and the logits lie where the recorded step expects them
  std::unique_ptr<kernels::cuda::StreamGraph> graph_;
};

}  // namespace blockstate::model
