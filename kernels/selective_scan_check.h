// SPDX-License-Identifier: Apache-2.0
// Shapes of the selective scan, checked once a call, and the sizes that steer how the CPU works on it.
#pragma once

#include <cstdint>

#include "kernels/selective_scan.h"
#include "kernels/view_check.h"

namespace blockstate::kernels {

inline constexpr int64_t kMaxScanStates = 256;
/// Work (channels * states * steps) worth handing to another thread: some tens of microseconds.
inline constexpr int64_t kSmallestPiece = 1 << 17;
/// Groups of channels that share the pages of a tile of rows; their states should fit the second-level cache.
inline constexpr int64_t kLargestBlock = 32;

/// `checkpoint_steps`: the device's kScanCheckpoint.
template <class T, class P>
void check_scan_inputs(const SelectiveScanForward<T, P>& args, int64_t checkpoint_steps) {
  const char* op = "selective_scan";
  const int64_t batch = args.u.size[0], length = args.u.size[1], width = args.u.size[2], states = args.A.size[1];
  check_view(op, "u", args.u, {batch, length, width});
  check_view(op, "delta", args.delta, {batch, length, width});
  check_view(op, "A", args.A, {width, states});
  check_view(op, "B", args.B, {batch, length, states});
  check_view(op, "C", args.C, {batch, length, states});
  check_optional_view(op, "D", args.D, {width});
  check_optional_view(op, "z", args.z, {batch, length, width});
  check_optional_view(op, "delta_bias", args.delta_bias, {width});
  check_optional_view(op, "initial", args.initial, {batch, width, states});
  check_optional_view(op, "position", args.position, {batch, length});
  check_optional_view(op, "checkpoint", args.checkpoint,
                      {batch, (length + checkpoint_steps - 1) / checkpoint_steps, width, states});
  require(states >= 1 && states <= kMaxScanStates, "selective_scan takes 1 to ", kMaxScanStates, " states, found ",
          states);
  require(unit_stride(args.u) && unit_stride(args.delta) && unit_stride(args.B) && unit_stride(args.C) &&
              (!args.z || unit_stride(args.z)),
          "selective_scan wants u, delta, B, C and z with neighbouring channels (states) side by side in memory");
}

template <class T, class P>
void check_selective_scan(const SelectiveScanForward<T, P>& args, int64_t checkpoint_steps = kScanCheckpoint) {
  check_scan_inputs(args, checkpoint_steps);
  const int64_t batch = args.u.size[0], length = args.u.size[1], width = args.u.size[2], states = args.A.size[1];
  check_view("selective_scan", "y", args.y, {batch, length, width});
  check_optional_view("selective_scan", "final", args.final, {batch, width, states});
  require(unit_stride(args.y), "selective_scan wants y with neighbouring channels side by side in memory");
}

template <class T, class P>
void check_selective_scan(const SelectiveScanBackward<T, P>& args, int64_t checkpoint_steps = kScanCheckpoint) {
  const char* op = "selective_scan backward";
  const SelectiveScanForward<T, P>& f = args.forward;
  check_scan_inputs(f, checkpoint_steps);
  const int64_t batch = f.u.size[0], length = f.u.size[1], width = f.u.size[2], states = f.A.size[1];
  require(f.checkpoint || f.u.elements() == 0, op, " needs the checkpoint that the forward pass writes");
  check_view(op, "du", args.du, {batch, length, width});
  check_view(op, "ddelta", args.ddelta, {batch, length, width});
  check_view(op, "dy", args.dy, {batch, length, width});
  check_view(op, "dA", args.dA, {width, states});
  check_view(op, "dB", args.dB, {batch, length, states});
  check_view(op, "dC", args.dC, {batch, length, states});
  check_optional_view(op, "dD", args.dD, {width});
  check_optional_view(op, "dz", args.dz, {batch, length, width});
  check_optional_view(op, "ddelta_bias", args.ddelta_bias, {width});
  check_optional_view(op, "dinitial", args.dinitial, {batch, width, states});
  check_optional_view(op, "dfinal", args.dfinal, {batch, width, states});
  require((!args.dD || f.D) && (!args.dz || f.z) && (!args.ddelta_bias || f.delta_bias), op,
          " is asked for the gradient of an input that is absent (D, z or delta_bias)");
  require(
      unit_stride(args.du) && unit_stride(args.ddelta) && unit_stride(args.dy) && (!args.dz || unit_stride(args.dz)),
      op, " wants du, ddelta, dy and dz with neighbouring channels side by side in memory");
}

/// True where every (.., N) array has its states side by side.
template <class T>
bool unit_state_stride(const SelectiveScanForward<T>& args) {
  return unit_stride(args.A) && (!args.initial || unit_stride(args.initial)) &&
         (!args.final || unit_stride(args.final));
}

}  // namespace blockstate::kernels
