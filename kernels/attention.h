// SPDX-License-Identifier: Apache-2.0
// Attention where every query sees one contiguous range of keys. That one form serves full causal attention, sliding
// windows, windows with a carry from the previous chunk, cross-attention to context states (block-state models) and
// packed or padded rows: the caller states the ranges, the kernel knows no masks.
//
//   s[b,h,i,j] = scale * q[b,i,h].k[b,j,h] + bias[h, min(i + offset - j, M - 1)]     for begin[b,i] <= j < end[b,i]
//   y[b,i,h]   = sum_j softmax_j(s) v[b,j,h]                                          (0 where the range is empty)
//
// Shapes: q, y (B, L, H, P); k, v (B, J, H, P); begin, end (B, L), 0 <= begin, end <= J, both non-decreasing in i
// over queries with a non-empty range of one row; bias (H, M) by distance, optional (then i + offset - j >= 0 for
// every visible pair); log_sum_exp (B, H, L), -infinity for an empty range.
// `offset` is the index in k of the key that lies at query 0 (J - L when the carried keys stand before the chunk's).
// Only the last stride of each view must be 1. k and v must be finite also where a neighbouring query alone sees them:
// a hidden key has weight 0, and 0 times infinity is not 0.
// Saves: y, log_sum_exp. Gradients overwrite, but dbias adds. Fixed-order sums. Work and memory follow the ranges,
// never L * J.
// Identities: a range that covers all earlier keys is full causal attention; rotating q and k alike changes nothing;
// an empty range gives exactly 0.
#pragma once

#include <cstdint>

#include "core/base/view.h"
#include "kernels/cuda_exec.h"

namespace blockstate::kernels {

/// T: activations. P: parameters, states and sums, float on CUDA devices whatever T is; on the CPU T and P are the
/// same.
template <class T, class P = T>
struct AttentionForward {
  View<T, 4> y;
  View<P, 3> log_sum_exp;  // absent: no backward will follow
  View<const T, 4> q;
  View<const T, 4> k;
  View<const T, 4> v;
  View<const int64_t, 2> begin;
  View<const int64_t, 2> end;
  View<const P, 2> bias;  // absent: none
  P scale = 1;
  int64_t offset = 0;
};

template <class T, class P = T>
struct AttentionBackward {
  View<T, 4> dq;
  View<T, 4> dk;
  View<T, 4> dv;
  View<P, 2> dbias;  // absent: none
  View<const T, 4> dy;
  AttentionForward<T, P> forward;  // its inputs, y and log_sum_exp
};

namespace cpu {
template <class T>
void attention_forward(const AttentionForward<T>& args);
template <class T>
void attention_backward(const AttentionBackward<T>& args);
}  // namespace cpu

namespace cuda {
template <class T>
void attention_forward(const Exec& exec, const AttentionForward<T, float>& args);
template <class T>
void attention_backward(const Exec& exec, const AttentionBackward<T, float>& args);
}  // namespace cuda

}  // namespace blockstate::kernels
