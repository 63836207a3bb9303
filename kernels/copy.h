// SPDX-License-Identifier: Apache-2.0
// Copies of strided arrays, and conversions between element types, on a GPU. (On the CPU they are loops of Tensor.)
#pragma once

#include <cstdint>

#include "core/base/bfloat16.h"
#include "kernels/cuda_exec.h"

namespace blockstate::kernels::cuda {

inline constexpr int kMaxCopyRank = 6;

struct StridedCopy {
  void* to = nullptr;
  const void* from = nullptr;  ///< null: zeros are written
  int element_bytes = 0;       ///< 1, 2, 4 or 8
  int rank = 0;
  int64_t size[kMaxCopyRank] = {};
  int64_t to_stride[kMaxCopyRank] = {};  ///< in elements
  int64_t from_stride[kMaxCopyRank] = {};
};
void copy_strided(const Exec& exec, const StridedCopy& args);

/// to[i] = from[i], rounded to nearest; to an integer, towards 0, as the CPU's conversion. (To, From): each of float,
/// BFloat16, double, int64_t, int32_t, uint8_t where one of them is float; contiguous.
template <class To, class From>
void convert(const Exec& exec, To* to, const From* from, int64_t count);

/// to[i] = value
template <class T>
void fill(const Exec& exec, T* to, float value, int64_t count);

}  // namespace blockstate::kernels::cuda
