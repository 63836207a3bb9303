// SPDX-License-Identifier: Apache-2.0
// One step of the selective scan with the product before it, for generation: the step sizes come as they are projected
// from, by few channels.
//
//   delta[b,d] = sum_r low[b,r] * delta_weight[d,r], not rounded to T; everything else as in selective_scan.h, L = 1
//
// Shapes: low (B, R); delta_weight (D, R); those of `scan` as there, with L = 1. Its delta and checkpoint are absent:
// there is no backward. Rows may be strided, the last stride is 1.
// Identity: equals a product and selective_scan, up to the rounding of delta.
#pragma once

#include "kernels/selective_scan.h"

namespace blockstate::kernels {

template <class T, class P = T>
struct SelectiveScanStep {
  SelectiveScanForward<T, P> scan;
  View<const T, 2> low;
  View<const T, 2> delta_weight;
};

namespace cpu {
template <class T>
void selective_scan_step(const SelectiveScanStep<T>& args);
}  // namespace cpu

namespace cuda {
template <class T>
void selective_scan_step(const Exec& exec, const SelectiveScanStep<T, float>& args);
}  // namespace cuda

}  // namespace blockstate::kernels
