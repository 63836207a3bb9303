// SPDX-License-Identifier: Apache-2.0
// Shapes of the diagonal scan's states at window ends, checked once a call, and one call's windows as scans.
#pragma once

#include "kernels/diagonal_scan_check.h"
#include "kernels/diagonal_scan_states.h"
#include "kernels/scan_windows_check.h"

namespace blockstate::kernels {

/// A scan of steps of these inputs. What only outputs need is left out; any c will do.
template <class T, class P>
DiagonalScanForward<T, P> scan_of(const DiagonalScanStatesForward<T, P>& args, const WindowGroup& group) {
  DiagonalScanForward<T, P> scan;
  scan.u = group.steps_of(args.u);
  scan.a = args.a;
  scan.c = args.a;
  scan.position = group.steps_of(args.position);
  return scan;
}

template <class T, class P>
void check_states_inputs(const char* op, const DiagonalScanStatesForward<T, P>& args, int64_t spacing) {
  const int64_t batch = args.u.size[0], length = args.u.size[1], width = args.u.size[2], states = args.a.size[1];
  check_windows(op, args.windows, length);
  DiagonalScanForward<T, P> whole = scan_of(args, {0, batch, 0, 1, 0, length});
  whole.initial = args.initial;
  check_diagonal_inputs(op, whole, spacing);
  check_optional_view(op, "checkpoint", args.checkpoint,
                      {batch, args.windows.count(), args.windows.checkpoints(spacing), states, 2, width});
  check_contiguous(op, "checkpoint", args.checkpoint);
  check_contiguous(op, "initial", args.initial);
}

template <class T, class P>
void check_diagonal_scan_states(const DiagonalScanStatesForward<T, P>& args, int64_t spacing) {
  const char* op = "diagonal_scan_states";
  check_states_inputs(op, args, spacing);
  const int64_t batch = args.u.size[0], width = args.u.size[2], states = args.a.size[1];
  check_view(op, "states", args.states, {batch, args.windows.finished(), width, states, 2});
  check_optional_view(op, "final", args.final, {batch, width, states, 2});
  check_contiguous(op, "states", args.states);
  check_contiguous(op, "final", args.final);
}

template <class T, class P>
void check_diagonal_scan_states(const DiagonalScanStatesBackward<T, P>& args, int64_t spacing) {
  const char* op = "diagonal_scan_states backward";
  const DiagonalScanStatesForward<T, P>& f = args.forward;
  check_states_inputs(op, f, spacing);
  const int64_t batch = f.u.size[0], length = f.u.size[1], width = f.u.size[2], states = f.a.size[1];
  require(f.checkpoint || f.u.elements() == 0 || states == 0, op, " needs the checkpoint that the forward pass writes");
  check_view(op, "du", args.du, {batch, length, width});
  check_view(op, "da", args.da, {width, states, 2});
  check_optional_view(op, "dinitial", args.dinitial, {batch, width, states, 2});
  check_optional_view(op, "dstates", args.dstates, {batch, f.windows.finished(), width, states, 2});
  check_optional_view(op, "dfinal", args.dfinal, {batch, width, states, 2});
  check_contiguous(op, "dstates", args.dstates);
  check_contiguous(op, "dfinal", args.dfinal);
  check_contiguous(op, "dinitial", args.dinitial);
  require(unit_stride(args.du), op, " wants du with neighbouring channels side by side in memory");
}

}  // namespace blockstate::kernels
