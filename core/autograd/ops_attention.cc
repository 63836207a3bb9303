// SPDX-License-Identifier: Apache-2.0
#include "core/autograd/kept.h"
#include "core/autograd/ops.h"
#include "core/autograd/ops_support.h"
#include "kernels/attention.h"
#include "kernels/relative_bias.h"
#include "kernels/rotary.h"

namespace blockstate::ops {

Variable attention(const Variable& q, const Variable& k, const Variable& v, const Variable& bias,
                   const AttentionRange& range, double scale) {
  const Tensor queries = rows_ready(q.value()), keys = rows_ready(k.value()), values = rows_ready(v.value());
  require(queries.rank() == 4 && keys.rank() == 4 && k.shape() == v.shape() && queries.size(2) == keys.size(2) &&
              queries.size(3) == keys.size(3),
          "attention: q ", shape_text(q.shape()), ", k ", shape_text(k.shape()), " and v ", shape_text(v.shape()),
          " do not fit together");
  const Shape sums = {q.size(0), q.size(2), q.size(1)};
  const DType exact = state_dtype(queries.dtype());
  Tensor y, log_sum_exp;
  const bool taken = take_kept("attention", {&y, &log_sum_exp});
  const bool keep = room_to_keep(queries.elements() * dtype_size(q.dtype()) +
                                 element_count(sums) * dtype_size(exact)) == Keeping::kAll;
  if (!taken) {
    y = Tensor::empty(q.shape(), q.dtype(), queries.device());
    log_sum_exp = grad_enabled() || keep ? Tensor::empty(sums, exact, queries.device()) : Tensor();
  }
  const auto inputs = [queries, keys, values, b = bias.value(), range, scale, log_sum_exp](auto on, const Tensor& out) {
    using T = typename decltype(on)::Value;
    using P = typename decltype(on)::Parameter;
    kernels::AttentionForward<T, P> args;
    args.y = out.view<T, 4>();
    args.log_sum_exp = log_sum_exp.view<P, 3>();
    args.q = queries.view<T, 4>();
    args.k = keys.view<T, 4>();
    args.v = values.view<T, 4>();
    args.begin = range.begin.view<int64_t, 2>();
    args.end = range.end.view<int64_t, 2>();
    args.bias = b.view<P, 2>();
    args.scale = static_cast<P>(scale);
    args.offset = range.offset;
    return args;
  };
  if (!taken) {
    dispatch(queries, "attention", [&](auto on) { BLOCKSTATE_KERNEL(on, attention_forward, inputs(on, y)); });
  }
  keep_outputs("attention", keep ? std::vector<Tensor>{y, log_sum_exp} : std::vector<Tensor>());
  return record_one("attention", y, {q, k, v, bias}, [inputs, y, queries, keys, b = bias.value()](const Tensor& grad) {
    Tensor dq = Tensor::empty(queries.shape(), queries.dtype(), queries.device());
    Tensor dk = Tensor::empty(keys.shape(), keys.dtype(), keys.device());
    Tensor dv = Tensor::empty(keys.shape(), keys.dtype(), keys.device());
    Tensor dbias = zeros_like(b);
    const Tensor dy = rows_ready(grad);
    dispatch(queries, "attention", [&](auto on) {
      using T = typename decltype(on)::Value;
      using P = typename decltype(on)::Parameter;
      kernels::AttentionBackward<T, P> args;
      args.dq = dq.view<T, 4>();
      args.dk = dk.view<T, 4>();
      args.dv = dv.view<T, 4>();
      args.dbias = dbias.view<P, 2>();
      args.dy = dy.view<T, 4>();
      args.forward = inputs(on, y);
      BLOCKSTATE_KERNEL(on, attention_backward, args);
    });
    return std::vector<Tensor>{dq, dk, dv, dbias};
  });
}

Variable rotary(const Variable& x, const Tensor& position, double base) {
  const auto rotate = [position, base](const Tensor& from, bool inverse) {
    const Tensor ready = rows_ready(from);
    Tensor to = Tensor::empty(from.shape(), from.dtype(), from.device());
    dispatch(from, "rotary", [&](auto on) {
      using T = typename decltype(on)::Value;
      BLOCKSTATE_KERNEL(on, rotary, to.view<T, 4>(), ready.view<T, 4>(), position.view<int64_t, 2>(), base, inverse);
    });
    return to;
  };
  return record_one("rotary", rotate(x.value(), false), {x},
                    [rotate](const Tensor& dy) { return std::vector<Tensor>{rotate(dy, true)}; });
}

Variable gather_buckets(const Variable& table, const Tensor& bucket) {
  Tensor bias = Tensor::empty({table.size(1), bucket.size(0)}, table.dtype(), table.value().device());
  dispatch_exact(table.value(), "gather_buckets", [&](auto on) {
    using T = typename decltype(on)::Value;
    BLOCKSTATE_KERNEL(on, relative_bias_forward, bias.view<T, 2>(), table.value().view<T, 2>(),
                      bucket.view<int64_t, 1>());
  });
  return record_one("gather_buckets", bias, {table}, [bucket, like = table.value()](const Tensor& grad) {
    const Tensor dbias = grad.packed();
    Tensor dtable = zeros_like(like);
    dispatch_exact(like, "gather_buckets", [&](auto on) {
      using T = typename decltype(on)::Value;
      BLOCKSTATE_KERNEL(on, relative_bias_backward, dtable.view<T, 2>(), dbias.view<T, 2>(), bucket.view<int64_t, 1>());
    });
    return std::vector<Tensor>{dtable};
  });
}

}  // namespace blockstate::ops
