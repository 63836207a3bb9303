// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding. Su et al. 2021 (arXiv 2104.09864), eq. 34, pairs (p, p + P/2) as in GPT-NeoX.
//
//   angle = position * base^(-2p/P);  (y[p], y[p+P/2]) = rotation(angle) (x[p], x[p+P/2])        p < P/2
//
// Shapes: x, y (B, L, H, P), P even; position (B, L). Angles are reduced to one turn before the sine, with the longest
// mantissa the machine has, so a position of 2^40 is as good as 40 in float. `inverse` rotates back: that is the
// gradient. y may be x. Padding (position < 0) passes unchanged. The values of a head lie side by side; the other
// strides are free. Identities: keeps norms; scores of rotated q and k depend only on their distance.
#pragma once

#include <cstdint>

#include "core/base/view.h"
#include "kernels/cuda_exec.h"

namespace blockstate::kernels {

namespace cpu {

template <class T>
void rotary(View<T, 4> y, View<const T, 4> x, View<const int64_t, 2> position, double base, bool inverse);

}  // namespace cpu

namespace cuda {
template <class T>
void rotary(const Exec& exec, View<T, 4> y, View<const T, 4> x, View<const int64_t, 2> position, double base,
            bool inverse);
}  // namespace cuda

}  // namespace blockstate::kernels
