// SPDX-License-Identifier: Apache-2.0
// Forward: where windows are whole segments of the scan in blocks (diagonal_scan_cuda.cuh), its pass without outputs
// and its fold give the state before every segment of all windows; other windows are scanned one after the other.
// Backward: a fold over the windows gives the gradients of the states after each, then all windows go back as the rows
// of one scan.
#include "kernels/diagonal_scan_cuda.cuh"
#include "kernels/diagonal_scan_states_check.h"
#include "kernels/scan_windows.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr const char* kName = "diagonal_scan_states";

unsigned blocks_for(int64_t count) { return static_cast<unsigned>(ceil_div(count, int64_t{kThreads})); }

__device__ double2 multiply(double2 x, double2 y) { return {x.x * y.x - x.y * y.y, x.x * y.y + x.y * y.x}; }

__device__ double2 power(double2 base, int64_t exponent) {
  double2 result = {1, 0};
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) {
      result = multiply(result, base);
    }
    base = multiply(base, base);
  }
  return result;
}

/// Of the segments from window `first_window` on, `to_window` to a window: the state before each goes where it is
/// wanted.
struct Places {
  View<float, 5> states;
  View<float, 4> final;
  View<float, 6> checkpoint;
  const float2* carry;  // [b][segment][channel][kBlockStates]
  int64_t segments, to_window, first_window, windows, finished;
};

__global__ void __launch_bounds__(kThreads) place_states(const __grid_constant__ Places args, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) {
    return;
  }
  const int64_t channels = args.final.size[1], states = args.final.size[2];
  const int64_t p = i % states, d = i / states % channels, segment = i / states / channels % args.segments;
  const int64_t b = i / states / channels / args.segments;
  const float2 state = args.carry[((b * args.segments + segment) * channels + d) * kBlockStates + p];
  const int64_t window = args.first_window + segment / args.to_window, at = segment % args.to_window;
  if (args.checkpoint && window < args.windows && at < args.checkpoint.size[2]) {
    args.checkpoint(b, window, at, p, 0, d) = state.x;
    args.checkpoint(b, window, at, p, 1, d) = state.y;
  }
  if (at == 0 && segment > 0 && window <= args.finished) {
    args.states(b, window - 1, d, p, 0) = state.x;
    args.states(b, window - 1, d, p, 1) = state.y;
  }
  if (segment == args.segments - 1) {
    args.final(b, d, p, 0) = state.x;
    args.final(b, d, p, 1) = state.y;
  }
}

__global__ void __launch_bounds__(kThreads) copy_states(View<float, 4> to, View<const float, 4> from, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) {
    const int64_t row = count / to.size[0], b = i / row;
    to.data[i] = from ? from.data[b * from.stride[0] + i % row] : 0.0f;
  }
}

/// kept: (B, K), the valid steps of each window, -1 where a record starts in it. A block a window.
__global__ void __launch_bounds__(kThreads)
    count_steps(View<const int64_t, 2> position, const __grid_constant__ ScanWindows windows, int64_t* kept) {
  const int64_t window = blockIdx.x % windows.count(), b = blockIdx.x / windows.count();
  int valid = 0, starts = 0;
  for (int64_t t0 = windows.begin(window); t0 < windows.end(window); t0 += kThreads) {
    const int64_t t = t0 + threadIdx.x;
    const int64_t at = t < windows.end(window) ? position(b, t) : -1;
    valid += __syncthreads_count(at >= 0);
    starts |= __syncthreads_or(at == 0);
  }
  if (threadIdx.x == 0) {
    kept[blockIdx.x] = starts != 0 ? -1 : valid;
  }
}

struct GradientFold {
  ScanWindows windows;
  View<const float, 3> a;
  View<const float, 4> dfinal;
  View<float, 4> dinitial;
  const float2* dstates;  // (B, G, D, P), or null
  float2* gradient;       // (B, K, D, P): of the state after each window, by everything after it
  const int64_t* kept;    // (B, K), or null: all steps
};

/// A thread a state.
__global__ void __launch_bounds__(kThreads) fold_gradients(const __grid_constant__ GradientFold args, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) {
    return;
  }
  const int64_t channels = args.a.size[0], states = args.a.size[1], row = channels * states;
  const int64_t b = i / row, at = i % row, d = at / states, p = at % states;
  const int64_t windows = args.windows.count(), finished = args.windows.finished();
  const double2 base = {args.a(d, p, 0), args.a(d, p, 1)}, whole = power(base, args.windows.window);
  double2 g = {0, 0};
  if (args.dfinal) {
    g = {args.dfinal(b, d, p, 0), args.dfinal(b, d, p, 1)};
  }
  const auto load = [&](int64_t later) {
    const int64_t window = windows - 1 - later;
    return args.dstates != nullptr && window < finished ? args.dstates[(b * finished + window) * row + at]
                                                        : float2{0, 0};
  };
  fold(windows, load, [&](int64_t later, float2 more) {
    const int64_t window = windows - 1 - later;
    g = {g.x + more.x, g.y + more.y};
    args.gradient[(b * windows + window) * row + at] = {static_cast<float>(g.x), static_cast<float>(g.y)};
    const int64_t steps =
        args.kept != nullptr ? args.kept[b * windows + window] : args.windows.end(window) - args.windows.begin(window);
    const double2 decay = steps == args.windows.window ? whole : steps < 0 ? double2{0, 0} : power(base, steps);
    g = multiply({decay.x, -decay.y}, g);
  });
  if (args.dinitial) {
    args.dinitial(b, d, p, 0) = static_cast<float>(g.x);
    args.dinitial(b, d, p, 1) = static_cast<float>(g.y);
  }
}

/// A forward pass over the only window of a group.
template <class T>
void scan_window(const Exec& exec, const DiagonalScanStatesForward<T, float>& args, const WindowGroup& group,
                 View<const float, 4> before, View<float, 4> after, T* outputs) {
  DiagonalScanForward<T, float> scan = scan_of(args, group);
  scan.y = make_view(outputs, group.rows, group.steps, args.u.size[2]);
  scan.initial = before;
  scan.final = after;
  scan.checkpoint = checkpoint_of(args.checkpoint, group, kDiagonalCheckpoint);
  diagonal_scan_forward(exec, scan);
}

/// All windows from `first` on, from the state `before`. A segment more than there are steps for: the state before it
/// is the final one.
template <class T>
void scan_in_blocks(const Exec& exec, const DiagonalScanStatesForward<T, float>& args, View<float, 4> final,
                    int64_t first, View<const float, 4> before) {
  const ScanWindows& windows = args.windows;
  const int64_t batch = args.u.size[0], channels = args.u.size[2], begin = windows.begin(first);
  const DiagonalScanForward<T, float> rest = scan_of(args, {0, batch, first, 1, begin, windows.length - begin});
  BlockScan<T> scan{};
  scan.in = rest.u;
  scan.a = rest.a;
  scan.c = rest.c;
  scan.initial = before;
  const int64_t steps = args.checkpoint ? kDiagonalCheckpoint : windows.window;
  scan.segments = {ceil_div(windows.length - begin, steps) + 1, steps};
  const Scratch<float2> carry(exec, carry_size(batch, channels, scan.segments));
  scan.carry = carry.get();
  run_block_scan(exec, scan, rest.position, false);
  const Places places{
      args.states, final,           args.checkpoint,   carry.get(), scan.segments.count, windows.window / steps,
      first,       windows.count(), windows.finished()};
  const int64_t count = batch * scan.segments.count * channels * args.a.size[1];
  place_states<<<blocks_for(count), kThreads, 0, stream_of(exec)>>>(places, count);
  check_launch(exec, kName);
}

}  // namespace

template <class T>
void diagonal_scan_states_forward(const Exec& exec, const DiagonalScanStatesForward<T, float>& args) {
  check_diagonal_scan_states(args, kDiagonalCheckpoint);
  const ScanWindows& windows = args.windows;
  const int64_t batch = args.u.size[0], channels = args.u.size[2], states = args.a.size[1];
  const int64_t count = batch * channels * states * 2;
  if (count == 0) {
    return;
  }
  const Scratch<float> memory(exec, args.final ? 0 : count);
  const View<float, 4> final = args.final ? args.final : make_view(memory.get(), batch, channels, states, int64_t{2});
  const Scratch<T> outputs(exec, batch * windows.longest() * channels);
  View<const float, 4> before = args.initial;
  for (int64_t index = 0; index < windows.count(); ++index) {
    const bool whole = index > 0 || windows.first == windows.window;
    if (whole && windows.window % kDiagonalCheckpoint == 0 &&
        fits_blocks(exec, windows.length - windows.begin(index), states)) {
      scan_in_blocks(exec, args, final, index, before);
      return;
    }
    const WindowGroup group = one_window(windows, batch, index);
    const View<float, 4> after = index < windows.finished() ? group.entries_of(args.states) : final;
    scan_window(exec, args, group, before, after, outputs.get());
    before = after;
  }
  if (before.data != final.data) {
    copy_states<<<blocks_for(count), kThreads, 0, stream_of(exec)>>>(final, before, count);
    check_launch(exec, kName);
  }
}

template <class T>
void diagonal_scan_states_backward(const Exec& exec, const DiagonalScanStatesBackward<T, float>& args) {
  check_diagonal_scan_states(args, kDiagonalCheckpoint);
  const DiagonalScanStatesForward<T, float>& f = args.forward;
  const int64_t batch = f.u.size[0], channels = f.u.size[2], states = f.a.size[1], windows = f.windows.count();
  const int64_t count = batch * channels * states;
  if (count == 0) {
    return;
  }
  const Scratch<float2> memory(exec, windows * count);
  const Scratch<int64_t> kept(exec, f.position ? batch * windows : 0);
  if (f.position && windows > 0) {
    count_steps<<<static_cast<unsigned>(batch * windows), kThreads, 0, stream_of(exec)>>>(f.position, f.windows,
                                                                                          kept.get());
    check_launch(exec, kName);
  }
  const GradientFold fold{f.windows,
                          f.a,
                          args.dfinal,
                          args.dinitial,
                          reinterpret_cast<const float2*>(args.dstates.data),
                          memory.get(),
                          f.position ? kept.get() : nullptr};
  fold_gradients<<<blocks_for(count), kThreads, 0, stream_of(exec)>>>(fold, count);
  check_launch(exec, kName);

  const Scratch<T> nothing(exec, channels);  // dy
  fill_zero(exec, nothing.get(), channels * static_cast<int64_t>(sizeof(T)));
  const Scratch<float> dc(exec, 2 * channels * states);
  fill_zero(exec, dc.get(), 2 * channels * states * static_cast<int64_t>(sizeof(float)));
  const View<const float, 5> gradient =
      make_view(reinterpret_cast<const float*>(memory.get()), batch, windows, channels, states, int64_t{2});
  const bool joined = rows_join(f.u) && rows_join(f.position) && rows_join(args.du);
  for_window_groups(f.windows, batch, joined, [&](const WindowGroup& group) {
    DiagonalScanBackward<T, float> scan;
    scan.forward = scan_of(f, group);
    scan.forward.checkpoint = checkpoint_of(f.checkpoint, group, kDiagonalCheckpoint);
    scan.du = group.steps_of(args.du);
    scan.da = args.da;
    scan.dc = make_view(dc.get(), channels, states, int64_t{2});
    scan.dy = {nothing.get(), {group.size(), group.steps, channels}, {0, 0, 1}};
    scan.dfinal = group.entries_of(gradient);
    diagonal_scan_backward(exec, scan);
  });
}

template void diagonal_scan_states_forward<float>(const Exec&, const DiagonalScanStatesForward<float, float>&);
template void diagonal_scan_states_forward<BFloat16>(const Exec&, const DiagonalScanStatesForward<BFloat16, float>&);
template void diagonal_scan_states_backward<float>(const Exec&, const DiagonalScanStatesBackward<float, float>&);
template void diagonal_scan_states_backward<BFloat16>(const Exec&, const DiagonalScanStatesBackward<BFloat16, float>&);

}  // namespace blockstate::kernels::cuda
