// SPDX-License-Identifier: Apache-2.0
#include "core/autograd/ops.h"
#include "core/autograd/ops_support.h"

namespace blockstate::ops {

using kernels::Activation;

Variable add(const Variable& a, const Variable& b) {
  require_same_shape("add", a, b);
  Tensor y = empty_like(a.value());
  dispatch_float(a.dtype(), "add", [&](auto type) {
    using T = decltype(type);
    kernels::cpu::add<T>(y.rows<T>(), rows_ready(a.value()).rows<T>(), rows_ready(b.value()).rows<T>());
  });
  return record_one("add", y, {a, b}, [](const Tensor& dy) { return std::vector<Tensor>{dy, dy}; });
}

Variable scale(const Variable& x, double factor) {
  const auto apply = [factor](const Tensor& from) {
    Tensor to = empty_like(from);
    dispatch_float(from.dtype(), "scale", [&](auto type) {
      using T = decltype(type);
      kernels::cpu::scale<T>(to.rows<T>(), rows_ready(from).template rows<T>(), static_cast<T>(factor));
    });
    return to;
  };
  return record_one("scale", apply(x.value()), {x},
                    [apply](const Tensor& dy) { return std::vector<Tensor>{apply(dy)}; });
}

Variable activation(const Variable& x, Activation kind) {
  const Tensor input = rows_ready(x.value());
  Tensor y = empty_like(input);
  dispatch_float(x.dtype(), "activation", [&](auto type) {
    using T = decltype(type);
    kernels::cpu::activation_forward<T>(y.rows<T>(), input.rows<T>(), kind);
  });
  return record_one("activation", y, {x}, [saved = input, kind](const Tensor& grad) {
    const Tensor dy = rows_ready(grad);
    Tensor dx = empty_like(saved);
    dispatch_float(saved.dtype(), "activation", [&](auto type) {
      using T = decltype(type);
      kernels::cpu::activation_backward<T>(dx.rows<T>(), dy.rows<T>(), saved.rows<T>(), kind);
    });
    return std::vector<Tensor>{dx};
  });
}

Variable gated(const Variable& value, const Variable& gate, Activation kind) {
  require_same_shape("gated", value, gate);
  const Tensor v = rows_ready(value.value()), g = rows_ready(gate.value());
  Tensor y = empty_like(v);
  dispatch_float(value.dtype(), "gated", [&](auto type) {
    using T = decltype(type);
    kernels::cpu::gated_forward<T>(y.rows<T>(), v.rows<T>(), g.rows<T>(), kind);
  });
  return record_one("gated", y, {value, gate}, [v, g, kind](const Tensor& grad) {
    const Tensor dy = rows_ready(grad);
    Tensor dv = empty_like(v);
    Tensor dg = empty_like(g);
    dispatch_float(v.dtype(), "gated", [&](auto type) {
      using T = decltype(type);
      kernels::cpu::gated_backward<T>(dv.rows<T>(), dg.rows<T>(), dy.rows<T>(), v.rows<T>(), g.rows<T>(), kind);
    });
    return std::vector<Tensor>{dv, dg};
  });
}

Variable dropout(const Variable& x, const Tensor& record, const Tensor& position, uint64_t key, double rate) {
  if (rate == 0) {
    return x;
  }
  // The gradient of dropout is dropout of the gradient: nothing but the key is saved.
  const auto apply = [record, position, key, rate](const Tensor& from) {
    Tensor to = empty_like(from);
    const Tensor ready = rows_ready(from), records = record.reshape({-1}), positions = position.reshape({-1});
    dispatch_float(from.dtype(), "dropout", [&](auto type) {
      using T = decltype(type);
      kernels::Dropout<T> args;
      args.y = to.rows<T>();
      args.x = ready.rows<T>();
      args.record = records.view<int64_t, 1>();
      args.position = positions.view<int64_t, 1>();
      args.key = key;
      args.rate = static_cast<float>(rate);
      kernels::cpu::dropout<T>(args);
    });
    return to;
  };
  return record_one("dropout", apply(x.value()), {x},
                    [apply](const Tensor& dy) { return std::vector<Tensor>{apply(dy)}; });
}

}  // namespace blockstate::ops
