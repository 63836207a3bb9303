// SPDX-License-Identifier: Apache-2.0
// A fold over windows, for the kernels that carry a state from each to the next.
#pragma once

#include <cstdint>

namespace blockstate::kernels::cuda {

/// step(k, load(k)) for k = 0 .. count - 1, with loads ahead: a chain of steps would wait for each.
template <class Load, class Step>
__device__ void fold(int64_t count, const Load& load, const Step& step) {
  constexpr int kAhead = 16;
  for (int64_t k0 = 0; k0 < count; k0 += kAhead) {
    float2 values[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      values[k] = k0 + k < count ? load(k0 + k) : float2{0, 0};
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (k0 + k < count) {
        step(k0 + k, values[k]);
      }
    }
  }
}

}  // namespace blockstate::kernels::cuda
