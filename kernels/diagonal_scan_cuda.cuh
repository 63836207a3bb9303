// SPDX-License-Identifier: Apache-2.0
// What the CUDA files of the diagonal scan share.
#pragma once

#include "kernels/cuda_support.cuh"
#include "kernels/diagonal_scan.h"

namespace blockstate::kernels::cuda {

inline constexpr int64_t kMaxDiagonalStates = 256;

// diagonal_scan_direct_cuda.cu: any shape, step by step. The shapes have been checked.
template <class T>
void diagonal_scan_forward_direct(const Exec& exec, const DiagonalScanForward<T, float>& args);
template <class T>
void diagonal_scan_backward_direct(const Exec& exec, const DiagonalScanBackward<T, float>& args);

}  // namespace blockstate::kernels::cuda
