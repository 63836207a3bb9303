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

namespace blockstate::kernels {

template <class T>
struct NormForward {
  View<T, 2> y;
  View<T, 2> h;           // absent when residual is absent (h is x itself)
  View<T, 1> mean;        // absent: RMS
  View<T, 1> reciprocal;  // (R)
  View<const T, 2> x;
  View<const T, 2> residual;  // absent: none
  View<const T, 1> weight;
  View<const T, 1> bias;  // absent: none
  T epsilon = T(1e-5);
};

template <class T>
struct NormBackward {
  View<T, 2> dh;
  View<T, 1> dweight;  // adds
  View<T, 1> dbias;    // adds; absent: none
  View<const T, 2> dy;
  View<const T, 2> dh_out;  // absent: none
  View<const T, 2> h;
  View<const T, 1> mean;  // absent: RMS
  View<const T, 1> reciprocal;
  View<const T, 1> weight;
};

namespace cpu {
template <class T>
void norm_forward(const NormForward<T>& args);
template <class T>
void norm_backward(const NormBackward<T>& args);
}  // namespace cpu

}  // namespace blockstate::kernels
