// SPDX-License-Identifier: Apache-2.0
// Time cut where windows end, for scans whose states are read there: the window begun before the chunk, whole ones, and
// the one that is not finished. In some calls many windows are the rows of one batch.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/base/view.h"

namespace blockstate::kernels {

/// The first window ends `first` steps (1 .. window) into the chunk, the others `window` later each.
struct ScanWindows {
  int64_t first = 1;
  int64_t window = 1;
  int64_t length = 0;

  /// Windows, a last unfinished one too.
  BLOCKSTATE_HOST_DEVICE int64_t count() const {
    return length <= first ? (length > 0 ? 1 : 0) : 1 + (length - first + window - 1) / window;
  }
  BLOCKSTATE_HOST_DEVICE int64_t finished() const { return length < first ? 0 : 1 + (length - first) / window; }
  BLOCKSTATE_HOST_DEVICE int64_t begin(int64_t index) const { return index == 0 ? 0 : first + (index - 1) * window; }
  BLOCKSTATE_HOST_DEVICE int64_t end(int64_t index) const {
    const int64_t full = first + index * window;
    return full < length ? full : length;
  }
  int64_t steps(int64_t index) const { return end(index) - begin(index); }
  int64_t longest() const { return std::min(window, length); }
  /// Checkpoints of the longest window, one every `every` steps.
  int64_t checkpoints(int64_t every) const { return (longest() + every - 1) / every; }
};

/// Windows [first, first + count) of the rows [row, row + rows) of the batch, all of `steps` steps from `begin` on.
struct WindowGroup {
  int64_t row, rows, first, count, begin, steps;

  int64_t size() const { return rows * count; }

  /// Their steps, of a view over (B, L, ...), as (windows, steps, ...).
  template <class T, int R>
  View<T, R> steps_of(View<T, R> view) const {
    if (view) {
      view.data += row * view.stride[0] + begin * view.stride[1];
      view.size[0] = size();
      view.size[1] = steps;
      view.stride[0] = count > 1 ? steps * view.stride[1] : view.stride[0];
    }
    return view;
  }
  /// What there is once a window, of a view over (B, windows, ...), as (windows, ...).
  template <class T, int R>
  View<T, R - 1> entries_of(const View<T, R>& view) const {
    View<T, R - 1> out;
    if (view) {
      out.data = view.data + row * view.stride[0] + first * view.stride[1];
      out.size[0] = size();
      out.stride[0] = count > 1 ? view.stride[1] : view.stride[0];
      for (int i = 2; i < R; ++i) {
        out.size[i - 1] = view.size[i];
        out.stride[i - 1] = view.stride[i];
      }
    }
    return out;
  }
};

/// The checkpoints of a group's windows, of a view over (B, windows, ...): as many of each as its steps want.
template <class P, int R>
View<P, R - 1> checkpoint_of(const View<P, R>& checkpoint, const WindowGroup& group, int64_t every) {
  View<P, R - 1> out = group.entries_of(checkpoint);
  out.size[1] = (group.steps + every - 1) / every;
  return out;
}

/// The only window of all rows.
inline WindowGroup one_window(const ScanWindows& windows, int64_t batch, int64_t index) {
  return {0, batch, index, 1, windows.begin(index), windows.steps(index)};
}

/// True where the rows of a view over (B, L, ...) follow each other without gaps, so that windows of all of them are
/// the rows of one batch.
template <class T, int R>
bool rows_join(const View<T, R>& view) {
  return !view || view.size[0] <= 1 || view.stride[0] == view.size[1] * view.stride[1];
}

/// Calls body(group) for all windows of all rows, as few groups as can be: whole windows side by side, those of other
/// lengths by themselves. `joined`: rows_join() of everything that is cut.
template <class Body>
void for_window_groups(const ScanWindows& windows, int64_t batch, bool joined, const Body& body) {
  const int64_t count = windows.count();
  const auto call = [&](int64_t row, int64_t rows, int64_t first, int64_t many) {
    body(WindowGroup{row, rows, first, many, windows.begin(first), windows.steps(first)});
  };
  int64_t first = 0, last = count;
  if (first < last && windows.steps(first) != windows.window) {
    call(0, batch, first++, 1);
  }
  const bool rest = first < last && windows.steps(last - 1) != windows.window;
  last -= rest ? 1 : 0;
  if (last - first == count && joined) {
    call(0, batch, 0, count);
  } else if (batch <= last - first) {
    for (int64_t row = 0; row < batch; ++row) {
      call(row, 1, first, last - first);
    }
  } else {
    for (int64_t index = first; index < last; ++index) {
      call(0, batch, index, 1);
    }
  }
  if (rest) {
    call(0, batch, last, 1);
  }
}

}  // namespace blockstate::kernels
