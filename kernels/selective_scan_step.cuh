// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/selective_scan_step.h"

namespace blockstate::kernels::cuda {

/// selective_scan_forward with L = 1 (or 0: the state is handed on), arguments checked.
template <class T>
void scan_one_step(const Exec& exec, const SelectiveScanForward<T, float>& args);

}  // namespace blockstate::kernels::cuda
