// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "core/autograd/ops.h"
#include "core/autograd/ops_support.h"
#include "kernels/pool.h"

namespace blockstate::ops {

Variable pool(const Variable& x, const Variable& weight, const Tensor& record, int64_t records) {
  const Tensor input = rows_ready(x.value());
  const Tensor w = weight.value().packed();
  Tensor y = Tensor::empty({records, x.size(2)}, x.dtype(), input.device());
  dispatch_float(x.dtype(), "pool", [&](auto type) {
    using T = decltype(type);
    kernels::cpu::pool_forward<T>(y.view<T, 2>(), input.view<T, 3>(), w.view<T, 2>(), record.view<int64_t, 2>());
  });
  return record_one("pool", y, {x, weight},
                    [input, w, record, need_dweight = weight.requires_grad()](const Tensor& grad) {
                      Tensor dx = Tensor::empty(input.shape(), input.dtype(), input.device());
                      Tensor dw = need_dweight ? empty_like(w) : Tensor();
                      const Tensor dy = rows_ready(grad);
                      dispatch_float(input.dtype(), "pool", [&](auto type) {
                        using T = decltype(type);
                        kernels::cpu::pool_backward<T>(dx.view<T, 3>(), dw.view<T, 2>(), dy.view<T, 2>(),
                                                       input.view<T, 3>(), w.view<T, 2>(), record.view<int64_t, 2>());
                      });
                      return std::vector<Tensor>{dx, dw};
                    });
}

// The rest works on one number a step or a row: their cost vanishes beside any (B, L, D) op, so plain loops serve.

Variable pool_weights(const Variable& score, const Tensor& record, const Tensor& shift) {
  const Tensor s = score.value().packed();
  Tensor w = empty_like(s);
  const int64_t count = s.elements();
  const int64_t* r = record.data<int64_t>();
  dispatch_float(s.dtype(), "pool_weights", [&](auto type) {
    using T = decltype(type);
    for (int64_t i = 0; i < count; ++i) {
      w.data<T>()[i] = r[i] < 0 ? T(0) : std::exp(s.data<T>()[i] - shift.data<T>()[r[i]]);
    }
  });
  return record_one("pool_weights", w, {score}, [w](const Tensor& grad) {
    const Tensor dw = grad.packed();
    Tensor ds = empty_like(w);
    dispatch_float(w.dtype(), "pool_weights", [&](auto type) {
      using T = decltype(type);
      for (int64_t i = 0; i < w.elements(); ++i) {
        ds.data<T>()[i] = dw.data<T>()[i] * w.data<T>()[i];
      }
    });
    return std::vector<Tensor>{ds};
  });
}

Variable divide_rows(const Variable& x, const Variable& weight) {
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.value().device());
  const Tensor input = x.value().packed();
  dispatch_float(x.dtype(), "divide_rows", [&](auto type) {
    using T = decltype(type);
    const auto from = input.view<T, 2>(), to = y.view<T, 2>();
    const auto w = weight.value().view<T, 1>();
    for (int64_t r = 0; r < from.size[0]; ++r) {
      for (int64_t d = 0; d < from.size[1]; ++d) {
        to(r, d) = from(r, d) / w(r);
      }
    }
  });
  return record_one("divide_rows", y, {x, weight}, [y, w = weight.value()](const Tensor& grad) {
    const Tensor dy = grad.packed();
    Tensor dx = empty_like(y);
    Tensor dw = empty_like(w);
    dispatch_float(y.dtype(), "divide_rows", [&](auto type) {
      using T = decltype(type);
      const auto g = dy.view<T, 2>(), out = y.view<T, 2>(), gx = dx.view<T, 2>();
      for (int64_t r = 0; r < g.size[0]; ++r) {
        T sum = 0;
        for (int64_t d = 0; d < g.size[1]; ++d) {
          gx(r, d) = g(r, d) / w.data<T>()[r];
          sum -= gx(r, d) * out(r, d);
        }
        dw.data<T>()[r] = sum;
      }
    });
    return std::vector<Tensor>{dx, dw};
  });
}

Variable scale_rows(const Variable& x, const Tensor& factor) {
  const auto apply = [factor](const Tensor& source) {
    const Tensor from = source.packed();
    Tensor to = empty_like(from);
    dispatch_float(from.dtype(), "scale_rows", [&](auto type) {
      using T = decltype(type);
      const int64_t columns = from.elements() / std::max<int64_t>(1, from.size(0));
      for (int64_t i = 0; i < from.elements(); ++i) {
        to.data<T>()[i] = from.data<T>()[i] * factor.data<T>()[i / columns];
      }
    });
    return to;
  };
  return record_one("scale_rows", apply(x.value()), {x},
                    [apply](const Tensor& dy) { return std::vector<Tensor>{apply(dy)}; });
}

}  // namespace blockstate::ops
