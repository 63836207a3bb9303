// SPDX-License-Identifier: Apache-2.0
// Rows of few classes lie in the registers of a few threads (one or two for the smallest, so that a warp takes many
// rows); long rows are walked by a block, which keeps a running maximum and sum. Both read a row once.
#include <algorithm>
#include <cstdint>

#include "kernels/cross_entropy_check.h"
#include "kernels/cuda_packs.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kShortRow = 32;  // classes that a thread walks alone, element by element
constexpr float kLowest = -INFINITY;

template <class T>
constexpr int kPack = 16 / static_cast<int>(sizeof(T));

/// What the forward pass writes, from a row's maximum, the sum of exp(x - maximum) and the sum of x - maximum.
template <class T>
__device__ inline void write_loss(const CrossEntropyForward<T, float>& args, int64_t row, int64_t target, float maximum,
                                  float sum, float plain) {
  const float log_sum = logf(sum);
  float loss = log_sum - (to_float(args.logits.data[row * args.logits.stride[0] + target]) - maximum);
  if (args.label_smoothing != 0) {
    const float mean = plain / static_cast<float>(args.logits.size[1]);
    loss = (1.0f - args.label_smoothing) * loss + args.label_smoothing * (log_sum - mean);
  }
  args.loss(row) = loss;
  args.log_sum_exp(row) = log_sum + maximum;
}

template <class T>
__device__ inline void write_ignored(const CrossEntropyForward<T, float>& args, int64_t row) {
  args.loss(row) = 0;
  args.log_sum_exp(row) = 0;
}

/// kRow threads a row, kPacks packs each.
template <class T, int kRow, int kPacks>
__global__ void __launch_bounds__(kThreads) loss_kernel(const CrossEntropyForward<T, float> args) {
  constexpr int kN = kPack<T>;
  const int lane = static_cast<int>(threadIdx.x) % kRow, classes = static_cast<int>(args.logits.size[1]);
  const int64_t rows = args.logits.size[0], row = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kRow;
  const int64_t target = row < rows ? args.targets(row) : -1;
  const bool counts = target >= 0 && target < classes;
  Raw<T, kN> raw[kPacks];
  const T* x = args.logits.data + row * args.logits.stride[0];
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int column = (p * kRow + lane) * kN;
    if (counts && column < classes) {
      raw[p] = load_raw<T, kN>(x + column);
    }
  }
  float maximum = kLowest;
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    if ((p * kRow + lane) * kN < classes) {
#pragma unroll
      for (int c = 0; c < kN; ++c) {
        maximum = fmaxf(maximum, element(raw[p], c));
      }
    }
  }
  maximum = warp_max<kRow>(maximum);
  float sum = 0, plain = 0;
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    if ((p * kRow + lane) * kN < classes) {
#pragma unroll
      for (int c = 0; c < kN; ++c) {
        const float v = element(raw[p], c) - maximum;
        sum += __expf(v);
        plain += v;
      }
    }
  }
  sum = warp_sum<kRow>(sum);
  if (args.label_smoothing != 0) {
    plain = warp_sum<kRow>(plain);
  }
  if (lane == 0 && row < rows) {
    counts ? write_loss(args, row, target, maximum, sum, plain) : write_ignored(args, row);
  }
}

/// A thread a row of a few classes, however they lie.
template <class T>
__global__ void __launch_bounds__(kThreads) loss_of_short_rows_kernel(const CrossEntropyForward<T, float> args) {
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= args.logits.size[0]) {
    return;
  }
  const int classes = static_cast<int>(args.logits.size[1]);
  const int64_t target = args.targets(row);
  if (target < 0 || target >= classes) {
    write_ignored(args, row);
    return;
  }
  const T* x = args.logits.data + row * args.logits.stride[0];
  float maximum = kLowest;
  for (int v = 0; v < classes; ++v) {
    maximum = fmaxf(maximum, to_float(x[v]));
  }
  float sum = 0, plain = 0;
  for (int v = 0; v < classes; ++v) {
    sum += __expf(to_float(x[v]) - maximum);
    plain += to_float(x[v]) - maximum;
  }
  write_loss(args, row, target, maximum, sum, plain);
}

/// exp(value - maximum), also where both are -inf: a thread that has seen nothing yet.
__device__ inline float exp_below(float value, float maximum) {
  return value == maximum ? 1.0f : __expf(value - maximum);
}

/// A block a row. kN: 1 where packs cannot be read.
template <class T, int kN>
__global__ void __launch_bounds__(kThreads) loss_of_long_rows_kernel(const CrossEntropyForward<T, float> args) {
  __shared__ float shared[kThreads / 32];
  const int64_t row = blockIdx.x, classes = args.logits.size[1], target = args.targets(row);
  if (target < 0 || target >= classes) {
    if (threadIdx.x == 0) {
      write_ignored(args, row);
    }
    return;
  }
  const T* x = args.logits.data + row * args.logits.stride[0];
  float maximum = kLowest, sum = 0, all = 0;
#pragma unroll 2
  for (int64_t column = int64_t{threadIdx.x} * kN; column < classes; column += kThreads * kN) {
    const Raw<T, kN> raw = load_raw<T, kN>(x + column);
    float higher = maximum;
#pragma unroll
    for (int c = 0; c < kN; ++c) {
      higher = fmaxf(higher, element(raw, c));
    }
    sum *= exp_below(maximum, higher);
    maximum = higher;
#pragma unroll
    for (int c = 0; c < kN; ++c) {
      sum += exp_below(element(raw, c), maximum);
      all += element(raw, c);
    }
  }
  float highest = warp_max(maximum);
  if (threadIdx.x % 32 == 0) {
    shared[threadIdx.x / 32] = highest;
  }
  __syncthreads();
  for (const float of_warp : shared) {
    highest = fmaxf(highest, of_warp);
  }
  sum = sum == 0 ? 0 : sum * exp_below(maximum, highest);  // 0: the thread had no class
  sum = block_sum<kThreads>(sum, shared);
  all = args.label_smoothing != 0 ? block_sum<kThreads>(all, shared) : 0;
  if (threadIdx.x == 0) {
    write_loss(args, row, target, highest, sum, all - highest * static_cast<float>(classes));
  }
}

/// kRow threads a row (a power of two up to kThreads), kN elements at a time.
template <class T, int kN, int kRow>
__global__ void __launch_bounds__(kThreads) gradient_kernel(const CrossEntropyBackward<T, float> args) {
  const int64_t rows = args.logits.size[0], classes = args.logits.size[1];
  const int64_t row = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kRow;
  if (row >= rows) {
    return;
  }
  const int64_t target = args.targets(row);
  const bool counts = target >= 0 && target < classes;
  const T* x = args.logits.data + row * args.logits.stride[0];
  T* dx = args.dlogits.data + row * args.dlogits.stride[0];
  const float scale = counts ? args.dloss(row) : 0.0f, log_sum_exp = counts ? args.log_sum_exp(row) : 0.0f;
  const float spread = scale * args.label_smoothing / static_cast<float>(classes);
  const float peak = scale * (1.0f - args.label_smoothing);
#pragma unroll 4
  for (int64_t column = threadIdx.x % kRow * kN; column < classes; column += kRow * kN) {
    float out[kN];
    if (counts) {
      const Raw<T, kN> raw = load_raw<T, kN>(x + column);
      const int at = static_cast<int>(target - column);
#pragma unroll
      for (int c = 0; c < kN; ++c) {
        out[c] = fmaf(__expf(element(raw, c) - log_sum_exp), scale, -spread);
        out[c] -= c == at ? peak : 0.0f;
      }
    } else {
#pragma unroll
      for (int c = 0; c < kN; ++c) {
        out[c] = 0;
      }
    }
    store_raw<T, kN>(dx + column, out);
  }
}

unsigned blocks_for(int64_t rows, int64_t threads_a_row) {
  return static_cast<unsigned>(ceil_div<int64_t>(rows, kThreads / threads_a_row));
}

template <class T, int kRow, int kPacks>
bool launch_loss(const Exec& exec, const CrossEntropyForward<T, float>& args) {
  if (args.logits.size[1] > int64_t{kRow} * kPacks * kPack<T>) {
    return false;
  }
  loss_kernel<T, kRow, kPacks><<<blocks_for(args.logits.size[0], kRow), kThreads, 0, stream_of(exec)>>>(args);
  return true;
}

template <class T, int kN>
void launch_gradient(const Exec& exec, const CrossEntropyBackward<T, float>& args) {
  const int64_t rows = args.logits.size[0], packs = ceil_div<int64_t>(args.logits.size[1], kN);
  const cudaStream_t stream = stream_of(exec);
  if (packs <= 2) {
    gradient_kernel<T, kN, 2><<<blocks_for(rows, 2), kThreads, 0, stream>>>(args);
  } else if (packs <= 32) {
    gradient_kernel<T, kN, 8><<<blocks_for(rows, 8), kThreads, 0, stream>>>(args);
  } else if (packs <= 256) {
    gradient_kernel<T, kN, 32><<<blocks_for(rows, 32), kThreads, 0, stream>>>(args);
  } else {
    gradient_kernel<T, kN, kThreads><<<blocks_for(rows, kThreads), kThreads, 0, stream>>>(args);
  }
}

}  // namespace

template <class T>
void cross_entropy_forward(const Exec& exec, const CrossEntropyForward<T, float>& args) {
  check_cross_entropy(args);
  const int64_t rows = args.logits.size[0], classes = args.logits.size[1];
  if (rows == 0) {
    return;
  }
  constexpr int kN = kPack<T>;
  const bool packs = classes % kN == 0 && packs_fit<kN>(args.logits);
  const bool done =
      packs &&
      (launch_loss<T, 1, 1>(exec, args) || launch_loss<T, 2, 1>(exec, args) || launch_loss<T, 4, 1>(exec, args) ||
       launch_loss<T, 8, 1>(exec, args) || launch_loss<T, 8, 2>(exec, args) || launch_loss<T, 8, 4>(exec, args) ||
       launch_loss<T, 32, 2>(exec, args) || launch_loss<T, 32, 4>(exec, args) || launch_loss<T, 32, 8>(exec, args));
  if (!done && classes <= kShortRow) {
    loss_of_short_rows_kernel<T><<<blocks_for(rows, 1), kThreads, 0, stream_of(exec)>>>(args);
  } else if (!done) {
    const auto kernel = packs ? loss_of_long_rows_kernel<T, kN> : loss_of_long_rows_kernel<T, 1>;
    kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream_of(exec)>>>(args);
  }
  check_launch(exec, "cross_entropy_forward");
}

template <class T>
void cross_entropy_backward(const Exec& exec, const CrossEntropyBackward<T, float>& args) {
  check_cross_entropy(args);
  if (args.logits.size[0] == 0 || args.logits.size[1] == 0) {
    return;
  }
  constexpr int kN = kPack<T>;
  const bool packs = args.logits.size[1] % kN == 0 && packs_fit<kN>(args.logits) && packs_fit<kN>(args.dlogits);
  packs ? launch_gradient<T, kN>(exec, args) : launch_gradient<T, 1>(exec, args);
  check_launch(exec, "cross_entropy_backward");
}

template void cross_entropy_forward<float>(const Exec&, const CrossEntropyForward<float, float>&);
template void cross_entropy_forward<BFloat16>(const Exec&, const CrossEntropyForward<BFloat16, float>&);
template void cross_entropy_backward<float>(const Exec&, const CrossEntropyBackward<float, float>&);
template void cross_entropy_backward<BFloat16>(const Exec&, const CrossEntropyBackward<BFloat16, float>&);

}  // namespace blockstate::kernels::cuda
