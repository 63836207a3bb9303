// SPDX-License-Identifier: Apache-2.0
// Softmax cross entropy of rows of logits.
//
//   loss[r] = log(sum_v exp(logits[r, v])) - logits[r, targets[r]]                   (nats)
//   with label smoothing s: loss = (1 - s) * above + s * mean over v of (lse - logits[r, v])
//
// Shapes: logits (R, V), targets (R), loss and log_sum_exp (R). A target below 0 is ignored: loss 0, gradient 0; a
// target of V or more is an Error that names the row.
// Saves: log_sum_exp. Gradient: dlogits overwrites: dloss[r] * (softmax - target distribution); rows sum to zero.
#pragma once

#include <cstdint>

#include "core/base/view.h"

namespace blockstate::kernels {

template <class T>
struct CrossEntropyForward {
  View<T, 1> loss;
  View<T, 1> log_sum_exp;
  View<const T, 2> logits;
  View<const int64_t, 1> targets;
  T label_smoothing = 0;
};

template <class T>
struct CrossEntropyBackward {
  View<T, 2> dlogits;
  View<const T, 1> dloss;
  View<const T, 2> logits;
  View<const int64_t, 1> targets;
  View<const T, 1> log_sum_exp;
  T label_smoothing = 0;
};

namespace cpu {
template <class T>
void cross_entropy_forward(const CrossEntropyForward<T>& args);
template <class T>
void cross_entropy_backward(const CrossEntropyBackward<T>& args);
}  // namespace cpu

}  // namespace blockstate::kernels
