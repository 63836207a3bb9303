// SPDX-License-Identifier: Apache-2.0
#include "kernels/causal_conv1d_step.cuh"
#include "kernels/cuda_launch.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr const char* kOp = "causal_conv1d";
constexpr int64_t kForwardSteps = 24;  // of a segment, unless the sequence is very long
constexpr int kStepThreads = 64;
constexpr int64_t kStepRows = 65535;  // the most that launch_step can take

/// kLimited: taps can be switched off, by a position or because there are fewer than kTaps.
template <class T, int kTaps, int kWidth, bool kLimited>
__global__ void __launch_bounds__(kConvThreads)
    forward_kernel(const CausalConv1dForward<T, float> args, const ConvPlan plan) {
  const ConvPlace place(plan, args.x.size[1], args.x.size[2], kWidth);
  using Feed = ConvFeed<T, kWidth, 1, kLimited>;
  __shared__ typename Feed::Storage storage;
  if (!place.active) {
    return;
  }
  const int kept = static_cast<int>(args.weight.size[1]) - 1;
  float tap[kTaps][kWidth], constant[kWidth], past[kTaps][kWidth];
  Feed feed(storage, {args.x}, args.position, kept, place, place.count);
  load_taps(args.weight, args.bias, place.channel, tap, constant);
  load_past(args.x, args.initial, kept, place.b, place.t0, place.channel, past);

  T* y = &args.y(place.b, place.t0, place.channel);
  const int64_t y_stride = args.y.stride[1];
  const auto step = [&](const typename Feed::Row& row) {
#pragma unroll
    for (int c = 0; c < kWidth; ++c) {
      past[0][c] = element(row.pack[0], c);
    }
    if (kLimited && row.limit < kTaps - 1) {
#pragma unroll
      for (int j = 1; j < kTaps; ++j) {
#pragma unroll
        for (int c = 0; c < kWidth; ++c) {
          past[j][c] = j > row.limit ? 0.0f : past[j][c];
        }
      }
    }
    float out[kWidth];
#pragma unroll
    for (int c = 0; c < kWidth; ++c) {
      float a = constant[c];
#pragma unroll
      for (int j = kTaps - 1; j >= 0; --j) {
        a = fmaf(tap[j][c], past[j][c], a);
      }
      out[c] = args.silu ? conv_silu(a) : a;
      out[c] = kLimited && row.limit < 0 ? 0.0f : out[c];
    }
    store_raw<T, kWidth>(y, out);
    y += y_stride;
#pragma unroll
    for (int j = kTaps - 1; j > 0; --j) {
#pragma unroll
      for (int c = 0; c < kWidth; ++c) {
        past[j][c] = past[j - 1][c];
      }
    }
  };

  int i = 0;
  for (; i + kConvUnroll <= place.count; i += kConvUnroll) {
#pragma unroll
    for (int u = 0; u < kConvUnroll; ++u) {
      step(feed.take(i + u));
    }
  }
#pragma unroll 1
  for (; i < place.count; ++i) {
    step(feed.take(i));
  }
}

/// A block a row of the batch. `final` may be `initial`: each thread goes upwards through what it overwrites.
template <class T>
__global__ void __launch_bounds__(kConvThreads) final_kernel(const CausalConv1dForward<T, float> args) {
  const int64_t kept = args.weight.size[1] - 1, b = blockIdx.x;
  const ConvRowEnd row = find_row_end_on_device(args.position, b, args.x.size[1], kept);
  for (int64_t c = int64_t{blockIdx.y} * blockDim.x + threadIdx.x; c < args.x.size[2];
       c += int64_t{gridDim.y} * blockDim.x) {
    for (int64_t k = 0; k < kept; ++k) {
      const int64_t t = row.first + k;
      T value = from_float<T>(0.0f);
      if (k >= row.begin && t >= 0) {
        value = args.x(b, t, c);
      } else if (k >= row.begin && args.initial) {
        value = args.initial(b, kept + t, c);
      }
      args.final(b, k, c) = value;
    }
  }
}

/// One step of every row, with the state after it.
template <class T, int kTaps, int kWidth>
__global__ void __launch_bounds__(kStepThreads) step_kernel(const CausalConv1dForward<T, float> args) {
  const int64_t channel = (int64_t{blockIdx.x} * kStepThreads + threadIdx.x) * kWidth, b = blockIdx.y;
  const bool exists = channel < args.x.size[2];
  let_next_begin();
  if (exists) {
    for (int c = 0; c < kWidth; ++c) {
      prefetch_to_l2(&args.weight(channel + c, 0));
    }
  }
  wait_for_earlier_work();
  if (exists) {
    ConvStep<T, kTaps, kWidth> step;
    step.load(args, b, channel);
    const Raw<T, kWidth> raw = load_raw<T, kWidth>(&args.x(b, 0, channel));
    float x[kWidth];
#pragma unroll
    for (int c = 0; c < kWidth; ++c) {
      x[c] = element(raw, c);
    }
    step.finish(args, b, channel, x);
  }
}

template <class T, int kWidth>
void launch_step(const Exec& exec, const CausalConv1dForward<T, float>& args) {
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(args.x.size[2], kStepThreads * kWidth)),
                  static_cast<unsigned>(args.x.size[0]));
  args.weight.size[1] > 4 ? launch_early<step_kernel<T, 8, kWidth>>(exec, kOp, grid, kStepThreads, 0, args)
                          : launch_early<step_kernel<T, 4, kWidth>>(exec, kOp, grid, kStepThreads, 0, args);
}

template <class T, int kTaps, int kWidth, bool kLimited>
void launch(const Exec& exec, const CausalConv1dForward<T, float>& args) {
  const ConvPlan plan(args.x.size[0], args.x.size[1], args.x.size[2], kWidth, kForwardSteps);
  forward_kernel<T, kTaps, kWidth, kLimited><<<plan.blocks(), plan.threads(), 0, stream_of(exec)>>>(args, plan);
  check_launch(exec, kOp);
}

template <class T, int kWidth>
void launch_taps(const Exec& exec, const CausalConv1dForward<T, float>& args) {
  const int64_t taps = args.weight.size[1];
  if (taps > 4) {
    launch<T, 8, kWidth, true>(exec, args);
  } else if (taps == 4 && !args.position) {
    launch<T, 4, kWidth, false>(exec, args);
  } else {
    launch<T, 4, kWidth, true>(exec, args);
  }
}

}  // namespace

template <class T>
void causal_conv1d_forward(const Exec& exec, const CausalConv1dForward<T, float>& args) {
  check_causal_conv1d(args);
  if (args.x.size[0] == 0 || args.x.size[2] == 0) {
    return;
  }
  constexpr int kWidth = 16 / static_cast<int>(sizeof(T));
  const bool packs = args.x.size[2] % kWidth == 0 && packs_fit<kWidth>(args.x) && packs_fit<kWidth>(args.y) &&
                     packs_fit<kWidth>(args.initial);
  if (args.x.size[1] == 1 && args.x.size[0] <= kStepRows) {
    // Narrow packs: the work is small and should be spread wide.
    constexpr int kNarrow = 4 / static_cast<int>(sizeof(T));
    const bool narrow_packs = args.x.size[2] % kNarrow == 0 && packs_fit<kNarrow>(args.x) &&
                              packs_fit<kNarrow>(args.y) && packs_fit<kNarrow>(args.initial) &&
                              packs_fit<kNarrow>(args.final);
    narrow_packs ? launch_step<T, kNarrow>(exec, args) : launch_step<T, 1>(exec, args);
    return;
  }
  if (args.x.size[1] > 0) {
    packs ? launch_taps<T, kWidth>(exec, args) : launch_taps<T, 1>(exec, args);
  }
  if (args.final && args.weight.size[1] > 1) {
    const int64_t sides = std::min<int64_t>(64, ceil_div<int64_t>(args.x.size[2], kConvThreads));
    final_kernel<T><<<dim3(static_cast<unsigned>(args.x.size[0]), static_cast<unsigned>(sides)), kConvThreads, 0,
                      stream_of(exec)>>>(args);
    check_launch(exec, kOp);
  }
}

template void causal_conv1d_forward<float>(const Exec&, const CausalConv1dForward<float, float>&);
template void causal_conv1d_forward<BFloat16>(const Exec&, const CausalConv1dForward<BFloat16, float>&);

}  // namespace blockstate::kernels::cuda
