// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/rotary.h"
#include "kernels/view_check.h"

namespace blockstate::kernels {

template <class T>
void check_rotary(View<T, 4> y, View<const T, 4> x, View<const int64_t, 2> position) {
  const int64_t B = x.size[0], L = x.size[1], H = x.size[2], P = x.size[3];
  require(P % 2 == 0, "rotary: the head width must be even, found ", P);
  check_view("rotary", "x", x, {B, L, H, P});
  check_view("rotary", "y", y, {B, L, H, P});
  check_view("rotary", "position", position, {B, L});
  require(unit_stride(x) && unit_stride(y), "rotary: the last stride of x and y must be 1, found ", x.stride[3],
          " and ", y.stride[3]);
}

}  // namespace blockstate::kernels
