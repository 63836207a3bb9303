// SPDX-License-Identifier: Apache-2.0
#include "core/autograd/ops.h"
#include "core/autograd/ops_support.h"

namespace blockstate::ops {

using kernels::Activation;

Variable add(const Variable& a, const Variable& b) {
  require_same_shape("add", a, b);
  Tensor y = empty_like(a.value());
  dispatch(a.value(), "add", [&](auto on) {
    using T = typename decltype(on)::Value;
    BLOCKSTATE_KERNEL(on, add, y.rows<T>(), rows_ready(a.value()).rows<T>(), rows_ready(b.value()).rows<T>());
  });
  return record_one("add", y, {a, b}, [](const Tensor& dy) { return std::vector<Tensor>{dy, dy}; });
}

Variable scale(const Variable& x, double factor) {
  const auto apply = [factor](const Tensor& from) {
    Tensor to = empty_like(from);
    dispatch(from, "scale", [&](auto on) {
      using T = typename decltype(on)::Value;
      BLOCKSTATE_KERNEL(on, scale, to.rows<T>(), rows_ready(from).rows<T>(),
                        static_cast<typename decltype(on)::Parameter>(factor));
    });
    return to;
  };
  return record_one("scale", apply(x.value()), {x},
                    [apply](const Tensor& dy) { return std::vector<Tensor>{apply(dy)}; });
}

Variable cast(const Variable& x, DType dtype) {
  if (x.dtype() == dtype) {
    return x;
  }
  return record_one("cast", x.value().to(dtype), {x},
                    [from = x.dtype()](const Tensor& dy) { return std::vector<Tensor>{dy.to(from)}; });
}

Variable activation(const Variable& x, Activation kind) {
  const Tensor input = rows_ready(x.value());
  Tensor y = empty_like(input);
  dispatch(input, "activation", [&](auto on) {
    using T = typename decltype(on)::Value;
    BLOCKSTATE_KERNEL(on, activation_forward, y.rows<T>(), input.rows<T>(), kind);
  });
  return record_one("activation", y, {x}, [saved = input, kind](const Tensor& grad) {
    const Tensor dy = rows_ready(grad);
    Tensor dx = empty_like(saved);
    dispatch(saved, "activation", [&](auto on) {
      using T = typename decltype(on)::Value;
      BLOCKSTATE_KERNEL(on, activation_backward, dx.rows<T>(), dy.rows<T>(), saved.rows<T>(), kind);
    });
    return std::vector<Tensor>{dx};
  });
}

Variable gated(const Variable& value, const Variable& gate, Activation kind) {
  require_same_shape("gated", value, gate);
  const Tensor v = rows_ready(value.value()), g = rows_ready(gate.value());
  Tensor y = empty_like(v);
  dispatch(v, "gated", [&](auto on) {
    using T = typename decltype(on)::Value;
    BLOCKSTATE_KERNEL(on, gated_forward, y.rows<T>(), v.rows<T>(), g.rows<T>(), kind);
  });
  return record_one("gated", y, {value, gate}, [v, g, kind](const Tensor& grad) {
    const Tensor dy = rows_ready(grad);
    Tensor dv = empty_like(v);
    Tensor dg = empty_like(g);
    dispatch(v, "gated", [&](auto on) {
      using T = typename decltype(on)::Value;
      BLOCKSTATE_KERNEL(on, gated_backward, dv.rows<T>(), dg.rows<T>(), dy.rows<T>(), v.rows<T>(), g.rows<T>(), kind);
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
    dispatch(from, "dropout", [&](auto on) {
      using T = typename decltype(on)::Value;
      kernels::Dropout<T> args;
      args.y = to.rows<T>();
      args.x = ready.rows<T>();
      args.record = records.view<int64_t, 1>();
      args.position = positions.view<int64_t, 1>();
      args.key = key;
      args.rate = static_cast<float>(rate);
      BLOCKSTATE_KERNEL(on, dropout, args);
    });
    return to;
  };
  return record_one("dropout", apply(x.value()), {x},
                    [apply](const Tensor& dy) { return std::vector<Tensor>{apply(dy)}; });
}

}  // namespace blockstate::ops
