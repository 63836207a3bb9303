// SPDX-License-Identifier: Apache-2.0
// Backward of the selective scan on CUDA: windows of time, their kernels, and the sums over slabs, segments and batch.
#include <algorithm>
#include <iterator>

#include "kernels/cuda_launch.cuh"
#include "kernels/selective_scan_bwd_any_cuda.cuh"
#include "kernels/selective_scan_bwd_cuda.cuh"
#include "kernels/selective_scan_bwd_tile_cuda.cuh"
#include "kernels/selective_scan_check.h"

namespace blockstate::kernels::cuda {
namespace scan_backward {
namespace {

constexpr int64_t kLargestSlab = 512 << 20;  // bytes of slabs at a time
constexpr int kThreads = 256;

// dB and dC of a window: the slabs in their order, kVector neighbouring states at a time.
template <class T, int kVector>
__global__ void __launch_bounds__(kThreads) sum_slabs(Arguments<T> args, Window window) {
  using Vector = Pack<float, kVector>;
  const int64_t states = args.forward.A.size[1];
  const int64_t count = window.batch * window.steps * 2 * states / kVector;
  const Vector* slabs = reinterpret_cast<const Vector*>(window.slab);
  wait_for_earlier_work();
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += int64_t{gridDim.x} * kThreads) {
    Vector sum = slabs[i];
#pragma unroll 8
    for (int64_t slab = 1; slab < window.slabs; ++slab) {
      const Vector more = slabs[slab * count + i];
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        sum.value[k] += more.value[k];
      }
    }
    const int64_t n = i * kVector % (2 * states);
    const int64_t row = i * kVector / (2 * states);
    const int64_t b = window.batch0 + row / window.steps;
    const int64_t t = window.tile0 * kTile + row % window.steps;
    T* to = n < states ? &args.dB(b, t, n) : &args.dC(b, t, n - states);
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      to[k] = from_float<T>(sum.value[k]);
    }
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
  wait_for_earlier_work();
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

// Fours, or pairs, of neighbours may be moved as one, and a row's distance fits 31 bits: it is put in `bytes`.
template <class T>
bool vectors(const View<T, 3>& view, int64_t elements, uint32_t* bytes) {
  const int64_t size = sizeof(T), distance = view.stride[1] * size;
  *bytes = static_cast<uint32_t>(distance);
  return !view || (reinterpret_cast<uintptr_t>(view.data) % static_cast<uint64_t>(elements * size) == 0 &&
                   view.size[2] % elements == 0 && view.stride[0] % elements == 0 && view.stride[1] % elements == 0 &&
                   distance >= 0 && distance <= INT32_MAX);
}

// How a window of `tiles` is cut for `base` pairs of row and block of channels, of which `resident` run at a time: a
// first segment, and others that share the rest. The edges' pass costs about a quarter of the work it is done for.
struct Cut {
  int64_t segments = 1, head = 0;
};
Cut cut_window(int64_t base, int64_t tiles, int64_t resident) {
  constexpr double kEdges = 0.25;
  Cut best{1, tiles};
  double least = static_cast<double>(ceil_div(base, resident) * tiles);
  const auto consider = [&](int64_t segments, int64_t head, int64_t ends) {
    const double edges =
        kEdges * static_cast<double>(base * (tiles - head)) / static_cast<double>(std::min(base * segments, resident));
    if (static_cast<double>(ends) + edges < 0.999 * least) {
      least = static_cast<double>(ends) + edges;
      best = {segments, head};
    }
  };
  const int64_t most = std::min(tiles, std::max<int64_t>(16, ceil_div(2 * resident, base)));
  for (int64_t segments = 2; segments <= most; ++segments) {
    const int64_t even = ceil_div(tiles, segments);
    consider(segments, even, ceil_div(base * segments, resident) * even);
    // A long first segment, and short ones that fill the other blocks meanwhile.
    const bool uneven = base < resident && 4 * base > resident;
    for (int64_t head = even + 1; uneven && head < std::min(tiles, 4 * even); ++head) {
      const int64_t piece = ceil_div(tiles - head, segments - 1);
      int64_t ends = head;
      while ((resident - base) * (ends / piece) + base * ((ends - head) / piece) < base * (segments - 1)) {
        ++ends;
      }
      consider(segments, head, ends);
    }
  }
  return best;
}

// The kernels of the windows of one call.
template <class T>
class Windows {
 public:
  Windows(const Exec& exec, const Arguments<T>& args, float* carry)
      : exec_(exec),
        args_(args),
        batch_(args.forward.u.size[0]),
        length_(args.forward.u.size[1]),
        width_(args.forward.u.size[2]),
        states_(args.forward.A.size[1]),
        tiled_(states_ <= kMostStates),
        carry_(carry) {
    window_.slabs = ceil_div(width_, int64_t{tiled_ ? kBlockChannels : 32});
    const int64_t tiles = ceil_div(length_, int64_t{kTile});
    const int64_t tile_bytes = window_.slabs * kTile * 2 * states_ * int64_t{sizeof(float)};  // of one row
    rows_ = std::clamp<int64_t>(kLargestSlab / tile_bytes, 1, batch_);
    const int64_t windows = ceil_div(tiles, std::clamp<int64_t>(kLargestSlab / (tile_bytes * rows_), 1, tiles));
    most_tiles_ = ceil_div(tiles, windows);  // windows of about one size
    resident_ = kBlocks * multiprocessors(exec);
    cut_ = tiled_ ? cut_window(rows_ * window_.slabs, most_tiles_, resident_) : Cut{1, most_tiles_};
    window_.segments = cut_.segments;
    // Enough blocks for the edges' pass, which holds little: four a multiprocessor.
    window_.parts = std::clamp<int64_t>(
        4 * multiprocessors(exec) / (rows_ * window_.slabs * std::max<int64_t>(1, cut_.segments - 1)), 1, 4);
    blocks_ = std::min(rows_ * window_.slabs * window_.segments, resident_);
    const SelectiveScanForward<T, float>& f = args.forward;
    const bool good[] = {vectors(f.u, 2, &plan_.u),      vectors(f.delta, 2, &plan_.delta),
                         vectors(f.z, 2, &plan_.z),      vectors(args.dy, 2, &plan_.dy),
                         vectors(args.du, 2, &plan_.du), vectors(args.ddelta, 2, &plan_.ddelta),
                         vectors(args.dz, 2, &plan_.dz), vectors(f.B, 4, &plan_.B),
                         vectors(f.C, 4, &plan_.C),      states_ == kMostStates};
    vector_ = std::all_of(std::begin(good), std::end(good), [](bool one) { return one; });
  }

  /// Returns the carry of the first step.
  const float* run() {
    const int64_t parts = batch_ * window_.segments;
    const int64_t sum_count = parts * width_ * (states_ + 2);
    const int64_t slab_rows = rows_ * std::min(most_tiles_ * kTile, length_);
    const Scratch<float> slab(exec_, slab_rows * window_.slabs * 2 * states_);
    const Scratch<float> sums(exec_, sum_count);
    const Scratch<float> scratch(exec_, blocks_ * (tiled_ ? kBlockScratch : kAnyScratch));
    const int64_t launches = ceil_div(ceil_div(length_, int64_t{kTile}), most_tiles_) * ceil_div(batch_, rows_);
    const Scratch<unsigned> counters(exec_, launches);
    const Scratch<float> edge(
        exec_, window_.segments > 1 ? rows_ * window_.segments * window_.parts * width_ * states_ * 2 : 0);
    fill_zero(exec_, sums.get(), sum_count * static_cast<int64_t>(sizeof(float)));
    fill_zero(exec_, counters.get(), launches * static_cast<int64_t>(sizeof(unsigned)));
    window_.slab = slab.get();
    window_.sums = sums.get();
    plan_.scratch = scratch.get();
    plan_.edge = edge.get();
    plan_.counter = counters.get();
    float* carry[2] = {carry_, carry_ + batch_ * width_ * states_};
    for (int64_t end = ceil_div(length_, int64_t{kTile}); end > 0; end -= window_.tiles) {
      window_.tiles = std::min(end, most_tiles_);
      window_.tile0 = end - window_.tiles;
      window_.head = std::min(cut_.head, window_.tiles);
      window_.steps = std::min(end * kTile, length_) - window_.tile0 * kTile;
      window_.carry_in = carry[0];
      window_.carry_out = carry[1];
      for (window_.batch0 = 0; window_.batch0 < batch_; window_.batch0 += rows_) {
        window_.batch = std::min(rows_, batch_ - window_.batch0);
        launch();
        ++plan_.counter;
      }
      std::swap(carry[0], carry[1]);
    }
    launch_early<sum_parameters>(exec_, kName, blocks_for(width_ * (states_ + 2)), kThreads, 0, args_.dA, args_.dD,
                                 args_.ddelta_bias, static_cast<const float*>(sums.get()), parts);
    return carry[0];
  }

  static constexpr const char* kName = "selective_scan backward";

 private:
  template <bool kPosition, bool kVector>
  void launch_tiles() {
    if (window_.segments > 1) {
      const int64_t edges = window_.batch * window_.slabs * (window_.segments - 1) * window_.parts;
      edges_kernel<T, kPosition, kVector>
          <<<static_cast<unsigned>(edges), kBlockThreads, 0, stream_of(exec_)>>>(args_, window_, plan_);
      check_launch(exec_, kName);
    }
    const auto kernel = tile_kernel<T, kPosition, kVector>;
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(BlockStage)), kName);
    kernel<<<static_cast<unsigned>(blocks_), kBlockThreads, sizeof(BlockStage), stream_of(exec_)>>>(args_, window_,
                                                                                                    plan_);
    check_launch(exec_, kName);
  }

  void launch() {
    if (!tiled_) {
      any_states_kernel<T><<<static_cast<unsigned>(blocks_), 32, 0, stream_of(exec_)>>>(args_, window_, plan_.scratch);
      check_launch(exec_, kName);
    } else if (!vector_) {
      launch_tiles<true, false>();
    } else if (args_.forward.position) {
      launch_tiles<true, true>();
    } else {
      launch_tiles<false, true>();
    }
    const int64_t values = window_.batch * window_.steps * 2 * states_;
    if (states_ % 4 == 0) {
      launch_early<sum_slabs<T, 4>>(exec_, kName, blocks_for(values / 4), kThreads, 0, args_, window_);
    } else {
      launch_early<sum_slabs<T, 1>>(exec_, kName, blocks_for(values), kThreads, 0, args_, window_);
    }
  }

  const Exec& exec_;
  const Arguments<T>& args_;
  int64_t batch_, length_, width_, states_;
  bool tiled_;
  int64_t rows_, most_tiles_;  // of the batch and of time in a window
  int64_t resident_, blocks_;
  Cut cut_;
  bool vector_ = false;
  Window window_{};
  TilePlan plan_{};
  float* carry_;  // two of (B, D, N)
};

template <class T>
void run(const Exec& exec, const Arguments<T>& args) {
  const int64_t batch = args.forward.u.size[0], width = args.forward.u.size[2], states = args.forward.A.size[1];
  const int64_t carries = batch * width * states;
  if (carries == 0) {
    return;
  }
  const Scratch<float> carry(exec, 2 * carries);
  start_carry<<<blocks_for(carries), kThreads, 0, stream_of(exec)>>>(args.dfinal, carry.get(), carries, width, states);
  check_launch(exec, Windows<T>::kName);
  const float* first = args.forward.u.size[1] == 0 ? carry.get() : Windows<T>(exec, args, carry.get()).run();
  if (args.dinitial) {
    store_carry<<<blocks_for(carries), kThreads, 0, stream_of(exec)>>>(args.dinitial, first, carries, width, states);
    check_launch(exec, Windows<T>::kName);
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
