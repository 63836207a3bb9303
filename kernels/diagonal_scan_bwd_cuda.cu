// SPDX-License-Identifier: Apache-2.0
#include "kernels/diagonal_scan_check.h"
#include "kernels/diagonal_scan_cuda.cuh"

namespace blockstate::kernels::cuda {
namespace {

/// Steps [begin, begin + count) of a view of (B, L, ...).
template <class T, int R>
View<T, R> steps_of(View<T, R> view, int64_t begin, int64_t count) {
  if (view) {
    view.data += begin * view.stride[1];
    view.size[1] = count;
  }
  return view;
}

/// `begin` is a multiple of kDiagonalCheckpoint.
template <class T>
DiagonalScanBackward<T, float> piece_of(DiagonalScanBackward<T, float> args, int64_t begin, int64_t count) {
  args.du = steps_of(args.du, begin, count);
  args.dy = steps_of(args.dy, begin, count);
  args.forward.u = steps_of(args.forward.u, begin, count);
  args.forward.checkpoint =
      steps_of(args.forward.checkpoint, begin / kDiagonalCheckpoint, ceil_div(count, kDiagonalCheckpoint));
  return args;
}

template <class T>
BlockScan<T> way_back(const DiagonalScanBackward<T, float>& args, Segments segments, float2* carry) {
  BlockScan<T> scan{};
  scan.in = args.dy;
  scan.a = args.forward.a;
  scan.c = args.forward.c;
  scan.D = args.forward.D;
  scan.initial = args.dfinal;
  scan.segments = segments;
  scan.carry = carry;
  return scan;
}

/// Whole windows of kDiagonalCheckpoint steps without events.
template <class T>
void backward_in_blocks(const Exec& exec, const DiagonalScanBackward<T, float>& args) {
  const int64_t batch = args.du.size[0], length = args.du.size[1], channels = args.du.size[2];
  const Segments segments = plan_segments(exec, batch, length, channels);
  const Scratch<float2> carry(exec, carry_size(batch, channels, segments));
  BlockScan<T> scan = way_back(args, segments, carry.get());
  scan.out = args.du;
  scan.final = args.dinitial;
  run_block_scan(exec, scan, {}, true);
  run_block_gradients(exec, args, segments, carry.get());
}

/// Any events: where segments start by blocks, the rest step by step.
template <class T>
void backward_in_segments(const Exec& exec, const DiagonalScanBackward<T, float>& args) {
  const int64_t batch = args.du.size[0], length = args.du.size[1], channels = args.du.size[2];
  const Segments segments = plan_segments(exec, batch, length, channels);
  const Scratch<float2> carry(exec, carry_size(batch, channels, segments));
  if (segments.count > 1) {
    run_block_scan(exec, way_back(args, segments, carry.get()), args.forward.position, true);
  }
  diagonal_scan_backward_direct(exec, args, segments, carry.get());
}

}  // namespace

template <class T>
void diagonal_scan_backward(const Exec& exec, const DiagonalScanBackward<T, float>& args) {
  check_diagonal_scan(args, kDiagonalCheckpoint);
  const int64_t batch = args.du.size[0], length = args.du.size[1], channels = args.du.size[2];
  const int64_t states = args.forward.a.size[1];
  if (batch * channels == 0 || !fits_blocks(exec, length, states)) {
    diagonal_scan_backward_direct(exec, args, {1, length}, nullptr);
    return;
  }
  if (args.forward.position) {
    backward_in_segments(exec, args);
    return;
  }
  const int64_t whole = length / kDiagonalCheckpoint * kDiagonalCheckpoint;
  if (whole == 0) {
    diagonal_scan_backward_direct(exec, args, {1, length}, nullptr);
    return;
  }
  DiagonalScanBackward<T, float> windows = piece_of(args, 0, whole);
  const Scratch<float> between(exec, whole < length ? batch * channels * states * 2 : 0);
  if (whole < length) {
    DiagonalScanBackward<T, float> rest = piece_of(args, whole, length - whole);
    rest.dinitial = make_view(between.get(), batch, channels, states, int64_t{2});
    diagonal_scan_backward_direct(exec, rest, {1, length - whole}, nullptr);
    windows.dfinal = rest.dinitial;
  }
  backward_in_blocks(exec, windows);
}

template void diagonal_scan_backward<float>(const Exec&, const DiagonalScanBackward<float, float>&);
template void diagonal_scan_backward<BFloat16>(const Exec&, const DiagonalScanBackward<BFloat16, float>&);

}  // namespace blockstate::kernels::cuda
