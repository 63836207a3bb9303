// SPDX-License-Identifier: Apache-2.0
// Backward of the causal convolution: the pre-activation is computed again, the gradient of an input is complete once
// the taps - 1 steps after it have been seen, so a segment looks that far into the next one. The gradients of the
// weights are summed over a thread's steps, then over the block's segments, then over blocks, each in a fixed order.
#include <limits>

#include "kernels/causal_conv1d_cuda.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr const char* kOp = "causal_conv1d backward";
constexpr int64_t kBackwardSteps = 96;  // of a segment, unless the sequence is very long

/// a's SiLU has the slope s * (1 + a * (1 - s)), s = 1 / (1 + exp(-a)).
__device__ inline float silu_slope(float a) {
  const float s = __fdividef(1.0f, 1.0f + __expf(-a));
  return s * fmaf(a, 1.0f - s, 1.0f);
}

template <class T, int kTaps, int kWidth, bool kLimited>
struct BackwardWalk {
  const CausalConv1dBackward<T, float>& args;
  const ConvPlace& place;
  const int kept;
  const ConvRowEnd end;
  float tap[kTaps][kWidth], constant[kWidth], past[kTaps][kWidth];
  float owed[kTaps][kWidth];     // owed[j]: the gradient so far of the input j steps ago
  float sum[kTaps + 1][kWidth];  // of the taps, and of the bias
  T* dx;
  int plain_end;  // dx of the segment's steps before this gets nothing from dfinal

  using Feed = ConvFeed<T, kWidth, 2, kLimited>;  // x and dy
  using Row = typename Feed::Row;

  __device__ BackwardWalk(const CausalConv1dBackward<T, float>& given, const ConvPlace& where,
                          const ConvRowEnd& row_end)
      : args(given), place(where), kept(static_cast<int>(given.weight.size[1]) - 1), end(row_end) {
#pragma unroll
    for (int j = 0; j < kTaps; ++j) {
#pragma unroll
      for (int c = 0; c < kWidth; ++c) {
        owed[j][c] = 0;
        sum[j][c] = 0;
        sum[kTaps][c] = 0;
      }
    }
    if (!place.active) {
      return;
    }
    load_taps(args.weight, args.bias, place.channel, tap, constant);
    load_past(args.x, args.initial, kept, place.b, place.t0, place.channel, past);
    dx = args.dx.data + place.b * args.dx.stride[0] + (place.t0 - (kTaps - 1)) * args.dx.stride[1] + place.channel;
    plain_end = place.count;
    if (args.dfinal) {
      const int64_t first = end.first + end.begin - place.t0;
      plain_end = first < 0 ? 0 : first < place.count ? static_cast<int>(first) : place.count;
    }
  }

  /// Passes the gradient of row i's output on. kOwn: the row is the segment's own, and counts for the weights.
  template <bool kOwn>
  __device__ void pass(const Row& row) {
    if (kLimited && row.limit < 0) {
#pragma unroll
      for (int c = 0; c < kWidth; ++c) {
        past[0][c] = element(row.pack[0], c);
      }
      return;
    }
    float da[kWidth];
#pragma unroll
    for (int c = 0; c < kWidth; ++c) {
      past[0][c] = element(row.pack[0], c);
      da[c] = element(row.pack[1], c);
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
    if (args.silu) {
#pragma unroll
      for (int c = 0; c < kWidth; ++c) {
        float a = constant[c];
#pragma unroll
        for (int j = kTaps - 1; j >= 0; --j) {
          a = fmaf(tap[j][c], past[j][c], a);
        }
        da[c] *= silu_slope(a);
      }
    }
#pragma unroll
    for (int j = 0; j < kTaps; ++j) {
      if (!kLimited || j <= row.limit) {
#pragma unroll
        for (int c = 0; c < kWidth; ++c) {
          owed[j][c] = fmaf(da[c], tap[j][c], owed[j][c]);
        }
      }
      if (kOwn) {
#pragma unroll
        for (int c = 0; c < kWidth; ++c) {
          sum[j][c] = !kLimited || j <= row.limit ? fmaf(da[c], past[j][c], sum[j][c]) : sum[j][c];
        }
      }
    }
    if (kOwn) {
#pragma unroll
      for (int c = 0; c < kWidth; ++c) {
        sum[kTaps][c] += da[c];
      }
    }
  }

  /// Writes the gradient that is complete after row i, kTaps - 1 steps before it, and moves on.
  __device__ void settle(int i) {
    const int done = i - (kTaps - 1);
    if (static_cast<unsigned>(done) < static_cast<unsigned>(plain_end)) {
      store_raw<T, kWidth>(dx, owed[kTaps - 1]);
    } else if (done < place.count) {
      settle_at_an_end(place.t0 + done, done >= 0);
    }
    dx += args.dx.stride[1];
#pragma unroll
    for (int j = kTaps - 1; j > 0; --j) {
#pragma unroll
      for (int c = 0; c < kWidth; ++c) {
        owed[j][c] = owed[j - 1][c];
        past[j][c] = past[j - 1][c];
      }
    }
#pragma unroll
    for (int c = 0; c < kWidth; ++c) {
      owed[0][c] = 0;
    }
  }

  /// Inputs that the state after the row holds, and those of the state before it.
  __device__ void settle_at_an_end(int64_t t, bool own) {
    T* to = dx;
    if (!own) {
      if (place.t0 != 0 || t < -kept || !args.dinitial) {
        return;  // an earlier segment's, or nobody's
      }
      to = &args.dinitial(place.b, kept + t, place.channel);
    }
    const int64_t k = t - end.first;
    float out[kWidth];
    Raw<T, kWidth> more = zero_raw<T, kWidth>();
    if (args.dfinal && k >= end.begin && k < kept) {
      more = load_raw<T, kWidth>(&args.dfinal(place.b, k, place.channel));
    }
#pragma unroll
    for (int c = 0; c < kWidth; ++c) {
      out[c] = owed[kTaps - 1][c] + element(more, c);
    }
    store_raw<T, kWidth>(to, out);
  }

  __device__ void walk(typename Feed::Storage& storage) {
    const int64_t left = args.x.size[1] - place.t0;
    const int rows = left < place.count + kTaps - 1 ? static_cast<int>(left) : place.count + kTaps - 1;
    Feed feed(storage, {args.x, args.dy}, args.position, kept, place, rows);
    int i = 0;
    for (; i + kConvUnroll <= place.count; i += kConvUnroll) {
#pragma unroll
      for (int u = 0; u < kConvUnroll; ++u) {
        pass<true>(feed.take(i + u));
        settle(i + u);
      }
    }
#pragma unroll 1
    for (; i < place.count; ++i) {
      pass<true>(feed.take(i));
      settle(i);
    }
#pragma unroll 1
    for (; i < place.count + kTaps - 1; ++i) {
      if (i < rows) {
        pass<false>(feed.take(i));
      }
      settle(i);
    }
  }
};

/// `partial` (item_blocks, sums, D) gets each block's share of dweight, by tap, and of dbias where it is wanted.
template <class T, int kTaps, int kWidth, bool kLimited>
__global__ void __launch_bounds__(kConvThreads, kTaps <= 4 ? 2 : 1)
    backward_kernel(const CausalConv1dBackward<T, float> args, const ConvPlan plan, const ConvRowEnd* row_ends,
                    int sums, float* partial) {
  const int64_t length = args.x.size[1], width = args.x.size[2];
  const ConvPlace place(plan, length, width, kWidth);
  const int taps = static_cast<int>(args.weight.size[1]);
  const ConvRowEnd end = row_ends && place.active ? row_ends[place.b] : ConvRowEnd{length - (taps - 1), 0};
  using Walk = BackwardWalk<T, kTaps, kWidth, kLimited>;
  __shared__ union {
    typename Walk::Feed::Storage feed;
    float sums[kConvThreads * kWidth];
  } shared;
  Walk walk(args, place, end);
  if (place.active) {
    walk.walk(shared.feed);
  }
  const int columns = static_cast<int>(blockDim.x) * kWidth;
#pragma unroll
  for (int j = 0; j <= kTaps; ++j) {
    const int to = j < kTaps ? j : taps;
    if ((j < taps || j == kTaps) && to < sums) {
      __syncthreads();
#pragma unroll
      for (int c = 0; c < kWidth; ++c) {
        shared.sums[static_cast<int>(threadIdx.y) * columns + c * static_cast<int>(blockDim.x) +
                    static_cast<int>(threadIdx.x)] = walk.sum[j][c];
      }
      __syncthreads();
      const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
      for (int column = thread; column < columns; column += kConvThreads) {
        float total = 0;
        for (int y = 0; y < static_cast<int>(blockDim.y); ++y) {
          total += shared.sums[y * columns + column];
        }
        // place.channel is that of this thread; the block's first is needed here.
        const int64_t first = place.channel - int64_t{threadIdx.x} * kWidth;
        const int x = column % static_cast<int>(blockDim.x), c = column / static_cast<int>(blockDim.x);
        const int64_t channel = first + x * kWidth + c;
        if (channel < width) {
          partial[(place.item_block * sums + to) * width + channel] = total;
        }
      }
    }
  }
}

__global__ void __launch_bounds__(kConvThreads)
    row_end_kernel(View<const int64_t, 2> position, int64_t length, int64_t kept, ConvRowEnd* row_ends) {
  const ConvRowEnd end = find_row_end_on_device(position, blockIdx.x, length, kept);
  if (threadIdx.x == 0) {
    row_ends[blockIdx.x] = end;
  }
}

struct AddWeightGradient {
  View<float, 2> dweight;
  View<float, 1> dbias;
  __device__ void operator()(int64_t column, float sum) const {
    const int64_t width = dweight.size[0], taps = dweight.size[1];
    const int64_t j = column / width, channel = column % width;
    if (j < taps) {
      dweight(channel, taps - 1 - j) += sum;
    } else if (dbias) {
      dbias(channel) += sum;
    }
  }
};

template <class T, int kTaps, int kWidth, bool kLimited>
void launch(const Exec& exec, const CausalConv1dBackward<T, float>& args) {
  const int64_t batch = args.x.size[0], length = args.x.size[1], width = args.x.size[2], taps = args.weight.size[1];
  const ConvPlan plan(batch, length, width, kWidth, kBackwardSteps);
  const int64_t sums = taps + (args.dbias ? 1 : 0);
  const Scratch<float> partial(exec, plan.item_blocks * sums * width);
  const bool ends = args.dfinal && args.position;
  const Scratch<ConvRowEnd> row_ends(exec, ends ? batch : 0);
  if (ends) {
    row_end_kernel<<<static_cast<unsigned>(batch), kConvThreads, 0, stream_of(exec)>>>(args.position, length, taps - 1,
                                                                                       row_ends.get());
    check_launch(exec, kOp);
  }
  backward_kernel<T, kTaps, kWidth, kLimited><<<plan.blocks(), plan.threads(), 0, stream_of(exec)>>>(
      args, plan, ends ? row_ends.get() : nullptr, static_cast<int>(sums), partial.get());
  check_launch(exec, kOp);
  sum_rows(exec, kOp, partial.get(), plan.item_blocks, sums * width, AddWeightGradient{args.dweight, args.dbias});
}

template <class T, int kWidth>
void launch_taps(const Exec& exec, const CausalConv1dBackward<T, float>& args) {
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
void causal_conv1d_backward(const Exec& exec, const CausalConv1dBackward<T, float>& args) {
  check_causal_conv1d(args);
  if (args.x.size[0] == 0 || args.x.size[2] == 0) {
    return;
  }
  constexpr int kWidth = 4;
  const bool packs = args.x.size[2] % kWidth == 0 && packs_fit<kWidth>(args.x) && packs_fit<kWidth>(args.dx) &&
                     packs_fit<kWidth>(args.dy) && packs_fit<kWidth>(args.initial) &&
                     packs_fit<kWidth>(args.dinitial) && packs_fit<kWidth>(args.dfinal);
  packs ? launch_taps<T, kWidth>(exec, args) : launch_taps<T, 1>(exec, args);
}

template void causal_conv1d_backward<float>(const Exec&, const CausalConv1dBackward<float, float>&);
template void causal_conv1d_backward<BFloat16>(const Exec&, const CausalConv1dBackward<BFloat16, float>&);

}  // namespace blockstate::kernels::cuda
