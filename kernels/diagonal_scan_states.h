// SPDX-License-Identifier: Apache-2.0
// The states of a diagonal scan (diagonal_scan.h: h) at the ends of windows of time, without its outputs: neither c nor
// D takes part. Windows as in scan_windows.h: K of them, G finished.
//
//   states[b,k] = h[b, end of window k]                                                 k < G
//
// Shapes: states (B, G, D, P, 2); final (B, D, P, 2): the state after each row's last valid step. Inputs as in
// diagonal_scan.h, positions too. Arrays of states and of their gradients are contiguous.
// Saves: checkpoint (B, K, C, P, 2, D), C = ScanWindows::checkpoints(kDiagonalCheckpoint): the states before every
// kDiagonalCheckpoint-th step of each window. Gradients: da adds; du, dinitial overwrite. Fixed-order sums.
// Identities: the final state of the scan cut there; halves with carry equal one pass.
#pragma once

#include "kernels/diagonal_scan.h"
#include "kernels/scan_windows.h"

namespace blockstate::kernels {

template <class T, class P = T>
struct DiagonalScanStatesForward {
  ScanWindows windows;
  View<P, 5> states;
  View<P, 4> final;       // absent: not wanted
  View<P, 6> checkpoint;  // absent: no backward will follow
  View<const T, 3> u;
  View<const P, 3> a;
  View<const P, 4> initial;  // absent: 0
  View<const int64_t, 2> position;
};

template <class T, class P = T>
struct DiagonalScanStatesBackward {
  View<T, 3> du;
  View<P, 3> da;
  View<P, 4> dinitial;       // absent: not wanted
  View<const P, 5> dstates;  // absent: 0, as the next
  View<const P, 4> dfinal;
  DiagonalScanStatesForward<T, P> forward;  // its inputs and checkpoint; states and final are not read
};

namespace cpu {
template <class T>
void diagonal_scan_states_forward(const DiagonalScanStatesForward<T>& args);
template <class T>
void diagonal_scan_states_backward(const DiagonalScanStatesBackward<T>& args);
}  // namespace cpu

namespace cuda {
template <class T>
void diagonal_scan_states_forward(const Exec& exec, const DiagonalScanStatesForward<T, float>& args);
template <class T>
void diagonal_scan_states_backward(const Exec& exec, const DiagonalScanStatesBackward<T, float>& args);
}  // namespace cuda

}  // namespace blockstate::kernels
