// SPDX-License-Identifier: Apache-2.0
// Row gather and its gradient.
//
//   y[r] = table[ids[r]]                 ids (R), table (V, D), y (R, D)
//
// An id below 0 is padding: y[r] = 0 and no gradient. An id of V or more is an Error that names the row and the id.
// Gradient: dtable adds, in row order for each id (no atomics).
#pragma once

#include <cstdint>

#include "core/base/view.h"
#include "kernels/cuda_exec.h"

namespace blockstate::kernels {

namespace cpu {

template <class T>
void embedding_forward(View<T, 2> y, View<const int64_t, 1> ids, View<const T, 2> table);
template <class T>
void embedding_backward(View<T, 2> dtable, View<const T, 2> dy, View<const int64_t, 1> ids);

}  // namespace cpu

/// T: y and dy; the table and its gradient are float. On CUDA an id of V or more reads as padding: the caller checks
/// ids where they come from, on the host.
namespace cuda {
template <class T>
void embedding_forward(const Exec& exec, View<T, 2> y, View<const int64_t, 1> ids, View<const float, 2> table);
template <class T>
void embedding_backward(const Exec& exec, View<float, 2> dtable, View<const T, 2> dy, View<const int64_t, 1> ids);
}  // namespace cuda

}  // namespace blockstate::kernels
