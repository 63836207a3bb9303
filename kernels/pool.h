// SPDX-License-Identifier: Apache-2.0
// Weighted sums over the steps of each record, for pooling heads.
//
//   y[r, d] = sum over (b, t) with record[b, t] = r of weight[b, t] * x[b, t, d]
//
// Shapes: x (B, L, D), weight (B, L), record (B, L) with values in [-1, R) (-1: padding, skipped), y (R, D).
// Gradients overwrite: dx[b,t,d] = weight * dy[r,d]; dweight[b,t] = sum_d x * dy. Steps with record -1 get 0.
// Sums run over t in order for each record.
#pragma once

#include <cstdint>

#include "core/base/view.h"

namespace blockstate::kernels::cpu {

template <class T>
void pool_forward(View<T, 2> y, View<const T, 3> x, View<const T, 2> weight, View<const int64_t, 2> record);
/// dweight absent: not wanted.
template <class T>
void pool_backward(View<T, 3> dx, View<T, 2> dweight, View<const T, 2> dy, View<const T, 3> x, View<const T, 2> weight,
                   View<const int64_t, 2> record);

}  // namespace blockstate::kernels::cpu
