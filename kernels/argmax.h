// SPDX-License-Identifier: Apache-2.0
// The column of the largest element of each row; of equal ones the first. NaN counts as the smallest; a row of nothing
// else gives 0.
//
// Shapes: x (R, V), V >= 1; index (R). Rows may be strided, the last stride is 1. No gradient.
#pragma once

#include <cstdint>

#include "core/base/view.h"
#include "kernels/cuda_exec.h"
#include "kernels/view_check.h"

namespace blockstate::kernels {

template <class T>
void check_argmax(const View<int64_t, 1>& index, const View<const T, 2>& x) {
  check_view("argmax", "index", index, {x.size[0]});
  require(x.size[0] == 0 || x.size[1] >= 1, "argmax of rows without columns");
  require(unit_stride(x), "argmax wants neighbouring columns side by side in memory");
}

namespace cpu {
template <class T>
void argmax(View<int64_t, 1> index, View<const T, 2> x);
}  // namespace cpu

namespace cuda {
template <class T>
void argmax(const Exec& exec, View<int64_t, 1> index, View<const T, 2> x);
}  // namespace cuda

}  // namespace blockstate::kernels
