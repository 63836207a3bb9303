// SPDX-License-Identifier: Apache-2.0
#include "core/autograd/ops.h"
#include "core/autograd/ops_support.h"
#include "kernels/pool.h"

namespace blockstate::ops {

Variable pool(const Variable& x, const Variable& weight, const Tensor& record, int64_t records) {
  const Tensor input = rows_ready(x.value());
  const Tensor w = weight.value().packed();
  Tensor y = Tensor::empty({records, x.size(2)}, state_dtype(input.dtype()), input.device());
  dispatch(input, "pool", [&](auto on) {
    using T = typename decltype(on)::Value;
    using P = typename decltype(on)::Parameter;
    BLOCKSTATE_KERNEL(on, pool_forward, y.view<P, 2>(), input.view<T, 3>(), w.view<P, 2>(), record.view<int64_t, 2>());
  });
  return record_one("pool", y, {x, weight},
                    [input, w, record, need_dweight = weight.requires_grad()](const Tensor& grad) {
                      Tensor dx = Tensor::empty(input.shape(), input.dtype(), input.device());
                      Tensor dw = need_dweight ? empty_like(w) : Tensor();
                      const Tensor dy = rows_ready(grad);
                      dispatch(input, "pool", [&](auto on) {
                        using T = typename decltype(on)::Value;
                        using P = typename decltype(on)::Parameter;
                        BLOCKSTATE_KERNEL(on, pool_backward, dx.view<T, 3>(), dw.view<P, 2>(), dy.view<P, 2>(),
                                          input.view<T, 3>(), w.view<P, 2>(), record.view<int64_t, 2>());
                      });
                      return std::vector<Tensor>{dx, dw};
                    });
}

Variable pool_weights(const Variable& score, const Tensor& record, const Tensor& shift) {
  const Tensor s = score.value().packed();
  Tensor w = Tensor::empty(s.shape(), state_dtype(s.dtype()), s.device());
  dispatch(s, "pool_weights", [&](auto on) {
    using T = typename decltype(on)::Value;
    using P = typename decltype(on)::Parameter;
    BLOCKSTATE_KERNEL(on, pool_weights_forward, w.view<P, 2>(), s.view<T, 2>(), record.view<int64_t, 2>(),
                      shift.view<P, 1>());
  });
  return record_one("pool_weights", w, {score}, [w, dtype = s.dtype()](const Tensor& grad) {
    const Tensor dw = grad.packed();
    Tensor ds = Tensor::empty(w.shape(), dtype, w.device());
    dispatch(ds, "pool_weights", [&](auto on) {
      using T = typename decltype(on)::Value;
      using P = typename decltype(on)::Parameter;
      BLOCKSTATE_KERNEL(on, pool_weights_backward, ds.view<T, 2>(), dw.view<P, 2>(), w.view<P, 2>());
    });
    return std::vector<Tensor>{ds};
  });
}

Variable divide_rows(const Variable& x, const Variable& weight) {
  const Tensor input = x.value().packed();
  Tensor y = empty_like(input);
  dispatch_exact(input, "divide_rows", [&](auto on) {
    using T = typename decltype(on)::Value;
    BLOCKSTATE_KERNEL(on, divide_rows_forward, y.view<T, 2>(), input.view<T, 2>(), weight.value().view<T, 1>());
  });
  return record_one("divide_rows", y, {x, weight}, [y, w = weight.value()](const Tensor& grad) {
    const Tensor dy = grad.packed();
    Tensor dx = empty_like(y);
    Tensor dw = empty_like(w);
    dispatch_exact(y, "divide_rows", [&](auto on) {
      using T = typename decltype(on)::Value;
      BLOCKSTATE_KERNEL(on, divide_rows_backward, dx.view<T, 2>(), dw.view<T, 1>(), dy.view<T, 2>(), y.view<T, 2>(),
                        w.view<T, 1>());
    });
    return std::vector<Tensor>{dx, dw};
  });
}

Variable scale_rows(const Variable& x, const Tensor& factor) {
  const auto apply = [factor](const Tensor& from) {
    const Tensor source = rows_ready(from);
    Tensor to = empty_like(source);
    dispatch_exact(source, "scale_rows", [&](auto on) {
      using T = typename decltype(on)::Value;
      BLOCKSTATE_KERNEL(on, scale_rows, to.rows<T>(), source.rows<T>(), factor.view<T, 1>());
    });
    return to;
  };
  return record_one("scale_rows", apply(x.value()), {x},
                    [apply](const Tensor& dy) { return std::vector<Tensor>{apply(dy)}; });
}

}  // namespace blockstate::ops
