// SPDX-License-Identifier: Apache-2.0
#include "core/autograd/ops.h"
#include "core/autograd/ops_support.h"
#include "kernels/norm.h"

namespace blockstate::ops {

namespace {

/// Calls body(on, X{}, H{}) with the types of norm.h: y's is on's, X that of x, H that of the residual stream.
template <class Body>
void dispatch_norm(Device device, DType y, DType x, bool has_residual, const Body& body) {
  dispatch(device, y, "norm", [&](auto on) {
    using T = typename decltype(on)::Value;
    using P = typename decltype(on)::Parameter;
    if constexpr (std::is_same_v<T, P>) {
      body(on, T{}, T{});
    } else if (x == kDTypeOf<P>) {
      require(!has_residual, "norm: a branch of type float32 in a bfloat16 model");
      body(on, P{}, P{});
    } else if (has_residual) {
      body(on, T{}, P{});
    } else {
      body(on, T{}, T{});
    }
  });
}

template <class X, class H, class On, class Args>
void run_forward(On on, const Args& args) {
  if constexpr (On::kCuda) {
    kernels::cuda::norm_forward<typename On::Value, X, H>(on.exec, args);
  } else {
    kernels::cpu::norm_forward<X>(args);
  }
}

template <class X, class H, class On, class Args>
void run_backward(On on, const Args& args) {
  if constexpr (On::kCuda) {
    kernels::cuda::norm_backward<typename On::Value, X, H>(on.exec, args);
  } else {
    kernels::cpu::norm_backward<X>(args);
  }
}

}  // namespace

Normed norm(const Variable& x, const Variable& residual, const Variable& weight, const Variable& bias, bool layer,
            double epsilon, DType dtype) {
  require(x.size(-1) == weight.size(0), "norm: input of shape ", shape_text(x.shape()), " but weight of shape ",
          shape_text(weight.shape()));
  const Tensor input = rows_ready(x.value()), added = rows_ready(residual.value());
  const int64_t rows = input.elements() / std::max<int64_t>(1, input.size(-1));
  Tensor y = Tensor::empty(input.shape(), dtype, input.device());
  Tensor h = residual.defined() ? empty_like(added) : input;
  Tensor reciprocal = Tensor::empty({rows}, weight.dtype(), input.device());
  Tensor mean = layer ? Tensor::empty({rows}, weight.dtype(), input.device()) : Tensor();
  dispatch_norm(input.device(), dtype, input.dtype(), residual.defined(), [&](auto on, auto type_of_x, auto type_of_h) {
    using T = typename decltype(on)::Value;
    using P = typename decltype(on)::Parameter;
    using X = decltype(type_of_x);
    using H = decltype(type_of_h);
    kernels::NormForward<T, X, H, P> args;
    args.y = y.rows<T>();
    args.h = residual.defined() ? h.rows<H>() : View<H, 2>();
    args.mean = mean.view<P, 1>();
    args.reciprocal = reciprocal.view<P, 1>();
    args.x = input.rows<X>();
    args.residual = added.rows<H>();
    args.weight = weight.value().view<P, 1>();
    args.bias = bias.value().view<P, 1>();
    args.epsilon = static_cast<P>(epsilon);
    run_forward<X, H>(on, args);
  });
  auto outputs = record(
      "norm", {y, h}, {x, residual, weight, bias},
      [h, mean, reciprocal, w = weight.value(), w_leaf = leaf_edge(weight), b_leaf = leaf_edge(bias), dtype,
       type_x = input.dtype(), has_residual = residual.defined(),
       has_bias = bias.defined()](const std::vector<Tensor>& grads) {
        Tensor dh = empty_like(h);
        // One gradient serves both, unless the branch is of another type than the stream.
        Tensor dx = type_x == h.dtype() ? Tensor() : Tensor::empty(h.shape(), type_x, h.device());
        const GradSum dweight(w_leaf, w), dbias(b_leaf, has_bias ? w : Tensor());
        const Tensor dy = rows_ready(grads[0].defined() ? grads[0] : Tensor::zeros(h.shape(), dtype, h.device()));
        const Tensor dh_out = rows_ready(grads[1]);
        dispatch_norm(h.device(), dtype, type_x, has_residual, [&](auto on, auto type_of_x, auto type_of_h) {
          using T = typename decltype(on)::Value;
          using P = typename decltype(on)::Parameter;
          using X = decltype(type_of_x);
          using H = decltype(type_of_h);
          kernels::NormBackward<T, X, H, P> args;
          args.dh = dh.rows<H>();
          args.dx = dx.rows<X>();
          args.dweight = dweight->view<P, 1>();
          args.dbias = dbias->view<P, 1>();
          args.dy = dy.rows<T>();
          args.dh_out = dh_out.rows<H>();
          args.h = h.rows<H>();
          args.mean = mean.view<P, 1>();
          args.reciprocal = reciprocal.view<P, 1>();
          args.weight = w.view<P, 1>();
          run_backward<X, H>(on, args);
        });
        return std::vector<Tensor>{dx.defined() ? dx : dh, has_residual ? dh : Tensor(), dweight.rest(), dbias.rest()};
      });
  return {outputs[0], outputs[1]};
}

}  // namespace blockstate::ops
