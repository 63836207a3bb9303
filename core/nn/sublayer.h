// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "core/nn/carry.h"
#include "core/nn/module.h"
#include "core/nn/sequence.h"

namespace blockstate::nn {

/// What a sublayer's carry costs as the sequence grows (docs/chunk_and_carry.md).
enum class MemoryClass : uint8_t {
  kBounded,  ///< the carry has one size at every length
  kGrowing,  ///< the carry grows with the length
  kWhole,    ///< the sublayer needs the whole sequence at once: it cannot stream or be cut in chunks
};

std::string_view memory_class_name(MemoryClass memory);

/// A causal sublayer: a differentiable function of a chunk and a carry,
///
///   (y, carry after) = f(x, carry before; parameters)                        x, y (B, L, D)
///
/// The law: for any split of a sequence, k chunks with carry equal one pass, in outputs, in every parameter gradient
/// and in the gradient of the incoming carry. Padding is the identity; a record's start resets the carry.
class Sublayer : public Module {
 public:
  virtual Variable forward(const Variable& x, const Sequence& sequence, const Carry& carry) = 0;
  virtual MemoryClass memory_class() const = 0;
  /// Records must start at multiples of this many steps in their row.
  virtual int64_t stride() const { return 1; }
  /// Whether a chunk of one step does the same work wherever it stands in its row, given carries of one size. Then a
  /// step of generation can be recorded once and replayed.
  virtual bool steps_repeat() const { return true; }
  /// Bytes of carry for one row after `length` steps; `activations`: their element type (states may be wider).
  virtual int64_t carry_bytes(int64_t length, DType activations) const = 0;
};

/// What is asked of an SSM. Where only its states are read (block_state MF), it has no parameters for outputs.
enum class SsmUse : uint8_t { kOutputs, kStates };

/// A state-space sublayer: its carry holds a linear state that context vectors can be read from.
class Ssm : public Sublayer {
 public:
  /// The state of one row is (state_channels, state_size) numbers.
  virtual int64_t state_channels() const = 0;
  virtual int64_t state_size() const = 0;
  /// The states (B, windows that end in the chunk, state_channels, state_size) after the last step of each window.
  /// Windows of `window` steps count from the start of the row.
  virtual Variable states_at_window_ends(const Variable& x, const Sequence& sequence, int64_t window,
                                         const Carry& carry) = 0;

 protected:
  /// Steps of the chunk up to the first window end: 1 .. window.
  static int64_t first_window(const Sequence& sequence, int64_t window) { return window - sequence.offset % window; }
};

}  // namespace blockstate::nn
