// SPDX-License-Identifier: Apache-2.0
// Depthwise causal convolution along time, with carry.
//
//   a[b,t,d] = bias[d] + sum_{j=0}^{K-1} weight[d, K-1-j] * x[b, t-j, d];   y = silu(a) or a
//
// Shapes: x, y (B, L, D); weight (D, K), tap K-1 is the current step (PyTorch's order); bias (D);
// initial, final (B, K-1, D): the last K-1 inputs before the chunk and before each row's end, oldest first.
// x[b, t-j] with t-j < 0 reads `initial`, or 0 where it is absent.
// `position` (B, L), optional: steps from the start of the record, -1 for padding. Then tap j counts only where
// j <= position[b, t]; padded steps give y = 0, pass no gradient and are not part of `final`; a row's end is after its
// last step with position >= 0. Without it every step is valid. `final` holds 0 where it would reach before the record.
// A row without a valid step hands its `initial` on. The steps of a record lie side by side: padding comes before its
// first step of the chunk or after its last.
// x, y, initial, final and their gradients may be slices of wider rows: only the last stride must be 1. `final` may be
// `initial`, overwritten.
// Saves nothing: backward recomputes a. Gradients: dweight, dbias add; dx, dinitial overwrite. K <= 8. Fixed order.
// Identities: shifting the input shifts the output; L calls of length 1 with carry equal one call.
#pragma once

#include <cstdint>

#include "core/base/view.h"
#include "kernels/cuda_exec.h"

namespace blockstate::kernels {

/// T: activations. P: parameters, states and sums, float on CUDA devices whatever T is; on the CPU T and P are the
/// same.
template <class T, class P = T>
struct CausalConv1dForward {
  View<T, 3> y;
  View<T, 3> final;  // absent: not wanted
  View<const T, 3> x;
  View<const P, 2> weight;
  View<const P, 1> bias;     // absent: none
  View<const T, 3> initial;  // absent: zeros
  View<const int64_t, 2> position;
  bool silu = true;
};

template <class T, class P = T>
struct CausalConv1dBackward {
  View<T, 3> dx;
  View<P, 2> dweight;
  View<P, 1> dbias;     // absent: none
  View<T, 3> dinitial;  // absent: not wanted
  View<const T, 3> dy;
  View<const T, 3> dfinal;  // absent: zeros
  View<const T, 3> x;
  View<const P, 2> weight;
  View<const P, 1> bias;
  View<const T, 3> initial;
  View<const int64_t, 2> position;
  bool silu = true;
};

namespace cpu {
template <class T>
void causal_conv1d_forward(const CausalConv1dForward<T>& args);
template <class T>
void causal_conv1d_backward(const CausalConv1dBackward<T>& args);
}  // namespace cpu

namespace cuda {
template <class T>
void causal_conv1d_forward(const Exec& exec, const CausalConv1dForward<T, float>& args);
template <class T>
void causal_conv1d_backward(const Exec& exec, const CausalConv1dBackward<T, float>& args);
}  // namespace cuda

}  // namespace blockstate::kernels
