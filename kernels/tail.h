// SPDX-License-Identifier: Apache-2.0
// The last steps of each row: what a window's carry keeps.
//
//   y[b, i] = row [past | x][b, P + end[b] - Y + i]      zero where that index is below 0 or before the record's start
//
// Shapes: past (B, P, C), optional; x (B, L, C); end (B), number of steps of x up to and including the row's last
// valid one; known (B), how many steps of history the record has at that point (older entries are written as 0);
// y (B, Y, C). The channels of a row lie side by side; other strides are free. Without `past` P is 0. Gradients
// overwrite: steps of past and x that y does not hold get 0.
#pragma once

#include <cstdint>

#include "core/base/view.h"
#include "kernels/cuda_exec.h"

namespace blockstate::kernels {

namespace cpu {

template <class T>
void tail_forward(View<T, 3> y, View<const T, 3> past, View<const T, 3> x, View<const int64_t, 1> end,
                  View<const int64_t, 1> known);
template <class T>
void tail_backward(View<T, 3> dpast, View<T, 3> dx, View<const T, 3> dy, View<const int64_t, 1> end,
                   View<const int64_t, 1> known);

}  // namespace cpu

namespace cuda {
template <class T>
void tail_forward(const Exec& exec, View<T, 3> y, View<const T, 3> past, View<const T, 3> x, View<const int64_t, 1> end,
                  View<const int64_t, 1> known);
template <class T>
void tail_backward(const Exec& exec, View<T, 3> dpast, View<T, 3> dx, View<const T, 3> dy, View<const int64_t, 1> end,
                   View<const int64_t, 1> known);
}  // namespace cuda

}  // namespace blockstate::kernels
