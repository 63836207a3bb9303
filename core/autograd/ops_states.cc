// SPDX-License-Identifier: Apache-2.0
// States of a scan at the ends of windows, and what is read out of them.
#include "core/autograd/kept.h"
#include "core/autograd/ops.h"
#include "core/autograd/ops_support.h"
#include "core/base/profile.h"
#include "kernels/diagonal_scan_states.h"
#include "kernels/selective_scan_states.h"
#include "kernels/state_readout.h"

namespace blockstate::ops {
namespace {

Tensor packed(const Tensor& tensor) { return tensor.defined() ? tensor.packed() : tensor; }

}  // namespace

States selective_scan_states(const SelectiveScanInputs& in, const Tensor& position, int64_t first, int64_t window) {
  const int64_t B = in.u.size(0), L = in.u.size(1), D = in.u.size(2), N = in.A.size(1);
  require(in.A.size(0) == D && in.B.size(2) == N && in.delta.shape() == in.u.shape(), "selective_scan_states: u ",
          shape_text(in.u.shape()), ", delta ", shape_text(in.delta.shape()), ", A ", shape_text(in.A.shape()),
          " and B ", shape_text(in.B.shape()), " do not fit together");
  const kernels::ScanWindows windows{first, window, L};
  const Tensor u = rows_ready(in.u.value()), delta = rows_ready(in.delta.value()), b = rows_ready(in.B.value());
  const Tensor start = packed(in.initial.value());
  const Device device = u.device();
  const DType exact = state_dtype(u.dtype());
  const bool cuda = device.kind == DeviceKind::kCuda;
  const int64_t every = cuda ? kernels::cuda::kScanCheckpoint : kernels::kScanCheckpoint;
  const int64_t saved_states = windows.count() * (windows.checkpoints(every) + (cuda ? 1 : 0));
  Tensor at_ends, final, checkpoint, decay;
  const bool taken = take_kept("selective_scan_states", {&at_ends, &final, &checkpoint, &decay});
  const int64_t bytes = (windows.finished() + 1 + saved_states) * B * D * N * dtype_size(exact);
  const bool keep = room_to_keep(bytes, bytes) == Keeping::kAll;
  if (!taken) {
    at_ends = Tensor::empty({B, windows.finished(), D, N}, exact, device);
    final = Tensor::empty({B, D, N}, exact, device);
    if (grad_enabled() || will_repeat()) {
      checkpoint = Tensor::empty({B, windows.count(), windows.checkpoints(every), D, N}, exact, device);
      decay = cuda ? Tensor::empty({B, windows.count(), D, N}, exact, device) : Tensor();
    }
  }
  const auto inputs = [windows, u, delta, b, checkpoint, decay, position, A = in.A.value(),
                       bias = in.delta_bias.value(), start](auto on) {
    using T = typename decltype(on)::Value;
    using P = typename decltype(on)::Parameter;
    kernels::SelectiveScanStatesForward<T, P> args;
    args.windows = windows;
    args.checkpoint = checkpoint.view<P, 5>();
    args.decay = decay.view<P, 4>();
    args.u = u.view<T, 3>();
    args.delta = delta.view<T, 3>();
    args.A = A.view<P, 2>();
    args.B = b.view<T, 3>();
    args.delta_bias = bias.view<P, 1>();
    args.initial = start.view<P, 3>();
    args.position = position.view<int64_t, 2>();
    return args;
  };
  if (!taken) {
    dispatch(u, "selective_scan_states", [&](auto on) {
      auto args = inputs(on);
      args.states = at_ends.view<typename decltype(on)::Parameter, 4>();
      args.final = final.view<typename decltype(on)::Parameter, 3>();
      BLOCKSTATE_KERNEL(on, selective_scan_states_forward, args);
      profile::add_flops(static_cast<double>(u.elements()) * 5.0 * static_cast<double>(N));
    });
  }
  keep_outputs("selective_scan_states",
               keep ? std::vector<Tensor>{at_ends, final, checkpoint, decay} : std::vector<Tensor>());
  auto outputs = record(
      "selective_scan_states", {at_ends, final}, {in.u, in.delta, in.A, in.B, in.delta_bias, in.initial},
      [inputs, u, delta, b, A = in.A.value(), bias = in.delta_bias.value(), start](const std::vector<Tensor>& grads) {
        Tensor du = empty_like(u), ddelta = empty_like(delta), dB = empty_like(b);
        Tensor dA = zeros_like(A), dbias = zeros_like(bias);
        Tensor dinitial = start.defined() ? empty_like(start) : Tensor();
        const Tensor dstates = packed(grads[0]), dfinal = packed(grads[1]);
        dispatch(u, "selective_scan_states", [&](auto on) {
          using T = typename decltype(on)::Value;
          using P = typename decltype(on)::Parameter;
          kernels::SelectiveScanStatesBackward<T, P> args;
          args.du = du.view<T, 3>();
          args.ddelta = ddelta.view<T, 3>();
          args.dA = dA.view<P, 2>();
          args.dB = dB.view<T, 3>();
          args.ddelta_bias = dbias.view<P, 1>();
          args.dinitial = dinitial.view<P, 3>();
          args.dstates = dstates.view<P, 4>();
          args.dfinal = dfinal.view<P, 3>();
          args.forward = inputs(on);
          BLOCKSTATE_KERNEL(on, selective_scan_states_backward, args);
          profile::add_flops(static_cast<double>(u.elements()) * 16.0 * static_cast<double>(A.size(1)));
        });
        return std::vector<Tensor>{du, ddelta, dA, dB, dbias, dinitial};
      });
  return {outputs[0], outputs[1]};
}

States diagonal_scan_states(const Variable& u, const Variable& a, const Variable& initial, const Tensor& position,
                            int64_t first, int64_t window) {
  const Tensor input = rows_ready(u.value()), start = packed(initial.value());
  const int64_t B = u.size(0), L = u.size(1), width = u.size(2), states = a.size(1);
  require(a.size(0) == width, "diagonal_scan_states: u ", shape_text(u.shape()), " and a ", shape_text(a.shape()),
          " do not fit together");
  const kernels::ScanWindows windows{first, window, L};
  const Device device = input.device();
  const DType exact = state_dtype(input.dtype());
  const bool cuda = device.kind == DeviceKind::kCuda;
  const int64_t every = cuda ? kernels::cuda::kDiagonalCheckpoint : kernels::kDiagonalCheckpoint;
  const int64_t saved_states = windows.count() * windows.checkpoints(every);
  Tensor at_ends, final, checkpoint;
  const bool taken = take_kept("diagonal_scan_states", {&at_ends, &final, &checkpoint});
  const int64_t bytes = (windows.finished() + 1 + saved_states) * 2 * B * width * states * dtype_size(exact);
  const bool keep = room_to_keep(bytes, bytes) == Keeping::kAll;
  if (!taken) {
    at_ends = Tensor::empty({B, windows.finished(), width, states, 2}, exact, device);
    final = Tensor::empty({B, width, states, 2}, exact, device);
    if (grad_enabled() || will_repeat()) {
      checkpoint = Tensor::empty({B, windows.count(), windows.checkpoints(every), states, 2, width}, exact, device);
    }
  }
  const auto inputs = [windows, input, start, checkpoint, position, decay = a.value()](auto on) {
    using T = typename decltype(on)::Value;
    using P = typename decltype(on)::Parameter;
    kernels::DiagonalScanStatesForward<T, P> args;
    args.windows = windows;
    args.checkpoint = checkpoint.view<P, 6>();
    args.u = input.view<T, 3>();
    args.a = decay.view<P, 3>();
    args.initial = start.view<P, 4>();
    args.position = position.view<int64_t, 2>();
    return args;
  };
  if (!taken) {
    dispatch(input, "diagonal_scan_states", [&](auto on) {
      auto args = inputs(on);
      args.states = at_ends.view<typename decltype(on)::Parameter, 5>();
      args.final = final.view<typename decltype(on)::Parameter, 4>();
      BLOCKSTATE_KERNEL(on, diagonal_scan_states_forward, args);
      profile::add_flops(static_cast<double>(input.elements()) * 8.0 * static_cast<double>(states));
    });
  }
  keep_outputs("diagonal_scan_states", keep ? std::vector<Tensor>{at_ends, final, checkpoint} : std::vector<Tensor>());
  auto outputs = record("diagonal_scan_states", {at_ends, final}, {u, a, initial},
                        [inputs, input, start, decay = a.value()](const std::vector<Tensor>& grads) {
                          Tensor du = empty_like(input), da = zeros_like(decay);
                          Tensor dinitial = start.defined() ? empty_like(start) : Tensor();
                          const Tensor dstates = packed(grads[0]), dfinal = packed(grads[1]);
                          dispatch(input, "diagonal_scan_states", [&](auto on) {
                            using T = typename decltype(on)::Value;
                            using P = typename decltype(on)::Parameter;
                            kernels::DiagonalScanStatesBackward<T, P> args;
                            args.du = du.view<T, 3>();
                            args.da = da.view<P, 3>();
                            args.dinitial = dinitial.view<P, 4>();
                            args.dstates = dstates.view<P, 5>();
                            args.dfinal = dfinal.view<P, 4>();
                            args.forward = inputs(on);
                            BLOCKSTATE_KERNEL(on, diagonal_scan_states_backward, args);
                          });
                          return std::vector<Tensor>{du, da, dinitial};
                        });
  return {outputs[0], outputs[1]};
}

Variable state_readout(const Variable& state, const Variable& weight) {
  const Tensor h = state.value().packed();
  require(h.rank() == 3 && weight.value().rank() == 3 && h.size(1) == weight.size(1) && h.size(2) == weight.size(2),
          "state_readout: state of shape ", shape_text(state.shape()), " but weight of shape ",
          shape_text(weight.shape()));
  Tensor y = Tensor::empty({h.size(0), weight.size(0), h.size(1)}, h.dtype(), h.device());
  dispatch_exact(h, "state_readout", [&](auto on) {
    using T = typename decltype(on)::Value;
    BLOCKSTATE_KERNEL(on, state_readout_forward, y.view<T, 3>(), h.view<T, 3>(), weight.value().view<T, 3>());
  });
  return record_one("state_readout", y, {state, weight}, [h, w = weight.value()](const Tensor& dy) {
    Tensor dh = empty_like(h);
    Tensor dw = zeros_like(w);
    dispatch_exact(h, "state_readout", [&](auto on) {
      using T = typename decltype(on)::Value;
      BLOCKSTATE_KERNEL(on, state_readout_backward, dh.view<T, 3>(), dw.view<T, 3>(), dy.view<T, 3>(), h.view<T, 3>(),
                        w.view<T, 3>());
    });
    return std::vector<Tensor>{dh, dw};
  });
}

}  // namespace blockstate::ops
