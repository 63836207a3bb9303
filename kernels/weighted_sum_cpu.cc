// SPDX-License-Identifier: Apache-2.0
// Plain loops: one number a row of a loss, whose logits cost a thousand times as much.
#include "kernels/weighted_sum_check.h"

namespace blockstate::kernels::cpu {

template <class T>
void weighted_sum_forward(View<T, 1> y, View<const T, 1> x, View<const T, 1> weight) {
  check_weighted_sum_forward(y, x, weight);
  double total = 0;
  for (int64_t i = 0; i < x.size[0]; ++i) {
    total += static_cast<double>(x(i)) * static_cast<double>(weight ? weight(i) : T(1));
  }
  y(0) = static_cast<T>(total);
}

template <class T>
void weighted_sum_backward(View<T, 1> dx, View<const T, 1> dy, View<const T, 1> weight) {
  check_weighted_sum_backward(dx, dy, weight);
  const T gradient = dy(0);
  for (int64_t i = 0; i < dx.size[0]; ++i) {
    dx(i) = weight ? gradient * weight(i) : gradient;
  }
}

#define BLOCKSTATE_INSTANTIATE(T)                                                        \
  template void weighted_sum_forward<T>(View<T, 1>, View<const T, 1>, View<const T, 1>); \
  template void weighted_sum_backward<T>(View<T, 1>, View<const T, 1>, View<const T, 1>);
BLOCKSTATE_INSTANTIATE(float)
BLOCKSTATE_INSTANTIATE(double)
#undef BLOCKSTATE_INSTANTIATE

}  // namespace blockstate::kernels::cpu
