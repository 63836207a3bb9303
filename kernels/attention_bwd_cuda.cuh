// SPDX-License-Identifier: Apache-2.0
// The fast backward pass of range attention, for those cases that it knows.
#pragma once

#include "core/base/bfloat16.h"
#include "kernels/attention.h"
#include "kernels/cuda_support.cuh"

namespace blockstate::kernels::cuda {

/// False where it has done nothing: another GPU, another shape, addresses or strides that are not multiples of 16
/// bytes.
inline bool attention_backward_wgmma(const Exec&, const AttentionBackward<float, float>&) { return false; }
bool attention_backward_wgmma(const Exec& exec, const AttentionBackward<BFloat16, float>& args);

}  // namespace blockstate::kernels::cuda
