// SPDX-License-Identifier: Apache-2.0
// The states at window ends on the CPU: one scan a window, in their order. Each fills the processor, and starts from
// what the one before left. All arrays of states are contiguous.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/scan_windows.h"

namespace blockstate::kernels::cpu {

/// Calls scan(window, state before, state after). states (B, finished windows, ...), final and initial (B, ...).
template <class T, int R, class Scan>
void scan_in_order(const ScanWindows& windows, const View<T, R + 1>& states, View<T, R> final, View<const T, R> initial,
                   const Scan& scan) {
  const int64_t batch = states.size[0];
  int64_t row = 1;
  for (int i = 2; i <= R; ++i) {
    row *= states.size[i];
  }
  View<const T, R> before = initial;
  for (int64_t index = 0; index < windows.count(); ++index) {
    const WindowGroup group = one_window(windows, batch, index);
    const View<T, R> after = index < windows.finished() ? group.entries_of(states) : final;
    scan(group, before, after);
    before = after;
  }
  for (int64_t b = 0; final && before.data != final.data && b < batch; ++b) {
    T* to = final.data + b * row;
    before ? std::copy_n(before.data + b * before.stride[0], row, to) : std::fill_n(to, row, T{});
  }
}

/// Calls scan(window, gradient of the state after, gradient of the state before: to be written), last window first.
template <class T, int R, class Scan>
void scan_back_in_order(const ScanWindows& windows, const int64_t (&shape)[R], const View<const T, R + 1>& dstates,
                        const View<const T, R>& dfinal, const View<T, R>& dinitial, const Scan& scan) {
  View<T, R> whole;
  int64_t row = 1;
  for (int i = R - 1; i >= 0; --i) {
    whole.size[i] = shape[i];
    whole.stride[i] = row;
    row *= i > 0 ? shape[i] : 1;
  }
  const int64_t batch = shape[0];
  std::vector<T> memory[2] = {std::vector<T>(static_cast<size_t>(batch * row)),
                              std::vector<T>(static_cast<size_t>(batch * row))};
  View<T, R> after = whole, before = whole;
  after.data = memory[0].data();
  before.data = memory[1].data();
  if (dfinal) {
    std::copy_n(dfinal.data, batch * row, after.data);
  }
  for (int64_t index = windows.count() - 1; index >= 0; --index) {
    for (int64_t b = 0; dstates && index < windows.finished() && b < batch; ++b) {
      const T* more = dstates.data + (b * windows.finished() + index) * row;
      std::transform(more, more + row, after.data + b * row, after.data + b * row, [](T x, T y) { return y + x; });
    }
    scan(one_window(windows, batch, index), after, before);
    std::swap(after, before);
  }
  if (dinitial) {
    std::copy_n(after.data, batch * row, dinitial.data);
  }
}

}  // namespace blockstate::kernels::cpu
