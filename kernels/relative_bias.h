// SPDX-License-Identifier: Apache-2.0
// T5's relative bias by distance, from its table of buckets. Raffel et al. 2020 (arXiv 1910.10683), section 2.1.
//
//   bias[h, m] = table[bucket[m], h]          table (U, H), bucket (M) in [0, U), bias (H, M)
//
// Gradient: dtable adds, in order of m.
#pragma once

#include <cstdint>

#include "core/base/view.h"
#include "kernels/cuda_exec.h"

namespace blockstate::kernels {

namespace cpu {
template <class T>
void relative_bias_forward(View<T, 2> bias, View<const T, 2> table, View<const int64_t, 1> bucket);
template <class T>
void relative_bias_backward(View<T, 2> dtable, View<const T, 2> dbias, View<const int64_t, 1> bucket);
}  // namespace cpu

/// T is float.
namespace cuda {
template <class T>
void relative_bias_forward(const Exec& exec, View<T, 2> bias, View<const T, 2> table, View<const int64_t, 1> bucket);
template <class T>
void relative_bias_backward(const Exec& exec, View<T, 2> dtable, View<const T, 2> dbias, View<const int64_t, 1> bucket);
}  // namespace cuda

}  // namespace blockstate::kernels
