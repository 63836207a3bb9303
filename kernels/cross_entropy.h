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
#include "kernels/cuda_exec.h"

namespace blockstate::kernels {

/// T: activations. P: parameters, states and sums, float on CUDA devices whatever T is; on the CPU T and P are the
/// same.
template <class T, class P = T>
struct CrossEntropyForward {
  View<P, 1> loss;
  View<P, 1> log_sum_exp;
  View<const T, 2> logits;
  View<const int64_t, 1> targets;
  P label_smoothing = 0;
};

template <class T, class P = T>
struct CrossEntropyBackward {
  View<T, 2> dlogits;
  View<const P, 1> dloss;
  View<const T, 2> logits;
  View<const int64_t, 1> targets;
  View<const P, 1> log_sum_exp;
  P label_smoothing = 0;
};

namespace cpu {
template <class T>
void cross_entropy_forward(const CrossEntropyForward<T>& args);
template <class T>
void cross_entropy_backward(const CrossEntropyBackward<T>& args);
}  // namespace cpu

/// On CUDA a target of V or more is treated as ignored: the caller checks targets where they come from, on the host.
namespace cuda {
template <class T>
void cross_entropy_forward(const Exec& exec, const CrossEntropyForward<T, float>& args);
template <class T>
void cross_entropy_backward(const Exec& exec, const CrossEntropyBackward<T, float>& args);
}  // namespace cuda

}  // namespace blockstate::kernels
