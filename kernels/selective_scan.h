// SPDX-License-Identifier: Apache-2.0
// Mamba's selective scan (S6), with carry. Gu & Dao 2023 (arXiv 2312.00752), section 3; exponential decay, Euler input,
// as in the released models.
//
//   dt[b,t,d]  = softplus(delta[b,t,d] + delta_bias[d])
//   h[b,t,d,n] = exp(dt * A[d,n]) * h[b,t-1,d,n] + dt * B[b,t,n] * u[b,t,d]
//   v[b,t,d]   = sum_n C[b,t,n] * h[b,t,d,n] + D[d] * u[b,t,d]
//   y          = v * silu(z)                                            (y = v where z is absent)
//
// Shapes: u, delta, z, y (B, L, D); A (D, N), negative; B, C (B, L, N); D, delta_bias (D);
// initial, final (B, D, N): the state before the chunk and after each row's last valid step.
// `position` (B, L), optional: 0 starts a record (the state before it counts as 0), -1 is padding (the state passes
// unchanged, y = 0, no gradient). Without it every step is valid and continues from `initial` (absent: 0).
// u, delta, z, B, C, y and their gradients may be slices of wider rows: only the last stride must be 1. `final` may be
// `initial`, overwritten. N <= 256. What lies in padded steps is not read.
// Saves: checkpoint (B, ceil(L / kScanCheckpoint), D, N), the state before every kScanCheckpoint-th step; backward
// rebuilds the rest. Gradients: dA, dD, ddelta_bias add; du, ddelta, dz, dB, dC, dinitial overwrite. Fixed-order sums.
// Identities: two halves with carry equal one pass; A = 0 makes a running sum; A very negative forgets all but the
// current step.
#pragma once

#include <cstdint>

#include "core/base/view.h"
#include "kernels/cuda_exec.h"

namespace blockstate::kernels {

inline constexpr int64_t kScanCheckpoint = 64;

/// T: activations. P: parameters, states and sums, float on CUDA devices whatever T is; on the CPU T and P are the
/// same.
template <class T, class P = T>
struct SelectiveScanForward {
  View<T, 3> y;
  View<P, 3> final;       // absent: not wanted
  View<P, 4> checkpoint;  // absent: no backward will follow
  View<const T, 3> u;
  View<const T, 3> delta;
  View<const P, 2> A;
  View<const T, 3> B;
  View<const T, 3> C;
  View<const P, 1> D;           // absent: 0
  View<const T, 3> z;           // absent: no gate
  View<const P, 1> delta_bias;  // absent: 0
  View<const P, 3> initial;     // absent: 0
  View<const int64_t, 2> position;
  // CUDA only: the states before the segments that a long row is cut into, (segments, B, D, N). Written where wanted;
  // a pass that repeats another reads them instead (`entry_known`) and is done in half the time, with the same bits.
  View<P, 4> entry;
  bool entry_known = false;
};

template <class T, class P = T>
struct SelectiveScanBackward {
  View<T, 3> du;
  View<T, 3> ddelta;
  View<P, 2> dA;
  View<T, 3> dB;
  View<T, 3> dC;
  View<P, 1> dD;  // absent: not wanted, as the next three
  View<T, 3> dz;
  View<P, 1> ddelta_bias;
  View<P, 3> dinitial;
  View<const T, 3> dy;
  View<const P, 3> dfinal;             // absent: 0
  SelectiveScanForward<T, P> forward;  // its inputs and checkpoint; y and final are not read
};

namespace cpu {
template <class T>
void selective_scan_forward(const SelectiveScanForward<T>& args);
template <class T>
void selective_scan_backward(const SelectiveScanBackward<T>& args);
}  // namespace cpu

namespace cuda {
/// Steps between checkpoints: on CUDA checkpoint is (B, ceil(L / this), D, N).
inline constexpr int64_t kScanCheckpoint = 256;
/// Segments into which such a scan is cut; 1: its rows are walked in one piece.
int64_t scan_segments(const Exec& exec, int64_t batch, int64_t length, int64_t width);
template <class T>
void selective_scan_forward(const Exec& exec, const SelectiveScanForward<T, float>& args);
template <class T>
void selective_scan_backward(const Exec& exec, const SelectiveScanBackward<T, float>& args);
}  // namespace cuda

}  // namespace blockstate::kernels
