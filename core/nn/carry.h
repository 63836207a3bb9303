// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

#include "core/autograd/variable.h"

namespace blockstate::nn {

/// Everything a model needs from the past of its rows, as a flat list of named tensors: SSM states, the last inputs of
/// convolutions, keys and values of the last window, pooled sums. An empty carry is the start of a sequence. It is
/// state, of the activations' type or wider, that can be saved, moved and differentiated through
/// (docs/chunk_and_carry.md).
using CarryMap = std::map<std::string, Variable>;

/// A sublayer's window on the carry: names below a prefix. Reads give what came from the previous chunk; writes leave
/// what the next one needs, so a sublayer reads before it writes.
class Carry {
 public:
  /// No carry: the chunk is a whole sequence, nothing is read or kept.
  Carry() = default;
  explicit Carry(CarryMap* map, std::string prefix = "") : map_(map), prefix_(std::move(prefix)) {}

  /// Whether the state after the chunk is wanted.
  bool wanted() const { return map_ != nullptr; }
  /// Undefined at the start of a sequence.
  Variable get(const std::string& name) const {
    if (map_ == nullptr) {
      return {};
    }
    const auto found = map_->find(prefix_ + name);
    return found == map_->end() ? Variable() : found->second;
  }
  void set(const std::string& name, const Variable& value) const {
    if (map_ != nullptr) {
      (*map_)[prefix_ + name] = value;
    }
  }
  Carry child(const std::string& name) const { return map_ == nullptr ? Carry() : Carry(map_, prefix_ + name + "."); }

 private:
  CarryMap* map_ = nullptr;
  std::string prefix_;
};

}  // namespace blockstate::nn
