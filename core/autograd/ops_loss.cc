// SPDX-License-Identifier: Apache-2.0
#include "core/autograd/ops.h"
#include "core/autograd/ops_support.h"
#include "kernels/cross_entropy.h"

namespace blockstate::ops {

Variable cross_entropy(const Variable& logits, const Tensor& targets, double label_smoothing) {
  const Tensor scores = rows_ready(logits.value());
  require(scores.rank() == 2 && targets.rank() == 1 && targets.size(0) == scores.size(0), "cross_entropy: logits ",
          shape_text(logits.shape()), " and targets ", shape_text(targets.shape()), " do not fit together");
  Tensor loss = Tensor::empty({scores.size(0)}, scores.dtype(), scores.device());
  Tensor log_sum_exp = empty_like(loss);
  dispatch_float(scores.dtype(), "cross_entropy", [&](auto type) {
    using T = decltype(type);
    kernels::CrossEntropyForward<T> args;
    args.loss = loss.view<T, 1>();
    args.log_sum_exp = log_sum_exp.view<T, 1>();
    args.logits = scores.view<T, 2>();
    args.targets = targets.view<int64_t, 1>();
    args.label_smoothing = static_cast<T>(label_smoothing);
    kernels::cpu::cross_entropy_forward<T>(args);
  });
  return record_one("cross_entropy", loss, {logits}, [scores, targets, log_sum_exp, label_smoothing](const Tensor& dy) {
    Tensor dlogits = Tensor::empty(scores.shape(), scores.dtype(), scores.device());
    dispatch_float(scores.dtype(), "cross_entropy", [&](auto type) {
      using T = decltype(type);
      kernels::CrossEntropyBackward<T> args;
      args.dlogits = dlogits.view<T, 2>();
      args.dloss = dy.view<T, 1>();
      args.logits = scores.view<T, 2>();
      args.targets = targets.view<int64_t, 1>();
      args.log_sum_exp = log_sum_exp.view<T, 1>();
      args.label_smoothing = static_cast<T>(label_smoothing);
      kernels::cpu::cross_entropy_backward<T>(args);
    });
    return std::vector<Tensor>{dlogits};
  });
}

Variable weighted_sum(const Variable& x, const Tensor& weight) {
  const Tensor input = x.value().packed();
  require(!weight.defined() || weight.shape() == x.shape(), "weighted_sum: weight of shape ",
          weight.defined() ? shape_text(weight.shape()) : "", " for values of shape ", shape_text(x.shape()));
  const Tensor factors = weight.defined() ? weight.packed() : Tensor();
  Tensor sum = Tensor::empty({1}, input.dtype(), input.device());
  dispatch_float(input.dtype(), "weighted_sum", [&](auto type) {
    using T = decltype(type);
    double total = 0;
    for (int64_t i = 0; i < input.elements(); ++i) {
      total += static_cast<double>(input.data<T>()[i]) * (factors.defined() ? factors.data<T>()[i] : T(1));
    }
    *sum.data<T>() = static_cast<T>(total);
  });
  return record_one("weighted_sum", sum, {x}, [like = input, factors](const Tensor& dy) {
    Tensor dx = empty_like(like);
    dispatch_float(like.dtype(), "weighted_sum", [&](auto type) {
      using T = decltype(type);
      const T g = *dy.data<T>();
      for (int64_t i = 0; i < like.elements(); ++i) {
        dx.data<T>()[i] = factors.defined() ? g * factors.data<T>()[i] : g;
      }
    });
    return std::vector<Tensor>{dx};
  });
}

}  // namespace blockstate::ops
