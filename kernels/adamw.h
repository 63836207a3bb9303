// SPDX-License-Identifier: Apache-2.0
// AdamW (Loshchilov & Hutter 2019, algorithm 2) over a list of tensors, and the global norm it is clipped by.
//
//   g = gradient_scale * gradient
//   m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
//   p = p - lr * (weight_decay * p + (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon))
//
// Every tensor is a contiguous run of `count` elements. Element-wise, so the bits do not depend on threads.
#pragma once

#include <cstdint>

#include "kernels/cuda_exec.h"

namespace blockstate::kernels {

template <class T>
struct AdamWTensor {
  T* parameter;
  T* m;
  T* v;
  const T* gradient;
  int64_t count;
  double learning_rate;
  double weight_decay;
};

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double gradient_scale = 1;
  int64_t step = 1;  // t, from 1
};

template <class T>
struct NormTensor {
  const T* data;
  int64_t count;
};

namespace cpu {
template <class T>
void adamw(const AdamWTensor<T>* tensors, int64_t tensor_count, const AdamWOptions& options);
/// Sum of squares over all tensors, accumulated in double in a fixed order. NaN and infinity come through.
template <class T>
double squared_norm(const NormTensor<T>* tensors, int64_t tensor_count);
}  // namespace cpu

/// What a step needs and says, in the device's memory, so that no step waits for the host.
struct AdamWReport {
  double squared_norm;  // of the gradients times gradient_scale; not finite: the step is skipped
  int64_t step;         // t: steps taken, this one included unless skipped
};

namespace cuda {
/// One step over all tensors, clipped to `clip` (0: no limit). Reads report->step as the steps taken before and writes
/// the report; nothing but the report changes where the norm is not finite. options.step is not read. `tensors` lies in
/// host memory.
template <class T>
void adamw_step(const Exec& exec, const AdamWTensor<T>* tensors, int64_t tensor_count, const AdamWOptions& options,
                double clip, AdamWReport* report);
}  // namespace cuda

}  // namespace blockstate::kernels
