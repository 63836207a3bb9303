// SPDX-License-Identifier: Apache-2.0
// The total that a loss is.
//
//   y = sum_i x[i] * weight[i]          weight absent: ones
//
// Shapes: x, weight (R), y (1). Gradient overwrites: dx[i] = dy * weight[i]. Summed in double, in a fixed order.
#pragma once

#include "core/base/view.h"
#include "kernels/cuda_exec.h"

namespace blockstate::kernels {

namespace cpu {
template <class T>
void weighted_sum_forward(View<T, 1> y, View<const T, 1> x, View<const T, 1> weight);
template <class T>
void weighted_sum_backward(View<T, 1> dx, View<const T, 1> dy, View<const T, 1> weight);
}  // namespace cpu

/// T is float.
namespace cuda {
template <class T>
void weighted_sum_forward(const Exec& exec, View<T, 1> y, View<const T, 1> x, View<const T, 1> weight);
template <class T>
void weighted_sum_backward(const Exec& exec, View<T, 1> dx, View<const T, 1> dy, View<const T, 1> weight);
}  // namespace cuda

}  // namespace blockstate::kernels
