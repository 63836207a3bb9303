// SPDX-License-Identifier: Apache-2.0
// Shared by the ops_*.cc files only.
#pragma once

#include "core/autograd/variable.h"

namespace blockstate::ops {

inline Tensor empty_like(const Tensor& tensor) {
  return Tensor::empty(tensor.shape(), tensor.dtype(), tensor.device());
}

/// Zeros to which a kernel adds a gradient; undefined for an absent input.
inline Tensor zeros_like(const Tensor& tensor) {
  return tensor.defined() ? Tensor::zeros(tensor.shape(), tensor.dtype(), tensor.device()) : Tensor();
}

inline void require_same_shape(const char* op, const Variable& a, const Variable& b) {
  require(a.shape() == b.shape(), op, ": shapes ", shape_text(a.shape()), " and ", shape_text(b.shape()), " differ");
}

/// Gradients of an op's outputs may be missing, but a kernel wants the first one.
inline Tensor or_zeros(const Tensor& grad, const Shape& shape, const Tensor& like) {
  return grad.defined() ? grad : Tensor::zeros(shape, like.dtype(), like.device());
}

/// Kernels want a last stride of 1; a slice along the last dimension has it, an arbitrary view may not.
inline Tensor rows_ready(const Tensor& tensor) {
  if (!tensor.defined() || tensor.rank() == 0 || tensor.size(-1) == 1 || tensor.strides().back() == 1) {
    return tensor;
  }
  return tensor.packed();
}

}  // namespace blockstate::ops
