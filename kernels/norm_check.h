// SPDX-License-Identifier: Apache-2.0
// Shapes of the norms, checked once a call.
#pragma once

#include <cstdint>

#include "core/base/check.h"
#include "kernels/norm.h"

namespace blockstate::kernels {

template <class T>
void check_norm_rows(const char* op, const char* name, View<T, 2> view, int64_t rows, int64_t columns) {
  require(view.size[0] == rows && view.size[1] == columns, op, ": ", name, " is (", view.size[0], ", ", view.size[1],
          "), wanted (", rows, ", ", columns, ")");
  require(columns <= 1 || view.stride[1] == 1, op, ": the last stride of ", name, " must be 1, found ", view.stride[1]);
}

template <class T>
void check_norm_vector(const char* op, const char* name, View<T, 1> view, int64_t size) {
  require(view.size[0] == size && (size <= 1 || view.stride[0] == 1), op, ": ", name, " holds ", view.size[0],
          " elements with stride ", view.stride[0], ", wanted ", size, " with stride 1");
}

template <class T, class X, class H, class P>
void check_norm(const NormForward<T, X, H, P>& args) {
  constexpr const char* kOp = "norm_forward";
  const int64_t rows = args.x.size[0], columns = args.x.size[1];
  check_norm_rows(kOp, "x", args.x, rows, columns);
  check_norm_rows(kOp, "y", args.y, rows, columns);
  check_norm_vector(kOp, "weight", args.weight, columns);
  check_norm_vector(kOp, "reciprocal", args.reciprocal, rows);
  require(!args.residual || args.h, "norm_forward: a residual needs h, to hold the sum");
  if (args.residual) {
    check_norm_rows(kOp, "residual", args.residual, rows, columns);
  }
  if (args.h) {
    check_norm_rows(kOp, "h", args.h, rows, columns);
  }
  if (args.bias) {
    check_norm_vector(kOp, "bias", args.bias, columns);
  }
  if (args.mean) {
    check_norm_vector(kOp, "mean", args.mean, rows);
  }
}

template <class T, class X, class H, class P>
void check_norm(const NormBackward<T, X, H, P>& args) {
  constexpr const char* kOp = "norm_backward";
  const int64_t rows = args.h.size[0], columns = args.h.size[1];
  check_norm_rows(kOp, "h", args.h, rows, columns);
  check_norm_rows(kOp, "dh", args.dh, rows, columns);
  check_norm_rows(kOp, "dy", args.dy, rows, columns);
  check_norm_vector(kOp, "weight", args.weight, columns);
  check_norm_vector(kOp, "dweight", args.dweight, columns);
  check_norm_vector(kOp, "reciprocal", args.reciprocal, rows);
  if (args.dx) {
    check_norm_rows(kOp, "dx", args.dx, rows, columns);
  }
  if (args.dh_out) {
    check_norm_rows(kOp, "dh_out", args.dh_out, rows, columns);
  }
  if (args.dbias) {
    check_norm_vector(kOp, "dbias", args.dbias, columns);
  }
  if (args.mean) {
    check_norm_vector(kOp, "mean", args.mean, rows);
  }
}

}  // namespace blockstate::kernels
