// SPDX-License-Identifier: Apache-2.0
// A stream between two commands: what --save-state writes and --resume-state goes on from (docs/checkpoint_format.md).
#pragma once

#include <string>

#include "apps/input_stream.h"
#include "apps/session.h"
#include "core/nn/carry.h"
#include "core/train/safetensors.h"

namespace blockstate::apps {

/// A fresh one is the start of a stream.
class StreamState {
 public:
  nn::CarryMap carry;
  int64_t position = 0;  ///< steps through the model
  StreamPlace place;
  train::NamedTensors sums;  ///< tensors that the verb keeps

  /// The verb's own values. Reading one that is not there gives `otherwise`; Error where a file's is malformed.
  void set(const std::string& key, int64_t value) { facts_[key] = std::to_string(value); }
  void set(const std::string& key, double value);
  void set(const std::string& key, const std::string& value) { facts_[key] = value; }
  bool has(const std::string& key) const { return facts_.count(key) > 0; }
  int64_t integer(const std::string& key, int64_t otherwise) const;
  double number(const std::string& key, double otherwise) const;
  std::string text(const std::string& key, const std::string& otherwise) const;

  /// Error, in a sentence that says what to do: no such file, damaged, not a stream's state, of another version, verb
  /// or model. The carry is brought to the model's device and types.
  static StreamState read(const std::string& file, const std::string& verb, const LoadedModel& loaded);
  /// Written whole or not at all.
  void write(const std::string& file, const std::string& verb, const LoadedModel& loaded) const;

 private:
  std::string file_;  ///< where it was read, for messages
  train::TextMap facts_;
};

/// 16 hexadecimal digits: of the settings that decide what the model computes and of all parameters; the same on every
/// device.
std::string model_fingerprint(const LoadedModel& loaded);

/// Says once on standard error which sublayers' carries grow with a stream, and to what size at `steps`.
void note_growing(const model::Model& model, int64_t steps);
/// Error where a sublayer needs the whole sequence at once, and so has no carry to go on from.
void require_stream(const LoadedModel& loaded);

}  // namespace blockstate::apps
