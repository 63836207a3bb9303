// SPDX-License-Identifier: Apache-2.0
// Ops of one step, for generation: several that follow each other as one, without a backward.
#include "core/autograd/ops.h"
#include "core/autograd/ops_support.h"
#include "core/base/profile.h"
#include "kernels/projected_conv_step.h"
#include "kernels/selective_scan_step.h"

namespace blockstate::ops {

ProjectedConv projected_conv_step(const Variable& x, const Variable& weight, const Variable& conv_weight,
                                  const Variable& conv_bias, const Variable& initial, const Tensor& position, bool silu,
                                  bool want_state) {
  require(!grad_enabled(), "projected_conv_step has no backward");
  const Tensor input = rows_ready(x.value());
  const Tensor factor = rounded_value(weight, x.dtype());
  const int64_t B = x.size(0), D = conv_weight.size(0), C = weight.size(0);
  require(x.size(1) == 1 && x.size(2) == weight.size(1) && D <= C, "projected_conv_step: input of shape ",
          shape_text(x.shape()), ", a projection of shape ", shape_text(weight.shape()), ", a convolution of shape ",
          shape_text(conv_weight.shape()));
  Tensor p = Tensor::empty({B, 1, C}, input.dtype(), input.device());
  Tensor y = Tensor::empty({B, 1, D}, input.dtype(), input.device());
  Tensor final;
  if (want_state) {
    final = state_place(initial.value(), {B, conv_weight.size(1) - 1, D}, input.dtype(), input.device());
  }
  dispatch(input, "projected_conv_step", [&](auto on) {
    using T = typename decltype(on)::Value;
    using P = typename decltype(on)::Parameter;
    kernels::ProjectedConvStep<T, P> args;
    args.p = p.rows<T>();
    args.input = input.rows<T>();
    args.weight = factor.view<T, 2>();
    args.conv.y = y.view<T, 3>();
    args.conv.final = final.view<T, 3>();
    args.conv.weight = conv_weight.value().view<P, 2>();
    args.conv.bias = conv_bias.value().view<P, 1>();
    args.conv.initial = initial.value().view<T, 3>();
    args.conv.position = position.view<int64_t, 2>();
    args.conv.silu = silu;
    BLOCKSTATE_KERNEL(on, projected_conv_step, args);
    profile::add_flops(2.0 * static_cast<double>(B * C * weight.size(1)));
  });
  auto outputs =
      record("projected_conv_step", {y, final, p.slice(-1, D, C)}, {x, weight, conv_weight, conv_bias, initial}, {});
  return {{outputs[0], outputs[1]}, outputs[2]};
}

WithState selective_scan_step(const SelectiveScanInputs& in, const Variable& delta_weight, const Tensor& position,
                              bool want_state) {
  require(!grad_enabled(), "selective_scan_step has no backward");
  const Tensor u = rows_ready(in.u.value()), z = rows_ready(in.z.value());
  const Tensor B = rows_ready(in.B.value()), C = rows_ready(in.C.value());
  const Tensor low = rows_ready(in.delta.value());
  const Tensor weight = rounded_value(delta_weight, low.dtype());
  Tensor y = Tensor::empty(in.u.shape(), u.dtype(), u.device());
  Tensor final;
  if (want_state) {
    final =
        state_place(in.initial.value(), {in.u.size(0), in.A.size(0), in.A.size(1)}, state_dtype(u.dtype()), y.device());
  }
  dispatch(u, "selective_scan_step", [&](auto on) {
    using T = typename decltype(on)::Value;
    using P = typename decltype(on)::Parameter;
    kernels::SelectiveScanStep<T, P> args;
    args.scan.y = y.view<T, 3>();
    args.scan.final = final.view<P, 3>();
    args.scan.u = u.view<T, 3>();
    args.scan.A = in.A.value().view<P, 2>();
    args.scan.B = B.view<T, 3>();
    args.scan.C = C.view<T, 3>();
    args.scan.D = in.D.value().view<P, 1>();
    args.scan.z = z.view<T, 3>();
    args.scan.delta_bias = in.delta_bias.value().view<P, 1>();
    args.scan.initial = in.initial.value().view<P, 3>();
    args.scan.position = position.view<int64_t, 2>();
    args.low = low.rows<T>();
    args.delta_weight = weight.view<T, 2>();
    BLOCKSTATE_KERNEL(on, selective_scan_step, args);
    profile::add_flops(static_cast<double>(u.elements()) * static_cast<double>(7 * in.A.size(1) + 2 * low.size(-1)));
  });
  auto outputs = record("selective_scan_step", {y, final},
                        {in.u, in.delta, in.A, in.B, in.C, in.D, in.z, in.delta_bias, in.initial, delta_weight}, {});
  return {outputs[0], outputs[1]};
}

}  // namespace blockstate::ops
