// SPDX-License-Identifier: Apache-2.0
#include "core/autograd/ops.h"
#include "core/autograd/ops_support.h"
#include "kernels/cross_entropy.h"
#include "kernels/weighted_sum.h"

namespace blockstate::ops {

Variable cross_entropy(const Variable& logits, const Tensor& targets, double label_smoothing) {
  const Tensor scores = rows_ready(logits.value());
  require(scores.rank() == 2 && targets.rank() == 1 && targets.size(0) == scores.size(0), "cross_entropy: logits ",
          shape_text(logits.shape()), " and targets ", shape_text(targets.shape()), " do not fit together");
  const DType exact = state_dtype(scores.dtype());
  Tensor loss = Tensor::empty({scores.size(0)}, exact, scores.device());
  Tensor log_sum_exp = empty_like(loss);
  dispatch(scores, "cross_entropy", [&](auto on) {
    using T = typename decltype(on)::Value;
    using P = typename decltype(on)::Parameter;
    kernels::CrossEntropyForward<T, P> args;
    args.loss = loss.view<P, 1>();
    args.log_sum_exp = log_sum_exp.view<P, 1>();
    args.logits = scores.view<T, 2>();
    args.targets = targets.view<int64_t, 1>();
    args.label_smoothing = static_cast<P>(label_smoothing);
    BLOCKSTATE_KERNEL(on, cross_entropy_forward, args);
  });
  return record_one("cross_entropy", loss, {logits}, [scores, targets, log_sum_exp, label_smoothing](const Tensor& dy) {
    Tensor dlogits = Tensor::empty(scores.shape(), scores.dtype(), scores.device());
    dispatch(scores, "cross_entropy", [&](auto on) {
      using T = typename decltype(on)::Value;
      using P = typename decltype(on)::Parameter;
      kernels::CrossEntropyBackward<T, P> args;
      args.dlogits = dlogits.view<T, 2>();
      args.dloss = dy.view<P, 1>();
      args.logits = scores.view<T, 2>();
      args.targets = targets.view<int64_t, 1>();
      args.log_sum_exp = log_sum_exp.view<P, 1>();
      args.label_smoothing = static_cast<P>(label_smoothing);
      BLOCKSTATE_KERNEL(on, cross_entropy_backward, args);
    });
    return std::vector<Tensor>{dlogits};
  });
}

Variable weighted_sum(const Variable& x, const Tensor& weight) {
  const Tensor input = x.value().packed();
  require(!weight.defined() || weight.shape() == x.shape(), "weighted_sum: weight of shape ",
          weight.defined() ? shape_text(weight.shape()) : "", " for values of shape ", shape_text(x.shape()));
  const Tensor factors = weight.defined() ? weight.reshape({-1}) : Tensor();
  Tensor sum = Tensor::empty({1}, input.dtype(), input.device());
  dispatch_exact(input, "weighted_sum", [&](auto on) {
    using T = typename decltype(on)::Value;
    BLOCKSTATE_KERNEL(on, weighted_sum_forward, sum.view<T, 1>(), input.reshape({-1}).view<T, 1>(),
                      factors.view<T, 1>());
  });
  return record_one("weighted_sum", sum, {x}, [shape = x.shape(), factors](const Tensor& dy) {
    Tensor dx = Tensor::empty({element_count(shape)}, dy.dtype(), dy.device());
    dispatch_exact(dy, "weighted_sum", [&](auto on) {
      using T = typename decltype(on)::Value;
      BLOCKSTATE_KERNEL(on, weighted_sum_backward, dx.view<T, 1>(), dy.view<T, 1>(), factors.view<T, 1>());
    });
    return std::vector<Tensor>{dx.reshape(shape)};
  });
}

}  // namespace blockstate::ops
