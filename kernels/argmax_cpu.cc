// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "kernels/argmax.h"

namespace blockstate::kernels::cpu {

template <class T>
void argmax(View<int64_t, 1> index, View<const T, 2> x) {
  check_argmax(index, x);
  for (int64_t r = 0; r < x.size[0]; ++r) {
    T largest = -std::numeric_limits<T>::infinity();
    index(r) = 0;
    for (int64_t v = 0; v < x.size[1]; ++v) {
      if (x(r, v) > largest) {
        largest = x(r, v);
        index(r) = v;
      }
    }
  }
}

template void argmax<float>(View<int64_t, 1>, View<const float, 2>);
template void argmax<double>(View<int64_t, 1>, View<const double, 2>);

}  // namespace blockstate::kernels::cpu
