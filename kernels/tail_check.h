// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/tail.h"
#include "kernels/view_check.h"

namespace blockstate::kernels {

/// y is (B, Y, C) and past (B, P, C), optional: the values or their gradients.
template <class T, class U, class V>
void check_tail(const char* op, View<T, 3> y, View<U, 3> past, View<V, 3> x, View<const int64_t, 1> end,
                View<const int64_t, 1> known) {
  const int64_t B = y.size[0], C = y.size[2];
  check_view(op, "x", x, {B, x.size[1], C});
  check_view(op, "y", y, {B, y.size[1], C});
  check_optional_view(op, "past", past, {B, past.size[1], C});
  check_view(op, "end", end, {B});
  check_view(op, "known", known, {B});
  require(unit_stride(x) && unit_stride(y) && (!past || unit_stride(past)), op,
          ": the channels of a row must lie side by side, found strides ", x.stride[2], " and ", y.stride[2]);
}

/// Where row i of the tail of Y rows lies in [past | x], `past` of P rows; negative: nowhere, the row is 0.
BLOCKSTATE_HOST_DEVICE inline int64_t tail_source(int64_t i, int64_t Y, int64_t P, int64_t end, int64_t known) {
  return Y - i <= known ? P + end - Y + i : -1;
}

/// Which row of the tail holds row `row` of [past | x]; negative: none.
BLOCKSTATE_HOST_DEVICE inline int64_t tail_target(int64_t row, int64_t Y, int64_t P, int64_t end, int64_t known) {
  const int64_t i = row - (P + end - Y);
  return i >= 0 && i < Y && Y - i <= known ? i : -1;
}

}  // namespace blockstate::kernels
