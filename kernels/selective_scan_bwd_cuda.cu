// SPDX-License-Identifier: Apache-2.0
// Backward of the selective scan on CUDA: windows of time, their kernels, and the sums over slabs, segments and batch.
#include <algorithm>

#include "kernels/selective_scan_bwd_any_cuda.cuh"
#include "kernels/selective_scan_bwd_cuda.cuh"
#include "kernels/selective_scan_check.h"

namespace blockstate::kernels::cuda {
namespace scan_backward {
namespace {

constexpr int64_t kLargestSlab = 96 << 20;  // bytes of slabs at a time
constexpr int kThreads = 256;

// dB and dC of a window: the slabs in their order.
template <class T>
__global__ void __launch_bounds__(kThreads) sum_slabs(Arguments<T> args, Window window) {
  const int64_t states = args.forward.A.size[1];
  const int64_t count = window.batch * window.steps * 2 * states;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += int64_t{gridDim.x} * kThreads) {
    float sum = window.slab[i];
    for (int64_t slab = 1; slab < window.slabs; ++slab) {
      sum += window.slab[slab * count + i];
    }
    const int64_t n = i % (2 * states);
    const int64_t row = i / (2 * states);
    const int64_t b = window.batch0 + row / window.steps;
    const int64_t t = window.tile0 * kTile + row % window.steps;
    (n < states ? args.dB(b, t, n) : args.dC(b, t, n - states)) = from_float<T>(sum);
  }
}

// The gradient of the state behind the last step.
__global__ void __launch_bounds__(kThreads)
    start_carry(View<const float, 3> dfinal, float* carry, int64_t count, int64_t width, int64_t states) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) {
    carry[i] = dfinal ? dfinal(i / states / width, i / states % width, i % states) : 0.0f;
  }
}

__global__ void __launch_bounds__(kThreads)
    store_carry(View<float, 3> dinitial, const float* carry, int64_t count, int64_t width, int64_t states) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) {
    dinitial(i / states / width, i / states % width, i % states) = carry[i];
  }
}

// dA, dD and ddelta_bias: `parts` rows of (D, N + 2) in their order.
__global__ void __launch_bounds__(kThreads)
    sum_parameters(View<float, 2> dA, View<float, 1> dD, View<float, 1> dbias, const float* sums, int64_t parts) {
  const int64_t columns = dA.size[1] + 2;
  const int64_t count = dA.size[0] * columns;
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) {
    return;
  }
  const int64_t d = i / columns, n = i % columns;
  float* to = n < dA.size[1] ? &dA(d, n) : n == dA.size[1] ? (dD ? &dD(d) : nullptr) : (dbias ? &dbias(d) : nullptr);
  if (to != nullptr) {
    float sum = 0;
    for (int64_t part = 0; part < parts; ++part) {
      sum += sums[part * count + i];
    }
    *to += sum;
  }
}

unsigned blocks_for(int64_t count) {
  return static_cast<unsigned>(std::clamp<int64_t>(ceil_div(count, int64_t{kThreads}), 1, INT32_MAX));
}

template <class T>
void run(const Exec& exec, const Arguments<T>& args) {
  const char* op = "selective_scan backward";
  const SelectiveScanForward<T, float>& f = args.forward;
  const int64_t batch = f.u.size[0], length = f.u.size[1], width = f.u.size[2], states = f.A.size[1];
  const int64_t carries = batch * width * states;
  if (carries == 0) {
    return;
  }
  const cudaStream_t stream = stream_of(exec);
  const Scratch<float> carry(exec, 2 * carries);
  start_carry<<<blocks_for(carries), kThreads, 0, stream>>>(args.dfinal, carry.get(), carries, width, states);
  check_launch(exec, op);
  int parity = 0;
  if (length > 0) {
    Window window{};
    window.segments = 1;
    window.slabs = ceil_div(width, int64_t{32});
    const int64_t tiles = ceil_div(length, int64_t{kTile});
    const int64_t tile_bytes = window.slabs * kTile * 2 * states * int64_t{sizeof(float)};  // of one row of the batch
    const int64_t rows = std::clamp<int64_t>(kLargestSlab / tile_bytes, 1, batch);
    const int64_t most_tiles = std::clamp<int64_t>(kLargestSlab / (tile_bytes * rows), 1, tiles);
    const int64_t parts = batch * window.segments;
    const int64_t sum_count = parts * width * (states + 2);
    const int64_t warps = std::min<int64_t>(rows * window.slabs, 2 * multiprocessors(exec));
    const Scratch<float> slab(exec, rows * std::min(most_tiles * kTile, length) * window.slabs * 2 * states);
    const Scratch<float> sums(exec, sum_count);
    const Scratch<float> scratch(exec, warps * kAnyScratch);
    fill_zero(exec, sums.get(), sum_count * static_cast<int64_t>(sizeof(float)));
    window.slab = slab.get();
    window.sums = sums.get();
    for (int64_t end = tiles; end > 0; end -= window.tiles) {
      window.tiles = std::min(end, most_tiles);
      window.tile0 = end - window.tiles;
      window.steps = std::min(end * kTile, length) - window.tile0 * kTile;
      window.carry_in = carry.get() + parity * carries;
      window.carry_out = carry.get() + (1 - parity) * carries;
      for (window.batch0 = 0; window.batch0 < batch; window.batch0 += rows) {
        window.batch = std::min(rows, batch - window.batch0);
        any_states_kernel<T><<<static_cast<unsigned>(warps), 32, 0, stream>>>(args, window, scratch.get());
        check_launch(exec, op);
        sum_slabs<T><<<blocks_for(window.batch * window.steps * 2 * states), kThreads, 0, stream>>>(args, window);
        check_launch(exec, op);
      }
      parity = 1 - parity;
    }
    sum_parameters<<<blocks_for(width * (states + 2)), kThreads, 0, stream>>>(args.dA, args.dD, args.ddelta_bias,
                                                                              sums.get(), parts);
    check_launch(exec, op);
  }
  if (args.dinitial) {
    store_carry<<<blocks_for(carries), kThreads, 0, stream>>>(args.dinitial, carry.get() + parity * carries, carries,
                                                              width, states);
    check_launch(exec, op);
  }
}

}  // namespace
}  // namespace scan_backward

template <>
void selective_scan_backward(const Exec& exec, const SelectiveScanBackward<float, float>& args) {
  check_selective_scan(args, kScanCheckpoint);
  scan_backward::run(exec, args);
}

template <>
void selective_scan_backward(const Exec& exec, const SelectiveScanBackward<BFloat16, float>& args) {
  check_selective_scan(args, kScanCheckpoint);
  scan_backward::run(exec, args);
}

}  // namespace blockstate::kernels::cuda
