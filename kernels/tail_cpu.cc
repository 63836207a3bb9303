// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "core/base/parallel.h"
#include "kernels/tail_check.h"

namespace blockstate::kernels::cpu {

template <class T>
void tail_forward(View<T, 3> y, View<const T, 3> past, View<const T, 3> x, View<const int64_t, 1> end,
                  View<const int64_t, 1> known) {
  check_tail("tail_forward", y, past, x, end, known);
  const int64_t Y = y.size[1], C = y.size[2], P = past ? past.size[1] : 0;
  parallel_for(y.size[0], 1, [&](int64_t b, int64_t) {
    for (int64_t i = 0; i < Y && C > 0; ++i) {
      const int64_t row = tail_source(i, Y, P, end(b), known(b));
      if (row < 0) {
        std::fill_n(&y(b, i, 0), C, T(0));
      } else {
        std::copy_n(row < P ? &past(b, row, 0) : &x(b, row - P, 0), C, &y(b, i, 0));
      }
    }
  });
}

template <class T>
void tail_backward(View<T, 3> dpast, View<T, 3> dx, View<const T, 3> dy, View<const int64_t, 1> end,
                   View<const int64_t, 1> known) {
  check_tail("tail_backward", dy, dpast, dx, end, known);
  const int64_t Y = dy.size[1], C = dy.size[2], P = dpast ? dpast.size[1] : 0;
  parallel_for(dy.size[0], 1, [&](int64_t b, int64_t) {
    for (int64_t row = 0; row < P + dx.size[1] && C > 0; ++row) {
      T* const to = row < P ? &dpast(b, row, 0) : &dx(b, row - P, 0);
      const int64_t i = tail_target(row, Y, P, end(b), known(b));
      if (i >= 0) {
        std::copy_n(&dy(b, i, 0), C, to);
      } else {
        std::fill_n(to, C, T(0));
      }
    }
  });
}

template void tail_forward(View<float, 3>, View<const float, 3>, View<const float, 3>, View<const int64_t, 1>,
                           View<const int64_t, 1>);
template void tail_forward(View<double, 3>, View<const double, 3>, View<const double, 3>, View<const int64_t, 1>,
                           View<const int64_t, 1>);
template void tail_backward(View<float, 3>, View<float, 3>, View<const float, 3>, View<const int64_t, 1>,
                            View<const int64_t, 1>);
template void tail_backward(View<double, 3>, View<double, 3>, View<const double, 3>, View<const int64_t, 1>,
                            View<const int64_t, 1>);

}  // namespace blockstate::kernels::cpu
