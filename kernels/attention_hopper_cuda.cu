// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_hopper.h"
namespace blockstate::kernels::cuda {
bool attention_forward_hopper(const Exec&, const AttentionForward<BFloat16, float>&) { return false; }
}
