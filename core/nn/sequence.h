// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/tensor/tensor.h"

namespace blockstate::nn {

/// Where the steps of a chunk lie: all that a sublayer may know beside its input and carry.
///
/// A row holds one record or several, each a run of steps; steps outside records are padding. Records start at
/// multiples of the stack's stride counted from the row's start, so the phase of windows is the same in all rows and
/// follows from `offset` alone.
/// Tensors lie on the model's device; host_position and host_record are the same on the CPU, for what is decided there.
struct Sequence {
  Tensor position;  ///< (B, L) int64: steps from the start of the record; -1 padding
  Tensor record;    ///< (B, L) int64: index of the record in the batch; -1 padding
  Tensor host_position;
  Tensor host_record;
  int64_t records = 0;  ///< R, records of the whole batch
  int64_t offset = 0;   ///< index in the row of the chunk's first step
  Tensor end;           ///< (B) int64: steps up to and including the row's last valid one in this chunk
  Tensor known;         ///< (B) int64: steps its record had by then
  bool uniform = true;  ///< no padding and no record start but at the row's start: kernels need no positions
  bool training = false;
  uint64_t random_key = 0;  ///< mixes seed and step; dropout draws from it

  int64_t batch() const { return position.size(0); }
  int64_t length() const { return position.size(1); }
  /// What kernels take: absent where every step is plain.
  Tensor kernel_position() const { return uniform ? Tensor() : position; }
  /// Steps [begin, stop) of the chunk, on the same device or another.
  Sequence slice(int64_t begin, int64_t stop) const { return slice(begin, stop, position.device()); }
  Sequence slice(int64_t begin, int64_t stop, Device device) const;
  /// The first steps, for whoever keeps no carry: without `end` and `known`. Where the sequence is uniform nothing goes
  /// to the device.
  Sequence first(int64_t steps) const;
};

/// Derives end, known and uniform. position and record are (B, L) int64 on the CPU.
Sequence make_sequence(const Tensor& position, const Tensor& record, int64_t records, int64_t offset,
                       Device device = {});

/// B rows of one record each, all `length` steps valid, starting at step `offset` of the record.
Sequence plain_sequence(int64_t batch, int64_t length, int64_t offset = 0, Device device = {});

}  // namespace blockstate::nn
