// SPDX-License-Identifier: Apache-2.0
// Shapes of the diagonal scan and of its discretisation, checked once a call.
#pragma once

#include <cstdint>

#include "kernels/diagonal_scan.h"
#include "kernels/view_check.h"

namespace blockstate::kernels {

/// `spacing`: steps between checkpoints.
template <class T, class P>
void check_diagonal_inputs(const char* op, const DiagonalScanForward<T, P>& args, int64_t spacing) {
  const int64_t batch = args.u.size[0], length = args.u.size[1], width = args.u.size[2], states = args.a.size[1];
  check_view(op, "u", args.u, {batch, length, width});
  check_view(op, "a", args.a, {width, states, 2});
  check_view(op, "c", args.c, {width, states, 2});
  check_optional_view(op, "D", args.D, {width});
  check_optional_view(op, "initial", args.initial, {batch, width, states, 2});
  check_optional_view(op, "position", args.position, {batch, length});
  check_optional_view(op, "checkpoint", args.checkpoint, {batch, (length + spacing - 1) / spacing, states, 2, width});
  require(unit_stride(args.u) && (!args.checkpoint || unit_stride(args.checkpoint)), op,
          " wants u and checkpoint with neighbouring channels side by side in memory");
}

template <class T, class P>
void check_diagonal_scan(const DiagonalScanForward<T, P>& args, int64_t spacing) {
  const char* op = "diagonal_scan";
  check_diagonal_inputs(op, args, spacing);
  check_view(op, "y", args.y, {args.u.size[0], args.u.size[1], args.u.size[2]});
  check_optional_view(op, "final", args.final, {args.u.size[0], args.u.size[2], args.a.size[1], 2});
  require(unit_stride(args.y), op, " wants y with neighbouring channels side by side in memory");
}

template <class T, class P>
void check_diagonal_scan(const DiagonalScanBackward<T, P>& args, int64_t spacing) {
  const char* op = "diagonal_scan backward";
  const DiagonalScanForward<T, P>& f = args.forward;
  check_diagonal_inputs(op, f, spacing);
  const int64_t batch = f.u.size[0], length = f.u.size[1], width = f.u.size[2], states = f.a.size[1];
  require(f.checkpoint || f.u.elements() == 0 || states == 0, op, " needs the checkpoint that the forward pass writes");
  check_view(op, "du", args.du, {batch, length, width});
  check_view(op, "dy", args.dy, {batch, length, width});
  check_view(op, "da", args.da, {width, states, 2});
  check_view(op, "dc", args.dc, {width, states, 2});
  check_optional_view(op, "dD", args.dD, {width});
  check_optional_view(op, "dinitial", args.dinitial, {batch, width, states, 2});
  check_optional_view(op, "dfinal", args.dfinal, {batch, width, states, 2});
  require(unit_stride(args.du) && unit_stride(args.dy), op,
          " wants du and dy with neighbouring channels side by side in memory");
}

template <class T>
void check_s4d_inputs(const char* op, const S4dDiscretize<T>& args) {
  const int64_t width = args.log_real.size[0], states = args.log_real.size[1];
  check_view(op, "log_dt", args.log_dt, {width});
  check_view(op, "log_real", args.log_real, {width, states});
  check_view(op, "imaginary", args.imaginary, {width, states});
  check_view(op, "B", args.B, {width, states, 2});
  check_view(op, "C", args.C, {width, states, 2});
}

template <class T>
void check_s4d_discretize(const S4dDiscretize<T>& args) {
  const char* op = "s4d_discretize";
  check_s4d_inputs(op, args);
  check_view(op, "a", args.a, {args.log_real.size[0], args.log_real.size[1], 2});
  check_view(op, "c", args.c, {args.log_real.size[0], args.log_real.size[1], 2});
}

template <class T>
void check_s4d_discretize(const S4dDiscretizeBackward<T>& args) {
  const char* op = "s4d_discretize backward";
  const S4dDiscretize<T>& f = args.forward;
  check_s4d_inputs(op, f);
  const int64_t width = f.log_real.size[0], states = f.log_real.size[1];
  check_view(op, "dlog_dt", args.dlog_dt, {width});
  check_view(op, "dlog_real", args.dlog_real, {width, states});
  check_view(op, "dimaginary", args.dimaginary, {width, states});
  check_view(op, "dB", args.dB, {width, states, 2});
  check_view(op, "dC", args.dC, {width, states, 2});
  check_view(op, "da", args.da, {width, states, 2});
  check_view(op, "dc", args.dc, {width, states, 2});
}

}  // namespace blockstate::kernels
