// SPDX-License-Identifier: Apache-2.0
// Plain loops: a readout happens once a window, so its cost is a W-th of the scan's.
#include "core/base/parallel.h"
#include "kernels/state_readout_check.h"

namespace blockstate::kernels::cpu {

template <class T>
void state_readout_forward(View<T, 3> y, View<const T, 3> state, View<const T, 3> weight) {
  check_state_readout("state_readout_forward", "y", y, state, weight);
  const int64_t S = weight.size[0], D = weight.size[1], Q = weight.size[2];
  parallel_for(state.size[0] * S, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / S, s = row % S;
      for (int64_t d = 0; d < D; ++d) {
        const T* h = &state(b, d, 0);
        const T* w = &weight(s, d, 0);
        T sum = 0;
        for (int64_t q = 0; q < Q; ++q) {
          sum += w[q] * h[q];
        }
        y(b, s, d) = sum;
      }
    }
  });
}

template <class T>
void state_readout_backward(View<T, 3> dstate, View<T, 3> dweight, View<const T, 3> dy, View<const T, 3> state,
                            View<const T, 3> weight) {
  check_state_readout_backward(dstate, dweight, dy, state, weight);
  const int64_t B = state.size[0], S = weight.size[0], D = weight.size[1], Q = weight.size[2];
  // Channels do not meet: each piece owns its slice of every output.
  parallel_for(D, 4, [&](int64_t begin, int64_t end) {
    for (int64_t d = begin; d < end; ++d) {
      for (int64_t b = 0; b < B; ++b) {
        T* dh = &dstate(b, d, 0);
        const T* h = &state(b, d, 0);
        for (int64_t q = 0; q < Q; ++q) {
          dh[q] = 0;
        }
        for (int64_t s = 0; s < S; ++s) {
          const T g = dy(b, s, d);
          const T* w = &weight(s, d, 0);
          T* dw = &dweight(s, d, 0);
          for (int64_t q = 0; q < Q; ++q) {
            dh[q] += g * w[q];
            dw[q] += g * h[q];
          }
        }
      }
    }
  });
}

#define BLOCKSTATE_INSTANTIATE(T)                                                         \
  template void state_readout_forward<T>(View<T, 3>, View<const T, 3>, View<const T, 3>); \
  template void state_readout_backward<T>(View<T, 3>, View<T, 3>, View<const T, 3>, View<const T, 3>, View<const T, 3>);
BLOCKSTATE_INSTANTIATE(float)
BLOCKSTATE_INSTANTIATE(double)
#undef BLOCKSTATE_INSTANTIATE

}  // namespace blockstate::kernels::cpu
