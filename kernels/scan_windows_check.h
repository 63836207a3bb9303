// SPDX-License-Identifier: Apache-2.0
// What the checks of the scans' states at window ends share.
#pragma once

#include "kernels/scan_windows.h"
#include "kernels/view_check.h"

namespace blockstate::kernels {

template <class T, int R>
void check_contiguous(const char* op, const char* name, const View<T, R>& view) {
  require(!view || view.contiguous(), op, " wants ", name, " contiguous");
}

inline void check_windows(const char* op, const ScanWindows& windows, int64_t length) {
  require(windows.first >= 1 && windows.first <= windows.window && windows.length == length, op,
          " wants a first window of 1 to ", windows.window, " steps that cuts ", length, " steps, found ",
          windows.first, " and ", windows.length);
}

}  // namespace blockstate::kernels
