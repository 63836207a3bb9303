// SPDX-License-Identifier: Apache-2.0
// Matrix product with transposes.
//
//   c = alpha * op(a) * op(b) + beta * c (+ bias in every row)
//
// Shapes: op(a) (M, K), op(b) (K, N), c (M, N), bias (N). Rows may be strided; the last stride is 1.
// beta = 0 overwrites c without reading it. Deterministic: the split of the work depends on shapes only.
#pragma once

#include "core/base/view.h"
#include "kernels/cuda_exec.h"

namespace blockstate::kernels {

/// T: factors. C: the product; float or T where T is BFloat16. P: bias, alpha, beta, as in the other ops.
template <class T, class C = T, class P = T>
struct Gemm {
  View<C, 2> c;
  View<const T, 2> a;
  View<const T, 2> b;
  View<const P, 1> bias;  // absent: none
  bool transpose_a = false;
  bool transpose_b = false;
  P alpha = 1;
  P beta = 0;
};

namespace cpu {
/// T: float, double. Error if the shapes do not fit or a last stride is not 1.
template <class T>
void gemm(const Gemm<T>& args);
}  // namespace cpu

namespace cuda {
/// cuBLASLt, sums in float. (T, C): (float, float), (BFloat16, BFloat16), (BFloat16, float). float products are made in
/// float, not TF32.
template <class T, class C>
void gemm(const Exec& exec, const Gemm<T, C, float>& args);
}  // namespace cuda

}  // namespace blockstate::kernels
