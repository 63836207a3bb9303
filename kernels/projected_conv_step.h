// SPDX-License-Identifier: Apache-2.0
// One step of a projection and of the causal convolution of its first channels, for generation.
//
//   p = input weight^T, rounded to T;   y, final = causal_conv1d (causal_conv1d.h) of p's first D channels, L = 1
//
// Shapes: input (B, I); weight (C, I), C >= D; p (B, C); those of `conv` as in causal_conv1d.h with L = 1, its x
// absent. Rows may be strided, the last stride is 1. No backward. Identity: equals a product and causal_conv1d.
#pragma once

#include "kernels/causal_conv1d.h"

namespace blockstate::kernels {

template <class T, class P = T>
struct ProjectedConvStep {
  View<T, 2> p;
  View<const T, 2> input;
  View<const T, 2> weight;
  CausalConv1dForward<T, P> conv;
};

namespace cpu {
template <class T>
void projected_conv_step(const ProjectedConvStep<T>& args);
}  // namespace cpu

namespace cuda {
template <class T>
void projected_conv_step(const Exec& exec, const ProjectedConvStep<T, float>& args);
}  // namespace cuda

}  // namespace blockstate::kernels
