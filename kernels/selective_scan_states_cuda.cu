// SPDX-License-Identifier: Apache-2.0
// Forward: what every piece of time leaves in the state is found side by side (selective_scan_pieces.cuh), and a fold
// over the pieces gives the states. Pieces are the steps between checkpoints where a backward follows, windows where
// none does. Backward: a fold over the windows gives the gradients of the states after each, then all windows go back
// as the rows of one scan.
#include "kernels/scan_windows.cuh"
#include "kernels/selective_scan_pieces.cuh"
#include "kernels/selective_scan_states_check.h"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 64;  // there are few threads, so spread them
constexpr const char* kName = "selective_scan_states";

struct StatesFold {
  View<const float, 3> initial;
  const float *left, *factor;                  // (B, pieces, D, N)
  float *states, *final, *checkpoint, *decay;  // (B, G, D, N), (B, D, N), (B, K, C, D, N), (B, K, D, N), or null
  int64_t pieces, of_window, windows, finished;
  int64_t states_each, row;  // N, D * N
};

/// A thread a state.
__global__ void __launch_bounds__(kThreads) fold_states(const __grid_constant__ StatesFold args, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) {
    return;
  }
  const int64_t b = i / args.row, at = i % args.row;
  const float* __restrict__ const left = args.left + b * args.pieces * args.row + at;
  const float* __restrict__ const factor = args.factor + b * args.pieces * args.row + at;
  float h = args.initial ? args.initial(b, at / args.states_each, at % args.states_each) : 0.0f;
  float product = 1;
  int64_t window = 0, in_window = 0;
  const auto load = [&](int64_t piece) { return float2{factor[piece * args.row], left[piece * args.row]}; };
  fold(args.pieces, load, [&](int64_t piece, float2 found) {
    if (args.checkpoint != nullptr) {
      args.checkpoint[(b * args.pieces + piece) * args.row + at] = h;
    }
    h = fmaf(found.x, h, found.y);
    product *= found.x;
    if (++in_window == args.of_window) {
      if (window < args.finished) {
        args.states[(b * args.finished + window) * args.row + at] = h;
      }
      if (args.decay != nullptr) {
        args.decay[(b * args.windows + window) * args.row + at] = product;
      }
      ++window;
      in_window = 0;
      product = 1;
    }
  });
  if (args.final != nullptr) {
    args.final[i] = h;
  }
}

struct GradientFold {
  View<const float, 3> dfinal;
  View<float, 3> dinitial;
  const float* dstates;  // (B, G, D, N), or null
  const float* decay;    // (B, K, D, N)
  float* gradient;       // (B, K, D, N): of the state after each window, by everything after it
  int64_t windows, finished, states_each, row;
};

__global__ void __launch_bounds__(kThreads) fold_gradients(const __grid_constant__ GradientFold args, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) {
    return;
  }
  const int64_t b = i / args.row, at = i % args.row, d = at / args.states_each, n = at % args.states_each;
  const float* __restrict__ const decay = args.decay + b * args.windows * args.row + at;
  const float* __restrict__ const dstates = args.dstates + b * args.finished * args.row + at;
  float g = args.dfinal ? args.dfinal(b, d, n) : 0.0f;
  const auto load = [&](int64_t later) {
    const int64_t window = args.windows - 1 - later;
    return float2{decay[window * args.row],
                  args.dstates != nullptr && window < args.finished ? dstates[window * args.row] : 0.0f};
  };
  fold(args.windows, load, [&](int64_t later, float2 found) {
    g += found.y;
    args.gradient[(b * args.windows + args.windows - 1 - later) * args.row + at] = g;
    g *= found.x;
  });
  if (args.dinitial) {
    args.dinitial(b, d, n) = g;
  }
}

unsigned blocks_for(int64_t count) { return static_cast<unsigned>(ceil_div(count, int64_t{kThreads})); }

template <class T>
void forward(const Exec& exec, const SelectiveScanStatesForward<T, float>& args) {
  check_selective_scan_states(args, kScanCheckpoint);
  const int64_t batch = args.u.size[0], width = args.u.size[2], states = args.A.size[1];
  const int64_t count = batch * width * states;
  if (count == 0) {
    return;
  }
  const ScanWindows& windows = args.windows;
  scan::Pieces pieces{windows, args.checkpoint ? kScanCheckpoint : windows.window, 1, 0, 1, 0};
  pieces.of_window = args.checkpoint ? windows.checkpoints(kScanCheckpoint) : 1;
  pieces.count = windows.count() * pieces.of_window;
  pieces.row_stride = pieces.count;
  const Scratch<float> left(exec, pieces.count * count), factor(exec, pieces.count * count);
  if (pieces.count > 0) {
    scan::walk_back(exec, scan_of(args, {0, batch, 0, 1, 0, windows.length}), pieces, left.get(), factor.get());
  }
  const StatesFold fold{args.initial,         left.get(),      factor.get(),  args.states.data, args.final.data,
                        args.checkpoint.data, args.decay.data, pieces.count,  pieces.of_window, windows.count(),
                        windows.finished(),   states,          width * states};
  fold_states<<<blocks_for(count), kThreads, 0, stream_of(exec)>>>(fold, count);
  check_launch(exec, kName);
}

template <class T>
void backward(const Exec& exec, const SelectiveScanStatesBackward<T, float>& args) {
  check_selective_scan_states(args, kScanCheckpoint);
  const SelectiveScanStatesForward<T, float>& f = args.forward;
  const int64_t batch = f.u.size[0], length = f.u.size[1], width = f.u.size[2], states = f.A.size[1];
  const int64_t count = batch * width * states, windows = f.windows.count();
  if (count == 0) {
    return;
  }
  const Scratch<float> memory(exec, windows * count);
  const GradientFold fold{args.dfinal,          args.dinitial, args.dstates.data, f.decay.data, memory.get(), windows,
                          f.windows.finished(), states,        width * states};
  fold_gradients<<<blocks_for(count), kThreads, 0, stream_of(exec)>>>(fold, count);
  check_launch(exec, kName);

  const Scratch<T> nothing(exec, width);  // dy
  fill_zero(exec, nothing.get(), width * static_cast<int64_t>(sizeof(T)));
  const Scratch<T> dC(exec, batch * length * states);
  const View<const float, 4> gradient = make_view<const float>(memory.get(), batch, windows, width, states);
  const bool joined = rows_join(f.u) && rows_join(f.delta) && rows_join(f.B) && rows_join(f.position) &&
                      rows_join(args.du) && rows_join(args.ddelta) && rows_join(args.dB);
  for_window_groups(f.windows, batch, joined, [&](const WindowGroup& group) {
    SelectiveScanBackward<T, float> scan;
    scan.forward = scan_of(f, group);
    scan.forward.checkpoint = checkpoint_of(f.checkpoint, group, kScanCheckpoint);
    scan.du = group.steps_of(args.du);
    scan.ddelta = group.steps_of(args.ddelta);
    scan.dA = args.dA;
    scan.dB = group.steps_of(args.dB);
    scan.dC = make_view(dC.get(), group.size(), group.steps, states);
    scan.ddelta_bias = args.ddelta_bias;
    scan.dy = {nothing.get(), {group.size(), group.steps, width}, {0, 0, 1}};
    scan.dfinal = group.entries_of(gradient);
    selective_scan_backward(exec, scan);
  });
}

}  // namespace

template <>
void selective_scan_states_forward(const Exec& exec, const SelectiveScanStatesForward<float, float>& args) {
  forward(exec, args);
}
template <>
void selective_scan_states_forward(const Exec& exec, const SelectiveScanStatesForward<BFloat16, float>& args) {
  forward(exec, args);
}
template <>
void selective_scan_states_backward(const Exec& exec, const SelectiveScanStatesBackward<float, float>& args) {
  backward(exec, args);
}
template <>
void selective_scan_states_backward(const Exec& exec, const SelectiveScanStatesBackward<BFloat16, float>& args) {
  backward(exec, args);
}

}  // namespace blockstate::kernels::cuda
