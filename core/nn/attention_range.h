// SPDX-License-Identifier: Apache-2.0
// Which keys a query sees, as ranges for kernels/attention.h. Queries are the steps of a chunk; keys are the carried
// ones, right-aligned so that the last carried key is the step before the chunk, followed by the chunk's own.
#pragma once

#include "core/autograd/ops.h"
#include "core/nn/sequence.h"

namespace blockstate::nn {

/// Sliding window: a query sees the `window` latest keys of its record, itself among them; where it does not see
/// itself, the `window` keys before it. window 0: all keys of the record (full causal attention).
ops::AttentionRange sliding_range(const Sequence& sequence, int64_t carried, int64_t window, bool sees_self);

/// Block-causal: a query sees the steps of its own aligned window up to itself (SH and MH context states).
ops::AttentionRange block_range(const Sequence& sequence, int64_t carried, int64_t window);

/// Context states of the previous window: keys are groups of `states`, group 0 that of the window before the chunk's
/// first step, group g that of the g-th window that ends inside the chunk. A record's first window sees none.
ops::AttentionRange previous_window_range(const Sequence& sequence, int64_t window, int64_t states);

}  // namespace blockstate::nn
