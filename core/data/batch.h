// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/data/example.h"
#include "core/tensor/tensor.h"

namespace blockstate::data {

/// What a batch asks the model to say.
enum class TargetKind : uint8_t {
  kNextToken,    ///< the token that follows each step
  kLabel,        ///< one class a record
  kPerPosition,  ///< one class a step
  kNone,         ///< nothing: inference
};

struct BatchOptions {
  TargetKind targets = TargetKind::kNone;
  /// For kNextToken: the id fed before the first token, so that the first one is predicted too. Inputs are then
  /// [start, x0 .. x(L-2)] and targets [x0 .. x(L-1)]. -1: none; inputs are [x0 .. x(L-2)], targets [x1 .. x(L-1)].
  int64_t start_token = -1;
  /// > 0: short records share rows of this many steps (a longer record has a row of its own); 0: a row for each.
  int64_t pack = 0;
  /// Records start at multiples of this in their row (Model::stride).
  int64_t stride = 1;
};

/// R records in B rows of L steps, padded at the end.
struct Batch {
  Tensor tokens;    ///< (B, L) int64, -1 padding; undefined where frames come
  Tensor frames;    ///< (B, L, C) float32, 0 padding; undefined where tokens come
  Tensor position;  ///< (B, L) int64: steps from the start of the record; -1 padding
  Tensor record;    ///< (B, L) int64: the record's index; -1 padding
  int64_t records = 0;
  Tensor
      targets;  ///< int64, -1 not scored: (R) for kLabel, (B, L) for kNextToken and kPerPosition; undefined for kNone
  std::vector<std::string> names;  ///< (R) of the examples
  std::vector<int64_t> lengths;    ///< (R) valid steps
  int64_t target_count = 0;        ///< targets that are scored
  int64_t token_count = 0;         ///< steps that are no padding

  int64_t batch() const { return position.size(0); }
  int64_t length() const { return position.size(1); }
};

/// Error naming the example: no steps (for kNextToken without start token: fewer than 2), tokens beside frames, frames
/// of different widths, a negative token, frames where the next token is asked for, position labels that do not fit.
Batch collate(const std::vector<Example>& examples, const BatchOptions& options);

/// The same steps as records of at most `length` steps: each row is cut into rows of `length`, and what a cut leaves of
/// a record is a record of its own, which starts with no past. For targets at every step. `length` must be a multiple
/// of the stride that the batch was made for.
Batch cut_records(const Batch& batch, int64_t length);

/// Rows [begin, end), whose records keep their numbers. Targets must be there at every step; target_count stays that of
/// the whole batch, over which a loss is the mean.
Batch slice_rows(const Batch& batch, int64_t begin, int64_t end);

}  // namespace blockstate::data
