// SPDX-License-Identifier: Apache-2.0
// Shapes of the selective scan's states at window ends, checked once a call, and one call's windows as scans.
#pragma once

#include "kernels/scan_windows_check.h"
#include "kernels/selective_scan_check.h"
#include "kernels/selective_scan_states.h"

namespace blockstate::kernels {

/// A scan of steps of these inputs. What only outputs need is left out; any C will do.
template <class T, class P>
SelectiveScanForward<T, P> scan_of(const SelectiveScanStatesForward<T, P>& args, const WindowGroup& group) {
  SelectiveScanForward<T, P> scan;
  scan.u = group.steps_of(args.u);
  scan.delta = group.steps_of(args.delta);
  scan.A = args.A;
  scan.B = group.steps_of(args.B);
  scan.C = scan.B;
  scan.delta_bias = args.delta_bias;
  scan.position = group.steps_of(args.position);
  return scan;
}

template <class T, class P>
void check_states_inputs(const char* op, const SelectiveScanStatesForward<T, P>& args, int64_t checkpoint_steps) {
  const int64_t batch = args.u.size[0], length = args.u.size[1], width = args.u.size[2], states = args.A.size[1];
  check_windows(op, args.windows, length);
  SelectiveScanForward<T, P> whole = scan_of(args, {0, batch, 0, 1, 0, length});
  whole.initial = args.initial;
  check_scan_inputs(whole, checkpoint_steps);
  const int64_t count = args.windows.count();
  check_optional_view(op, "checkpoint", args.checkpoint,
                      {batch, count, args.windows.checkpoints(checkpoint_steps), width, states});
  check_optional_view(op, "decay", args.decay, {batch, count, width, states});
  check_contiguous(op, "checkpoint", args.checkpoint);
  check_contiguous(op, "initial", args.initial);
  check_contiguous(op, "decay", args.decay);
}

template <class T, class P>
void check_selective_scan_states(const SelectiveScanStatesForward<T, P>& args, int64_t checkpoint_steps) {
  const char* op = "selective_scan_states";
  check_states_inputs(op, args, checkpoint_steps);
  const int64_t batch = args.u.size[0], width = args.u.size[2], states = args.A.size[1];
  check_view(op, "states", args.states, {batch, args.windows.finished(), width, states});
  check_optional_view(op, "final", args.final, {batch, width, states});
  check_contiguous(op, "states", args.states);
  check_contiguous(op, "final", args.final);
}

template <class T, class P>
void check_selective_scan_states(const SelectiveScanStatesBackward<T, P>& args, int64_t checkpoint_steps) {
  const char* op = "selective_scan_states backward";
  const SelectiveScanStatesForward<T, P>& f = args.forward;
  check_states_inputs(op, f, checkpoint_steps);
  const int64_t batch = f.u.size[0], length = f.u.size[1], width = f.u.size[2], states = f.A.size[1];
  require(f.checkpoint || f.u.elements() == 0, op, " needs the checkpoint that the forward pass writes");
  check_view(op, "du", args.du, {batch, length, width});
  check_view(op, "ddelta", args.ddelta, {batch, length, width});
  check_view(op, "dA", args.dA, {width, states});
  check_view(op, "dB", args.dB, {batch, length, states});
  check_optional_view(op, "ddelta_bias", args.ddelta_bias, {width});
  check_optional_view(op, "dinitial", args.dinitial, {batch, width, states});
  check_optional_view(op, "dstates", args.dstates, {batch, f.windows.finished(), width, states});
  check_optional_view(op, "dfinal", args.dfinal, {batch, width, states});
  check_contiguous(op, "dstates", args.dstates);
  check_contiguous(op, "dfinal", args.dfinal);
  check_contiguous(op, "dinitial", args.dinitial);
}

}  // namespace blockstate::kernels
