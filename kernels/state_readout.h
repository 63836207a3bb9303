// SPDX-License-Identifier: Apache-2.0
// Reads S context vectors out of one SSM state: the S filters of a multi-filter block-state layer share the poles of
// one SSM and differ in how they read it (docs/decisions/0004-block-state-filters.md).
//
//   y[b,s,d] = sum_q weight[s,d,q] * state[b,d,q]
//
// Shapes: state (B, D, Q), contiguous; weight (S, D, Q), contiguous; y (B, S, D). Gradients: dweight adds, dstate
// overwrites. Fixed-order sums.
#pragma once

#include "core/base/view.h"
#include "kernels/cuda_exec.h"

namespace blockstate::kernels {

namespace cpu {

template <class T>
void state_readout_forward(View<T, 3> y, View<const T, 3> state, View<const T, 3> weight);
template <class T>
void state_readout_backward(View<T, 3> dstate, View<T, 3> dweight, View<const T, 3> dy, View<const T, 3> state,
                            View<const T, 3> weight);

}  // namespace cpu

/// T is float: states are.
namespace cuda {
template <class T>
void state_readout_forward(const Exec& exec, View<T, 3> y, View<const T, 3> state, View<const T, 3> weight);
template <class T>
void state_readout_backward(const Exec& exec, View<T, 3> dstate, View<T, 3> dweight, View<const T, 3> dy,
                            View<const T, 3> state, View<const T, 3> weight);
}  // namespace cuda

}  // namespace blockstate::kernels
