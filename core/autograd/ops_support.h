// SPDX-License-Identifier: Apache-2.0
// Shared by the ops_*.cc files only.
#pragma once

#include "core/autograd/variable.h"
#include "core/tensor/place.h"

namespace blockstate::ops {

/// Where the state after a chunk goes: its own place, or that of the state before (StatesInPlace).
Tensor state_place(const Tensor& initial, const Shape& shape, DType dtype, Device device);

/// dispatch() for ops on states, sums and parameters, which are never rounded to bfloat16.
template <class Body>
void dispatch_exact(const Tensor& like, const char* op, const Body& body) {
  require(like.dtype() != DType::kBFloat16, op, " is not computed in bfloat16");
  dispatch(like, op, [&](auto on) {
    if constexpr (!std::is_same_v<typename decltype(on)::Value, BFloat16>) {
      body(on);
    }
  });
}

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

/// Where the gradient of a parameter is to be added, for a backward function to hold; null for what is no leaf.
inline std::shared_ptr<Edge> leaf_edge(const Variable& variable) {
  return variable.edge() && !variable.edge()->creator ? variable.edge() : nullptr;
}

/// What a kernel adds a gradient to: what the leaf has collected so far, else zeros (undefined for an absent input).
class GradSum {
 public:
  GradSum(const std::shared_ptr<Edge>& leaf, const Tensor& like) : sum_(pending_grad(leaf)), arrived_(sum_.defined()) {
    if (!arrived_) {
      sum_ = zeros_like(like);
    }
  }
  const Tensor* operator->() const { return &sum_; }
  /// For the gradients that a backward function returns: none where it was added in place.
  Tensor rest() const { return arrived_ ? Tensor() : sum_; }

 private:
  Tensor sum_;
  bool arrived_;
};

/// Gradients of an op's outputs may be missing, but a kernel wants the first one.
inline Tensor or_zeros(const Tensor& grad, const Shape& shape, const Tensor& like) {
  return grad.defined() ? grad : Tensor::zeros(shape, like.dtype(), like.device());
}

/// Itself where kernels can take it: a last stride of 1, and leading dimensions that join into rows. A slice along the
/// last dimension is; one along the steps of several rows is not and gets copied. The result must outlive the views
/// made of it: it may be the only owner of that copy.
inline Tensor rows_ready(const Tensor& tensor) {
  if (!tensor.defined() || tensor.rank() == 0) {
    return tensor;
  }
  const std::vector<int64_t>& strides = tensor.strides();
  bool ready = tensor.size(-1) == 1 || strides.back() == 1;
  int64_t expected = 0;  // stride the next outer dimension must have; 0: any
  for (int i = tensor.rank() - 2; i >= 0; --i) {
    if (tensor.shape()[i] == 1) {
      continue;
    }
    ready = ready && (expected == 0 || strides[i] == expected);
    expected = strides[i] * tensor.shape()[i];
  }
  return ready ? tensor : tensor.packed();
}

}  // namespace blockstate::ops
