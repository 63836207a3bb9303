// SPDX-License-Identifier: Apache-2.0
// Range attention by the products of warpgroups (compute capability 9.0, bfloat16).
#pragma once

#include "core/base/bfloat16.h"
#include "kernels/attention.h"

namespace blockstate::kernels::cuda {

/// Does nothing and returns false where the device, the build or the shape has no such kernel.
bool attention_forward_hopper(const Exec& exec, const AttentionForward<BFloat16, float>& args);

}  // namespace blockstate::kernels::cuda
