// SPDX-License-Identifier: Apache-2.0
// The states of a selective scan (selective_scan.h: h) at the ends of windows of time, without its outputs: neither C
// nor D nor z take part. Windows as in scan_windows.h: K of them, G finished.
//
//   states[b,k] = h[b, end of window k]                                                 k < G
//
// Shapes: states (B, G, D, N); final (B, D, N): the state after each row's last valid step. Inputs as in
// selective_scan.h, positions too. Arrays of states and of their gradients are
// contiguous.
// Saves: checkpoint (B, K, C, D, N), C = ScanWindows::checkpoints(kScanCheckpoint): the states before every
// kScanCheckpoint-th step of each window; decay (B, K, D, N), on CUDA: the factor of the state before a window in the
// state after it. Gradients: dA, ddelta_bias add; du, ddelta, dB, dinitial overwrite. Fixed-order sums.
// Identities: the final state of the scan cut there; halves with carry equal one pass.
#pragma once

#include "kernels/scan_windows.h"
#include "kernels/selective_scan.h"

namespace blockstate::kernels {

template <class T, class P = T>
struct SelectiveScanStatesForward {
  ScanWindows windows;
  View<P, 4> states;
  View<P, 3> final;       // absent: not wanted
  View<P, 5> checkpoint;  // absent: no backward will follow
  View<P, 4> decay;       // absent: the same
  View<const T, 3> u;
  View<const T, 3> delta;
  View<const P, 2> A;
  View<const T, 3> B;
  View<const P, 1> delta_bias;  // absent: 0
  View<const P, 3> initial;     // absent: 0
  View<const int64_t, 2> position;
};

template <class T, class P = T>
struct SelectiveScanStatesBackward {
  View<T, 3> du;
  View<T, 3> ddelta;
  View<P, 2> dA;
  View<T, 3> dB;
  View<P, 1> ddelta_bias;  // absent: not wanted, as the next
  View<P, 3> dinitial;
  View<const P, 4> dstates;  // absent: 0, as the next
  View<const P, 3> dfinal;
  SelectiveScanStatesForward<T, P> forward;  // its inputs, checkpoint and decay; states and final are not read
};

namespace cpu {
template <class T>
void selective_scan_states_forward(const SelectiveScanStatesForward<T>& args);
template <class T>
void selective_scan_states_backward(const SelectiveScanStatesBackward<T>& args);
}  // namespace cpu

namespace cuda {
template <class T>
void selective_scan_states_forward(const Exec& exec, const SelectiveScanStatesForward<T, float>& args);
template <class T>
void selective_scan_states_backward(const Exec& exec, const SelectiveScanStatesBackward<T, float>& args);
}  // namespace cuda

}  // namespace blockstate::kernels
