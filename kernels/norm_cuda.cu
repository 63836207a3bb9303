// SPDX-License-Identifier: Apache-2.0
#include "kernels/norm_cuda.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr const char* kOp = "norm_forward";

template <class T, class X, class H, int kN, int kRow, int kPacks>
__global__ void __launch_bounds__(kNormThreads<kRow>) forward_kernel(const NormForward<T, X, H, float> args) {
  constexpr int kGroups = kNormThreads<kRow> / kRow;
  __shared__ float shared[kRow > 32 ? kRow / 32 : 1];
  const int lane = static_cast<int>(threadIdx.x) % kRow;
  const int64_t rows = args.x.size[0], columns = args.x.size[1];
  const float inverse = 1.0f / static_cast<float>(columns);
  let_next_begin();
  prefetch_to_l2(args.weight.data, columns, threadIdx.x, kNormThreads<kRow>);
  wait_for_earlier_work();
  float weight[kPacks][kN];
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int column = (p * kRow + lane) * kN;
#pragma unroll
    for (int c = 0; c < kN; ++c) {
      weight[p][c] = column < columns ? args.weight.data[column + c] : 0.0f;
    }
  }
  for (int64_t first = int64_t{blockIdx.x} * kGroups; first < rows; first += int64_t{gridDim.x} * kGroups) {
    const int64_t row = first + threadIdx.x / kRow;
    const int end = row < rows ? static_cast<int>(columns) : 0;  // no early exit: the others of the warp need us
    Raw<X, kN> x[kPacks];
    Raw<H, kN> residual[kPacks];
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int column = (p * kRow + lane) * kN;
      x[p] = zero_raw<X, kN>();
      residual[p] = zero_raw<H, kN>();
      if (column < end) {
        x[p] = load_raw<X, kN>(args.x.data + row * args.x.stride[0] + column);
        if (args.residual) {
          residual[p] = load_raw<H, kN>(args.residual.data + row * args.residual.stride[0] + column);
        }
      }
    }
    float h[kPacks][kN];
    float sum = 0, squares = 0;
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int column = (p * kRow + lane) * kN;
#pragma unroll
      for (int c = 0; c < kN; ++c) {
        h[p][c] = element(x[p], c) + element(residual[p], c);
        sum += h[p][c];
        squares = fmaf(h[p][c], h[p][c], squares);
      }
      if (args.h && column < end) {
        store_raw<H, kN>(args.h.data + row * args.h.stride[0] + column, h[p]);
      }
    }
    float mean = 0;
    if (args.mean) {  // the squares again, about the mean: no cancellation
      mean = row_sum<kRow>(sum, shared) * inverse;
      squares = 0;
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
        const bool there = (p * kRow + lane) * kN < end;
#pragma unroll
        for (int c = 0; c < kN; ++c) {
          h[p][c] -= mean;
          squares = there ? fmaf(h[p][c], h[p][c], squares) : squares;
        }
      }
    }
    const float reciprocal = rsqrtf(row_sum<kRow>(squares, shared) * inverse + args.epsilon);
    if (lane == 0 && end > 0) {
      args.reciprocal.data[row] = reciprocal;
      if (args.mean) {
        args.mean.data[row] = mean;
      }
    }
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int column = (p * kRow + lane) * kN;
      if (column < end) {
#pragma unroll
        for (int c = 0; c < kN; ++c) {
          h[p][c] *= reciprocal * weight[p][c];
        }
        if (args.bias) {
#pragma unroll
          for (int c = 0; c < kN; ++c) {
            h[p][c] += args.bias.data[column + c];
          }
        }
        store_raw<T, kN>(args.y.data + row * args.y.stride[0] + column, h[p]);
      }
    }
  }
}

/// Any row: three passes over it, by kRow threads.
template <class T, class X, class H, int kRow>
__global__ void __launch_bounds__(256) forward_any_kernel(const NormForward<T, X, H, float> args) {
  __shared__ float shared[8];
  const int lane = static_cast<int>(threadIdx.x) % kRow;
  const int64_t columns = args.x.size[1], row = (int64_t{blockIdx.x} * 256 + threadIdx.x) / kRow;
  let_next_begin();
  wait_for_earlier_work();
  if (row >= args.x.size[0]) {
    return;  // all threads of the row
  }
  const float inverse = 1.0f / static_cast<float>(columns);
  const X* x = args.x.data + row * args.x.stride[0];
  const H* residual = args.residual ? args.residual.data + row * args.residual.stride[0] : nullptr;
  H* written = args.h ? args.h.data + row * args.h.stride[0] : nullptr;
  T* y = args.y.data + row * args.y.stride[0];
  const auto h = [&](int64_t i) { return to_float(x[i]) + (residual ? to_float(residual[i]) : 0.0f); };
  float mean = 0, sum = 0;
  if (args.mean) {
    for (int64_t i = lane; i < columns; i += kRow) {
      sum += h(i);
    }
    mean = row_sum<kRow>(sum, shared) * inverse;
  }
  float squares = 0;
  for (int64_t i = lane; i < columns; i += kRow) {
    const float v = h(i) - mean;
    squares = fmaf(v, v, squares);
  }
  const float reciprocal = rsqrtf(row_sum<kRow>(squares, shared) * inverse + args.epsilon);
  for (int64_t i = lane; i < columns; i += kRow) {
    const float v = h(i);
    if (written) {
      written[i] = from_float<H>(v);
    }
    y[i] = from_float<T>(fmaf(v - mean, reciprocal * args.weight.data[i], args.bias ? args.bias.data[i] : 0.0f));
  }
  if (lane == 0) {
    args.reciprocal.data[row] = reciprocal;
    if (args.mean) {
      args.mean.data[row] = mean;
    }
  }
}

template <class T, class X, class H, int kRow>
void launch_any(const Exec& exec, const NormForward<T, X, H, float>& args) {
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(args.x.size[0], 256 / kRow)));
  launch_early<forward_any_kernel<T, X, H, kRow>>(exec, kOp, grid, 256, 0, args);
}

}  // namespace

template <class T, class X, class H>
void norm_forward(const Exec& exec, const NormForward<T, X, H, float>& args) {
  check_norm(args);
  const int64_t rows = args.x.size[0], columns = args.x.size[1];
  if (rows == 0 || columns == 0) {
    return;
  }
  constexpr int kN = kNormPack<T, X, H>;
  const bool packs = columns % kN == 0 && packs_fit<kN>(args.x) && packs_fit<kN>(args.y) && packs_fit<kN>(args.h) &&
                     packs_fit<kN>(args.residual);
  const auto launch = [&](auto row, auto count) {
    constexpr int kRow = decltype(row)::value, kPacks = decltype(count)::value, kThreads = kNormThreads<kRow>;
    // A block for each group of rows: measured faster than blocks that stay and take one group after another.
    const int64_t blocks = ceil_div<int64_t>(rows, kThreads / kRow);
    launch_early<forward_kernel<T, X, H, kN, kRow, kPacks>>(exec, kOp, static_cast<unsigned>(blocks), kThreads, 0,
                                                            args);
  };
  if (!packs || !for_row_shape<kN>(columns, launch)) {
    columns <= 1024 ? launch_any<T, X, H, 32>(exec, args) : launch_any<T, X, H, 256>(exec, args);
  }
}

template void norm_forward(const Exec&, const NormForward<float, float, float, float>&);
template void norm_forward(const Exec&, const NormForward<BFloat16, BFloat16, float, float>&);
template void norm_forward(const Exec&, const NormForward<BFloat16, float, float, float>&);
template void norm_forward(const Exec&, const NormForward<BFloat16, BFloat16, BFloat16, float>&);

}  // namespace blockstate::kernels::cuda
