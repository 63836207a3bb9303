// SPDX-License-Identifier: Apache-2.0
// Time-invariant diagonal state-space recurrence with carry: S4D run as a recurrence. Gu et al. 2022
// (arXiv 2206.11893), section 3; P = N/2 complex states stand for N with their conjugates.
//
//   h[b,t,d,p] = a[d,p] * h[b,t-1,d,p] + u[b,t,d]                       (complex)
//   y[b,t,d]   = Re( sum_p c[d,p] * h[b,t,d,p] ) + D[d] * u[b,t,d]
//
// c already holds 2 * C * Bbar, so the state does not depend on B and C (see s4d_discretize below).
// Shapes: u, y (B, L, D); a, c (D, P, 2) as (re, im), |a| <= 1; D (D); initial, final (B, D, P, 2).
// `position` (B, L), optional, as in selective_scan.h: 0 starts a record, -1 is padding.
// u, y, dy, du and the checkpoint need a last stride of 1; the other strides are free.
// Saves: checkpoint (B, ceil(L / kDiagonalCheckpoint), P, 2, D), the state before every kDiagonalCheckpoint-th step,
// channels last because the kernels keep neighbouring channels in one vector.
// Gradients: da, dc, dD add; du, dinitial overwrite. Complex gradients are (d/dre, d/dim). Fixed-order sums.
// States below the smallest normal number become 0. Identities: halves with carry equal one pass; equals convolution
// with K[l] = Re(sum_p c a^l) plus D.
#pragma once

#include <cstdint>

#include "core/base/view.h"
#include "kernels/cuda_exec.h"

namespace blockstate::kernels {

inline constexpr int64_t kDiagonalCheckpoint = 64;

/// T: activations. P: parameters, states and sums, float on CUDA devices whatever T is; on the CPU T and P are the
/// same.
template <class T, class P = T>
struct DiagonalScanForward {
  View<T, 3> y;
  View<P, 4> final;       // absent: not wanted
  View<P, 5> checkpoint;  // absent: no backward will follow
  View<const T, 3> u;
  View<const P, 3> a;
  View<const P, 3> c;
  View<const P, 1> D;        // absent: 0
  View<const P, 4> initial;  // absent: 0
  View<const int64_t, 2> position;
};

template <class T, class P = T>
struct DiagonalScanBackward {
  View<T, 3> du;
  View<P, 3> da;
  View<P, 3> dc;
  View<P, 1> dD;
  View<P, 4> dinitial;  // absent: not wanted
  View<const T, 3> dy;
  View<const P, 4> dfinal;            // absent: 0
  DiagonalScanForward<T, P> forward;  // its inputs and checkpoint; y and final are not read
};

/// S4D's zero-order hold:  lambda = -exp(log_real) + i * imaginary;  dt = exp(log_dt)
///   a = exp(dt * lambda);   c = 2 * C * B * (a - 1) / lambda
/// Shapes: log_dt (D); log_real, imaginary (D, P); B, C (D, P, 2); a, c (D, P, 2). All gradients add.
/// Computed in double inside: it costs D*P and sets the memory of the whole sequence.
template <class T>
struct S4dDiscretize {
  View<T, 3> a;
  View<T, 3> c;
  View<const T, 1> log_dt;
  View<const T, 2> log_real;
  View<const T, 2> imaginary;
  View<const T, 3> B;
  View<const T, 3> C;
};

template <class T>
struct S4dDiscretizeBackward {
  View<T, 1> dlog_dt;
  View<T, 2> dlog_real;
  View<T, 2> dimaginary;
  View<T, 3> dB;
  View<T, 3> dC;
  View<const T, 3> da;
  View<const T, 3> dc;
  S4dDiscretize<T> forward;  // its inputs
};

namespace cpu {
template <class T>
void diagonal_scan_forward(const DiagonalScanForward<T>& args);
template <class T>
void diagonal_scan_backward(const DiagonalScanBackward<T>& args);
template <class T>
void s4d_discretize(const S4dDiscretize<T>& args);
template <class T>
void s4d_discretize_backward(const S4dDiscretizeBackward<T>& args);
}  // namespace cpu

namespace cuda {
/// Steps between checkpoints: on CUDA checkpoint is (B, ceil(L / this), P, 2, D).
inline constexpr int64_t kDiagonalCheckpoint = 256;
template <class T>
void diagonal_scan_forward(const Exec& exec, const DiagonalScanForward<T, float>& args);
template <class T>
void diagonal_scan_backward(const Exec& exec, const DiagonalScanBackward<T, float>& args);
template <class T>
void s4d_discretize(const Exec& exec, const S4dDiscretize<T>& args);
template <class T>
void s4d_discretize_backward(const Exec& exec, const S4dDiscretizeBackward<T>& args);
}  // namespace cuda

}  // namespace blockstate::kernels
