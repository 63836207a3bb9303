// SPDX-License-Identifier: Apache-2.0
// Matrix product with transposes.
//
//   c = alpha * op(a) * op(b) + beta * c (+ bias in every row)
//
// Shapes: op(a) (M, K), op(b) (K, N), c (M, N), bias (N). Rows may be strided; the last stride is 1.
// beta = 0 overwrites c without reading it. Deterministic: the split of the work depends on shapes only.
#pragma once

#include "core/base/view.h"

namespace blockstate::kernels {

template <class T>
struct Gemm {
  View<T, 2> c;
  View<const T, 2> a;
  View<const T, 2> b;
  View<const T, 1> bias;  // absent: none
  bool transpose_a = false;
  bool transpose_b = false;
  T alpha = 1;
  T beta = 0;
};

namespace cpu {
/// T: float, double. Error if the shapes do not fit or a last stride is not 1.
template <class T>
void gemm(const Gemm<T>& args);
}  // namespace cpu

}  // namespace blockstate::kernels
