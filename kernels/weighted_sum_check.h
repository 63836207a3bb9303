// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/view_check.h"
#include "kernels/weighted_sum.h"

namespace blockstate::kernels {

template <class T>
void check_weighted_sum_forward(View<T, 1> y, View<const T, 1> x, View<const T, 1> weight) {
  check_view("weighted_sum_forward", "y", y, {1});
  check_view("weighted_sum_forward", "x", x, {x.size[0]});
  check_optional_view("weighted_sum_forward", "weight", weight, {x.size[0]});
}

template <class T>
void check_weighted_sum_backward(View<T, 1> dx, View<const T, 1> dy, View<const T, 1> weight) {
  check_view("weighted_sum_backward", "dx", dx, {dx.size[0]});
  check_view("weighted_sum_backward", "dy", dy, {1});
  check_optional_view("weighted_sum_backward", "weight", weight, {dx.size[0]});
}

}  // namespace blockstate::kernels
