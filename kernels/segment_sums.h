// SPDX-License-Identifier: Apache-2.0
// Sums of rows by a key: the gradient of an embedding, and pooling.
//
//   sum[key[b, t], :] += weight[b, t] * x[b, t, :]
//
// in an order that follows from the shapes and the keys alone.
#pragma once

#include <cstdint>

#include "core/base/view.h"
#include "kernels/cuda_exec.h"

namespace blockstate::kernels::cuda {

/// Keys outside of [0, number of sums) are skipped.
template <class T>
struct SegmentRows {
  View<const T, 3> x;           ///< (B, L, D), last stride 1
  View<const int64_t, 2> key;   ///< (B, L)
  View<const float, 2> weight;  ///< (B, L); absent: ones
};

/// T is float or BFloat16; sum (number of sums, D), last stride 1.
template <class T>
void segment_sums(const Exec& exec, const char* op, View<float, 2> sum, const SegmentRows<T>& rows);

}  // namespace blockstate::kernels::cuda
