// SPDX-License-Identifier: Apache-2.0
#include "core/autograd/ops.h"
#include "core/autograd/ops_support.h"
#include "kernels/norm.h"

namespace blockstate::ops {

Normed norm(const Variable& x, const Variable& residual, const Variable& weight, const Variable& bias, bool layer,
            double epsilon) {
  require(x.size(-1) == weight.size(0), "norm: input of shape ", shape_text(x.shape()), " but weight of shape ",
          shape_text(weight.shape()));
  const Tensor input = rows_ready(x.value()), added = rows_ready(residual.value());
  const int64_t rows = input.elements() / std::max<int64_t>(1, input.size(-1));
  Tensor y = empty_like(input);
  Tensor h = residual.defined() ? empty_like(input) : input;
  Tensor reciprocal = Tensor::empty({rows}, input.dtype(), input.device());
  Tensor mean = layer ? Tensor::empty({rows}, input.dtype(), input.device()) : Tensor();
  dispatch_float(input.dtype(), "norm", [&](auto type) {
    using T = decltype(type);
    kernels::NormForward<T> args;
    args.y = y.rows<T>();
    args.h = residual.defined() ? h.rows<T>() : View<T, 2>();
    args.mean = mean.view<T, 1>();
    args.reciprocal = reciprocal.view<T, 1>();
    args.x = input.rows<T>();
    args.residual = added.rows<T>();
    args.weight = weight.value().view<T, 1>();
    args.bias = bias.value().view<T, 1>();
    args.epsilon = static_cast<T>(epsilon);
    kernels::cpu::norm_forward<T>(args);
  });
  auto outputs = record("norm", {y, h}, {x, residual, weight, bias},
                        [h, mean, reciprocal, w = weight.value(), has_residual = residual.defined(),
                         has_bias = bias.defined()](const std::vector<Tensor>& grads) {
                          Tensor dh = empty_like(h);
                          Tensor dweight = zeros_like(w);
                          Tensor dbias = has_bias ? zeros_like(w) : Tensor();
                          const Tensor dy = rows_ready(or_zeros(grads[0], h.shape(), h));
                          const Tensor dh_out = rows_ready(grads[1]);
                          dispatch_float(h.dtype(), "norm", [&](auto type) {
                            using T = decltype(type);
                            kernels::NormBackward<T> args;
                            args.dh = dh.rows<T>();
                            args.dweight = dweight.view<T, 1>();
                            args.dbias = dbias.view<T, 1>();
                            args.dy = dy.rows<T>();
                            args.dh_out = dh_out.rows<T>();
                            args.h = h.rows<T>();
                            args.mean = mean.view<T, 1>();
                            args.reciprocal = reciprocal.view<T, 1>();
                            args.weight = w.view<T, 1>();
                            kernels::cpu::norm_backward<T>(args);
                          });
                          return std::vector<Tensor>{dh, has_residual ? dh : Tensor(), dweight, dbias};
                        });
  return {outputs[0], outputs[1]};
}

}  // namespace blockstate::ops
