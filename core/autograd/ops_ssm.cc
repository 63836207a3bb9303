// SPDX-License-Identifier: Apache-2.0
#include "core/autograd/kept.h"
#include "core/autograd/ops.h"
#include "core/autograd/ops_support.h"
#include "core/base/profile.h"
#include "kernels/causal_conv1d.h"
#include "kernels/diagonal_scan.h"
#include "kernels/selective_scan.h"

namespace blockstate::ops {
namespace {

thread_local bool states_in_place = false;

int64_t pieces(int64_t length, int64_t piece) { return (length + piece - 1) / piece; }

}  // namespace

Tensor state_place(const Tensor& initial, const Shape& shape, DType dtype, Device device) {
  const bool over = states_in_place && !grad_enabled() && initial.defined() && initial.contiguous() &&
                    initial.shape() == shape && initial.dtype() == dtype;
  return over ? initial : Tensor::empty(shape, dtype, device);
}

StatesInPlace::StatesInPlace() : previous_(states_in_place) { states_in_place = true; }
StatesInPlace::~StatesInPlace() { states_in_place = previous_; }

WithState causal_conv1d(const Variable& x, const Variable& weight, const Variable& bias, const Variable& initial,
                        const Tensor& position, bool silu, bool want_state) {
  const Tensor input = rows_ready(x.value());
  const int64_t K = weight.size(1);
  require(weight.size(0) == input.size(2), "causal_conv1d: input of shape ", shape_text(x.shape()),
          " but weight of shape ", shape_text(weight.shape()));
  Tensor y = empty_like(input);
  Tensor final;
  if (want_state) {
    final = state_place(initial.value(), {input.size(0), K - 1, input.size(2)}, input.dtype(), input.device());
  }
  dispatch(input, "causal_conv1d", [&](auto on) {
    using T = typename decltype(on)::Value;
    using P = typename decltype(on)::Parameter;
    kernels::CausalConv1dForward<T, P> args;
    args.y = y.view<T, 3>();
    args.final = final.view<T, 3>();
    args.x = input.view<T, 3>();
    args.weight = weight.value().view<P, 2>();
    args.bias = bias.value().view<P, 1>();
    args.initial = initial.value().view<T, 3>();
    args.position = position.view<int64_t, 2>();
    args.silu = silu;
    BLOCKSTATE_KERNEL(on, causal_conv1d_forward, args);
  });
  auto outputs =
      record("causal_conv1d", {y, final}, {x, weight, bias, initial},
             [input, w = weight.value(), b = bias.value(), w_leaf = leaf_edge(weight), b_leaf = leaf_edge(bias),
              start = initial.value(), position, silu](const std::vector<Tensor>& grads) {
               Tensor dx = empty_like(input);
               const GradSum dw(w_leaf, w), db(b_leaf, b);
               Tensor dstart = start.defined() ? empty_like(start) : Tensor();
               const Tensor dy = rows_ready(or_zeros(grads[0], input.shape(), input));
               const Tensor dfinal = rows_ready(grads[1]);
               dispatch(input, "causal_conv1d", [&](auto on) {
                 using T = typename decltype(on)::Value;
                 using P = typename decltype(on)::Parameter;
                 kernels::CausalConv1dBackward<T, P> args;
                 args.dx = dx.view<T, 3>();
                 args.dweight = dw->view<P, 2>();
                 args.dbias = db->view<P, 1>();
                 args.dinitial = dstart.view<T, 3>();
                 args.dy = dy.view<T, 3>();
                 args.dfinal = dfinal.view<T, 3>();
                 args.x = input.view<T, 3>();
                 args.weight = w.view<P, 2>();
                 args.bias = b.view<P, 1>();
                 args.initial = start.view<T, 3>();
                 args.position = position.view<int64_t, 2>();
                 args.silu = silu;
                 BLOCKSTATE_KERNEL(on, causal_conv1d_backward, args);
               });
               return std::vector<Tensor>{dx, dw.rest(), db.rest(), dstart};
             });
  return {outputs[0], outputs[1]};
}

namespace {

/// The tensors behind SelectiveScanInputs, in the form the kernel and its backward share.
struct ScanTensors {
  Tensor u, delta, A, B, C, D, z, delta_bias, initial, checkpoint, position;
  std::shared_ptr<Edge> A_leaf, D_leaf, bias_leaf;

  template <class T, class P>
  kernels::SelectiveScanForward<T, P> args() const {
    kernels::SelectiveScanForward<T, P> args;
    args.checkpoint = checkpoint.view<P, 4>();
    args.u = u.view<T, 3>();
    args.delta = delta.view<T, 3>();
    args.A = A.view<P, 2>();
    args.B = B.view<T, 3>();
    args.C = C.view<T, 3>();
    args.D = D.view<P, 1>();
    args.z = z.view<T, 3>();
    args.delta_bias = delta_bias.view<P, 1>();
    args.initial = initial.view<P, 3>();
    args.position = position.view<int64_t, 2>();
    return args;
  }
};

std::vector<Tensor> selective_scan_backward(const ScanTensors& saved, const std::vector<Tensor>& grads) {
  Tensor du = empty_like(saved.u);
  Tensor ddelta = empty_like(saved.delta);
  const GradSum dA(saved.A_leaf, saved.A), dD(saved.D_leaf, saved.D), dbias(saved.bias_leaf, saved.delta_bias);
  Tensor dB = empty_like(saved.B);
  Tensor dC = empty_like(saved.C);
  Tensor dz = saved.z.defined() ? empty_like(saved.z) : Tensor();
  Tensor dinitial = saved.initial.defined() ? empty_like(saved.initial) : Tensor();
  const Tensor dy = rows_ready(or_zeros(grads[0], saved.u.shape(), saved.u));
  const Tensor dfinal = rows_ready(grads[1]);
  dispatch(saved.u, "selective_scan", [&](auto on) {
    using T = typename decltype(on)::Value;
    using P = typename decltype(on)::Parameter;
    kernels::SelectiveScanBackward<T, P> args;
    args.du = du.view<T, 3>();
    args.ddelta = ddelta.view<T, 3>();
    args.dA = dA->view<P, 2>();
    args.dB = dB.view<T, 3>();
    args.dC = dC.view<T, 3>();
    args.dD = dD->view<P, 1>();
    args.dz = dz.view<T, 3>();
    args.ddelta_bias = dbias->view<P, 1>();
    args.dinitial = dinitial.view<P, 3>();
    args.dy = dy.view<T, 3>();
    args.dfinal = dfinal.view<P, 3>();
    args.forward = saved.args<T, P>();
    BLOCKSTATE_KERNEL(on, selective_scan_backward, args);
    profile::add_flops(static_cast<double>(saved.u.elements()) * 20.0 * static_cast<double>(saved.A.size(1)));
  });
  return {du, ddelta, dA.rest(), dB, dC, dD.rest(), dz, dbias.rest(), dinitial};
}

}  // namespace

WithState selective_scan(const SelectiveScanInputs& in, const Tensor& position, bool want_state) {
  ScanTensors saved{rows_ready(in.u.value()),
                    rows_ready(in.delta.value()),
                    in.A.value(),
                    rows_ready(in.B.value()),
                    rows_ready(in.C.value()),
                    in.D.value(),
                    rows_ready(in.z.value()),
                    in.delta_bias.value(),
                    in.initial.value(),
                    Tensor(),
                    position,
                    leaf_edge(in.A),
                    leaf_edge(in.D),
                    leaf_edge(in.delta_bias)};
  const int64_t B = in.u.size(0), L = in.u.size(1), D = in.u.size(2), N = in.A.size(1);
  require(in.A.size(0) == D && in.B.size(2) == N && in.C.size(2) == N && in.delta.shape() == in.u.shape(),
          "selective_scan: u ", shape_text(in.u.shape()), ", delta ", shape_text(in.delta.shape()), ", A ",
          shape_text(in.A.shape()), ", B ", shape_text(in.B.shape()), " and C ", shape_text(in.C.shape()),
          " do not fit together");
  const Tensor& like = in.u.value();
  const DType exact = state_dtype(like.dtype());
  const int64_t every =
      like.device().kind == DeviceKind::kCuda ? kernels::cuda::kScanCheckpoint : kernels::kScanCheckpoint;
  const Shape checkpoint_shape = {B, pieces(L, every), D, N};
  // A long row's segments begin with states that take half the time to find and little room.
  const int64_t segments = like.device().kind == DeviceKind::kCuda
                               ? kernels::cuda::scan_segments(kernels::cuda::exec(like.device().index), B, L, D)
                               : 1;
  const Shape entry_shape = {segments, B, D, N};
  Tensor y, final, entry;
  take_kept("selective_scan", {&y, &final, &saved.checkpoint, &entry});
  const bool entry_known = entry.defined();
  const int64_t little = segments > 1 ? element_count(entry_shape) * dtype_size(exact) : 0;
  const Keeping keep = room_to_keep(
      B * L * D * dtype_size(like.dtype()) + (element_count(checkpoint_shape) + B * D * N) * dtype_size(exact), little);
  if (!y.defined()) {
    if (keep == Keeping::kLittle && !entry_known) {
      entry = Tensor::empty(entry_shape, exact, like.device());
    }
    y = Tensor::empty(in.u.shape(), like.dtype(), like.device());
    final = want_state ? state_place(in.initial.value(), {B, D, N}, exact, like.device()) : Tensor();
    if (grad_enabled() || will_repeat()) {
      saved.checkpoint = Tensor::empty(checkpoint_shape, exact, like.device());
    }
    dispatch(like, "selective_scan", [&](auto on) {
      using T = typename decltype(on)::Value;
      using P = typename decltype(on)::Parameter;
      auto args = saved.args<T, P>();
      args.y = y.view<T, 3>();
      args.final = final.view<P, 3>();
      args.entry = entry.view<P, 4>();
      args.entry_known = entry_known;
      BLOCKSTATE_KERNEL(on, selective_scan_forward, args);
      // A state's step: decay exponent, input, state, output; the exponential counts as one.
      profile::add_flops(static_cast<double>(saved.u.elements()) * 7.0 * static_cast<double>(N));
    });
  }
  keep_outputs("selective_scan", keep == Keeping::kAll      ? std::vector<Tensor>{y, final, saved.checkpoint, Tensor()}
                                 : keep == Keeping::kLittle ? std::vector<Tensor>{Tensor(), Tensor(), Tensor(), entry}
                                                            : std::vector<Tensor>());
  auto outputs =
      record("selective_scan", {y, final}, {in.u, in.delta, in.A, in.B, in.C, in.D, in.z, in.delta_bias, in.initial},
             [saved](const std::vector<Tensor>& grads) { return selective_scan_backward(saved, grads); });
  return {outputs[0], outputs[1]};
}

WithState diagonal_scan(const Variable& u, const Variable& a, const Variable& c, const Variable& D,
                        const Variable& initial, const Tensor& position, bool want_state) {
  const Tensor input = rows_ready(u.value());
  const int64_t B = u.size(0), L = u.size(1), width = u.size(2), states = a.size(1);
  require(a.size(0) == width && a.shape() == c.shape(), "diagonal_scan: u ", shape_text(u.shape()), ", a ",
          shape_text(a.shape()), " and c ", shape_text(c.shape()), " do not fit together");
  const DType exact = state_dtype(input.dtype());
  const bool cuda = input.device().kind == DeviceKind::kCuda;
  const int64_t every = cuda ? kernels::cuda::kDiagonalCheckpoint : kernels::kDiagonalCheckpoint;
  const Shape checkpoint_shape = {B, pieces(L, every), states, 2, width};
  Tensor y, final, checkpoint;
  const bool taken = take_kept("diagonal_scan", {&y, &final, &checkpoint});
  const bool keep =
      room_to_keep(B * L * width * dtype_size(input.dtype()) +
                   (element_count(checkpoint_shape) + 2 * B * width * states) * dtype_size(exact)) == Keeping::kAll;
  if (!taken) {
    y = Tensor::empty(u.shape(), input.dtype(), input.device());
    final = want_state ? state_place(initial.value(), {B, width, states, 2}, exact, input.device()) : Tensor();
    if (grad_enabled() || will_repeat()) {
      checkpoint = Tensor::empty(checkpoint_shape, exact, input.device());
    }
  }
  const auto inputs = [input, checkpoint, position, decay = a.value(), out = c.value(), skip = D.value(),
                       start = initial.value()](auto on) {
    using T = typename decltype(on)::Value;
    using P = typename decltype(on)::Parameter;
    kernels::DiagonalScanForward<T, P> args;
    args.checkpoint = checkpoint.view<P, 5>();
    args.u = input.view<T, 3>();
    args.a = decay.view<P, 3>();
    args.c = out.view<P, 3>();
    args.D = skip.view<P, 1>();
    args.initial = start.view<P, 4>();
    args.position = position.view<int64_t, 2>();
    return args;
  };
  if (!taken) {
    dispatch(input, "diagonal_scan", [&](auto on) {
      auto args = inputs(on);
      args.y = y.view<typename decltype(on)::Value, 3>();
      args.final = final.view<typename decltype(on)::Parameter, 4>();
      BLOCKSTATE_KERNEL(on, diagonal_scan_forward, args);
      profile::add_flops(static_cast<double>(input.elements()) * 12.0 * static_cast<double>(states));
    });
  }
  keep_outputs("diagonal_scan", keep ? std::vector<Tensor>{y, final, checkpoint} : std::vector<Tensor>());
  auto outputs = record("diagonal_scan", {y, final}, {u, a, c, D, initial},
                        [inputs, input, decay = a.value(), skip = D.value(), skip_leaf = leaf_edge(D),
                         start = initial.value()](const std::vector<Tensor>& grads) {
                          Tensor du = empty_like(input);
                          Tensor da = zeros_like(decay);
                          Tensor dc = zeros_like(decay);
                          const GradSum dD(skip_leaf, skip);
                          Tensor dinitial = start.defined() ? empty_like(start) : Tensor();
                          const Tensor dy = rows_ready(or_zeros(grads[0], input.shape(), input));
                          const Tensor dfinal = rows_ready(grads[1]);
                          dispatch(input, "diagonal_scan", [&](auto on) {
                            using T = typename decltype(on)::Value;
                            using P = typename decltype(on)::Parameter;
                            kernels::DiagonalScanBackward<T, P> args;
                            args.du = du.view<T, 3>();
                            args.da = da.view<P, 3>();
                            args.dc = dc.view<P, 3>();
                            args.dD = dD->view<P, 1>();
                            args.dinitial = dinitial.view<P, 4>();
                            args.dy = dy.view<T, 3>();
                            args.dfinal = dfinal.view<P, 4>();
                            args.forward = inputs(on);
                            BLOCKSTATE_KERNEL(on, diagonal_scan_backward, args);
                          });
                          return std::vector<Tensor>{du, da, dc, dD.rest(), dinitial};
                        });
  return {outputs[0], outputs[1]};
}

Discretized s4d_discretize(const Variable& log_dt, const Variable& log_real, const Variable& imaginary,
                           const Variable& B, const Variable& C) {
  Tensor a = empty_like(C.value());
  Tensor c = empty_like(C.value());
  const auto inputs = [dt = log_dt.value(), real = log_real.value(), imag = imaginary.value(), b = B.value(),
                       out = C.value()](auto on) {
    using T = typename decltype(on)::Value;
    kernels::S4dDiscretize<T> args;
    args.log_dt = dt.view<T, 1>();
    args.log_real = real.view<T, 2>();
    args.imaginary = imag.view<T, 2>();
    args.B = b.view<T, 3>();
    args.C = out.view<T, 3>();
    return args;
  };
  dispatch_exact(C.value(), "s4d_discretize", [&](auto on) {
    using T = typename decltype(on)::Value;
    auto args = inputs(on);
    args.a = a.view<T, 3>();
    args.c = c.view<T, 3>();
    BLOCKSTATE_KERNEL(on, s4d_discretize, args);
  });
  auto outputs = record("s4d_discretize", {a, c}, {log_dt, log_real, imaginary, B, C},
                        [inputs, dt = log_dt.value(), real = log_real.value(), b = B.value(),
                         like = C.value()](const std::vector<Tensor>& grads) {
                          Tensor ddt = zeros_like(dt), dreal = zeros_like(real), dimag = zeros_like(real);
                          Tensor dB = zeros_like(b), dC = zeros_like(like);
                          const Tensor da = or_zeros(grads[0], like.shape(), like);
                          const Tensor dc = or_zeros(grads[1], like.shape(), like);
                          dispatch_exact(like, "s4d_discretize", [&](auto on) {
                            using T = typename decltype(on)::Value;
                            kernels::S4dDiscretizeBackward<T> args;
                            args.dlog_dt = ddt.view<T, 1>();
                            args.dlog_real = dreal.view<T, 2>();
                            args.dimaginary = dimag.view<T, 2>();
                            args.dB = dB.view<T, 3>();
                            args.dC = dC.view<T, 3>();
                            args.da = da.view<T, 3>();
                            args.dc = dc.view<T, 3>();
                            args.forward = inputs(on);
                            BLOCKSTATE_KERNEL(on, s4d_discretize_backward, args);
                          });
                          return std::vector<Tensor>{ddt, dreal, dimag, dB, dC};
                        });
  return {outputs[0], outputs[1]};
}

}  // namespace blockstate::ops
