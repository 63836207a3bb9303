// SPDX-License-Identifier: Apache-2.0
// RMSNorm and LayerNorm over the last dimension, with the residual addition fused in.
//
//   h = x + residual                                     (h = x where residual is absent)
//   RMS:   y = weight * h * r,            r = 1/sqrt(mean(h^2) + epsilon)      Zhang & Sennrich 2019
//   Layer: y = weight * (h - m) * r + bias, r = 1/sqrt(var(h) + epsilon)       Ba et al. 2016
//
// Shapes: x, residual, h, y (R, D); weight, bias (D); mean, reciprocal (R). Rows may be strided.
// Saves: h, reciprocal (and mean for Layer). Gradients: dweight, dbias add; dh overwrites; it is the gradient of both
// x and residual, and already contains dh_out, the gradient that reached h itself. Fixed-order reductions.
// Identity: scaling h leaves y unchanged up to epsilon.
#pragma once

#include "core/base/view.h"
#include "kernels/cuda_exec.h"

namespace blockstate::kernels {

/// On the CPU all types are the same. On CUDA P, the parameters and statistics, is float; T is y's type, X that of x, H
/// that of the residual stream: a bfloat16 model keeps its residual stream in float.
template <class T, class X = T, class H = T, class P = T>
struct NormForward {
  View<T, 2> y;
  View<H, 2> h;           // absent when residual is absent (h is x itself)
  View<P, 1> mean;        // absent: RMS
  View<P, 1> reciprocal;  // (R)
  View<const X, 2> x;
  View<const H, 2> residual;  // absent: none
  View<const P, 1> weight;
  View<const P, 1> bias;  // absent: none
  P epsilon = P(1e-5);
};

/// H: type of the h that was normalised (X where there was no residual).
template <class T, class X = T, class H = T, class P = T>
struct NormBackward {
  View<H, 2> dh;
  View<X, 2> dx;       // absent: not wanted, or dh serves (X and H are the same)
  View<P, 1> dweight;  // adds
  View<P, 1> dbias;    // adds; absent: none
  View<const T, 2> dy;
  View<const H, 2> dh_out;  // absent: none
  View<const H, 2> h;
  View<const P, 1> mean;  // absent: RMS
  View<const P, 1> reciprocal;
  View<const P, 1> weight;
};

namespace cpu {
template <class T>
void norm_forward(const NormForward<T>& args);
template <class T>
void norm_backward(const NormBackward<T>& args);
}  // namespace cpu

namespace cuda {
/// (T, X, H): all float; (BFloat16, BFloat16, float) within a model; (BFloat16, float, float) for its first norm;
/// all BFloat16 where there is no residual stream. dx is written only where it is present.
template <class T, class X, class H>
void norm_forward(const Exec& exec, const NormForward<T, X, H, float>& args);
template <class T, class X, class H>
void norm_backward(const Exec& exec, const NormBackward<T, X, H, float>& args);
}  // namespace cuda

}  // namespace blockstate::kernels
