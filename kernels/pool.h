// SPDX-License-Identifier: Apache-2.0
// Weighted sums over the steps of each record, for pooling heads.
//
//   y[r, d] = sum over (b, t) with record[b, t] = r of weight[b, t] * x[b, t, d]
//
// Shapes: x (B, L, D), weight (B, L), record (B, L) with values in [-1, R) (-1: padding, skipped), y (R, D).
// Gradients overwrite: dx[b,t,d] = weight * dy[r,d]; dweight[b,t] = sum_d x * dy. Steps with record -1 get 0.
// Sums run over t in order for each record. Below it the small functions that pooling needs beside it, on one number a
// step or a row.
#pragma once

#include <cstdint>

#include "core/base/view.h"
#include "kernels/cuda_exec.h"

namespace blockstate::kernels {

namespace cpu {

template <class T>
void pool_forward(View<T, 2> y, View<const T, 3> x, View<const T, 2> weight, View<const int64_t, 2> record);
/// dweight absent: not wanted.
template <class T>
void pool_backward(View<T, 3> dx, View<T, 2> dweight, View<const T, 2> dy, View<const T, 3> x, View<const T, 2> weight,
                   View<const int64_t, 2> record);

/// weight[b, t] = exp(score[b, t] - shift[record[b, t]]), 0 where the record is -1.
template <class T>
void pool_weights_forward(View<T, 2> weight, View<const T, 2> score, View<const int64_t, 2> record,
                          View<const T, 1> shift);
/// dscore = dweight * weight
template <class T>
void pool_weights_backward(View<T, 2> dscore, View<const T, 2> dweight, View<const T, 2> weight);
/// y[r, :] = x[r, :] / weight[r]
template <class T>
void divide_rows_forward(View<T, 2> y, View<const T, 2> x, View<const T, 1> weight);
template <class T>
void divide_rows_backward(View<T, 2> dx, View<T, 1> dweight, View<const T, 2> dy, View<const T, 2> y,
                          View<const T, 1> weight);
/// y[r, :] = factor[r] * x[r, :]
template <class T>
void scale_rows(View<T, 2> y, View<const T, 2> x, View<const T, 1> factor);

}  // namespace cpu

/// T: x and dx, score and dscore; weights and sums are float. Sums of a record are made in a fixed order.
namespace cuda {
template <class T>
void pool_forward(const Exec& exec, View<float, 2> y, View<const T, 3> x, View<const float, 2> weight,
                  View<const int64_t, 2> record);
template <class T>
void pool_backward(const Exec& exec, View<T, 3> dx, View<float, 2> dweight, View<const float, 2> dy, View<const T, 3> x,
                   View<const float, 2> weight, View<const int64_t, 2> record);
template <class T>
void pool_weights_forward(const Exec& exec, View<float, 2> weight, View<const T, 2> score,
                          View<const int64_t, 2> record, View<const float, 1> shift);
template <class T>
void pool_weights_backward(const Exec& exec, View<T, 2> dscore, View<const float, 2> dweight,
                           View<const float, 2> weight);
template <class T>  // T is float
void divide_rows_forward(const Exec& exec, View<T, 2> y, View<const T, 2> x, View<const T, 1> weight);
template <class T>
void divide_rows_backward(const Exec& exec, View<T, 2> dx, View<T, 1> dweight, View<const T, 2> dy, View<const T, 2> y,
                          View<const T, 1> weight);
template <class T>
void scale_rows(const Exec& exec, View<T, 2> y, View<const T, 2> x, View<const T, 1> factor);
}  // namespace cuda

}  // namespace blockstate::kernels
