// SPDX-License-Identifier: Apache-2.0
// Checks of the views a kernel is given.
#pragma once

#include <cstdint>
#include <string>

#include "core/base/check.h"
#include "core/base/view.h"

namespace blockstate::kernels {

template <int R>
std::string shape_text(const int64_t (&size)[R]) {
  std::string text = "(";
  for (int i = 0; i < R; ++i) {
    text += join(i == 0 ? "" : ", ", size[i]);
  }
  return text + ")";
}

/// Error unless the view is there (or without elements) and has this shape.
template <class T, int R>
void check_view(const char* op, const char* name, const View<T, R>& view, const int64_t (&wanted)[R]) {
  bool same = true;
  for (int i = 0; i < R; ++i) {
    same = same && view.size[i] == wanted[i];
  }
  if (!same || (!view && view.elements() != 0)) {
    fail(op, ": ", name, " must have shape ", shape_text(wanted), ", found ", shape_text(view.size));
  }
}

template <class T, int R>
void check_optional_view(const char* op, const char* name, const View<T, R>& view, const int64_t (&wanted)[R]) {
  if (view) {
    check_view(op, name, view, wanted);
  }
}

/// Neighbours along the last dimension lie side by side.
template <class T, int R>
bool unit_stride(const View<T, R>& view) {
  return view.stride[R - 1] == 1 || view.size[R - 1] <= 1;
}

}  // namespace blockstate::kernels
