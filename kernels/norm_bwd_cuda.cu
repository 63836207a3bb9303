// SPDX-License-Identifier: Apache-2.0
// Backward of the norms. With g = weight * dy and n the normalised row: dh = reciprocal * (g - mean(g) - n * mean(g
// n)). The gradients of the weights are summed over a thread's rows, then over the block's, then over blocks, each in a
// fixed order.
#include "kernels/norm_cuda.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr const char* kOp = "norm_backward";
constexpr int64_t kBackwardBlocks = 132 * 3;

/// Fewer where a thread holds much: three blocks of a multiprocessor are to run at a time.
template <int kRow, int kElements>
constexpr int kBackwardThreads = kRow <= 32 && kElements > 16 ? 128 : kNormThreads<kRow>;

/// `partial` (blocks, 1 or 2, D) gets each block's share of dweight, and of dbias where kBias.
template <class T, class X, class H, int kN, int kRow, int kPacks, bool kBias>
__global__ void __launch_bounds__(kBackwardThreads<kRow, kN * kPacks>)
    backward_kernel(const NormBackward<T, X, H, float> args, float* partial) {
  constexpr int kThreads = kBackwardThreads<kRow, kN * kPacks>, kGroups = kThreads / kRow;
  constexpr int kSums = kBias ? 2 : 1;
  __shared__ float shared[kGroups > 1 ? kThreads * kN : kRow / 32];
  const int lane = static_cast<int>(threadIdx.x) % kRow;
  const int64_t rows = args.h.size[0], columns = args.h.size[1];
  const float inverse = 1.0f / static_cast<float>(columns);
  float weight[kPacks][kN], sums[kSums][kPacks][kN];
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int column = (p * kRow + lane) * kN;
#pragma unroll
    for (int c = 0; c < kN; ++c) {
      weight[p][c] = column < columns ? args.weight.data[column + c] : 0.0f;
#pragma unroll
      for (int s = 0; s < kSums; ++s) {
        sums[s][p][c] = 0;
      }
    }
  }
  for (int64_t first = int64_t{blockIdx.x} * kGroups; first < rows; first += int64_t{gridDim.x} * kGroups) {
    const int64_t row = first + threadIdx.x / kRow;
    const int end = row < rows ? static_cast<int>(columns) : 0;  // no early exit: the others of the warp need us
    Raw<T, kN> dy[kPacks];
    Raw<H, kN> h[kPacks], dh_out[kPacks];
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int column = (p * kRow + lane) * kN;
      dy[p] = zero_raw<T, kN>();
      h[p] = zero_raw<H, kN>();
      dh_out[p] = zero_raw<H, kN>();
      if (column < end) {
        dy[p] = load_raw<T, kN>(args.dy.data + row * args.dy.stride[0] + column);
        h[p] = load_raw<H, kN>(args.h.data + row * args.h.stride[0] + column);
        if (args.dh_out) {
          dh_out[p] = load_raw<H, kN>(args.dh_out.data + row * args.dh_out.stride[0] + column);
        }
      }
    }
    const float reciprocal = end > 0 ? args.reciprocal.data[row] : 0.0f;
    const float mean = end > 0 && args.mean ? args.mean.data[row] : 0.0f;
    float sum = 0, product = 0;
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
#pragma unroll
      for (int c = 0; c < kN; ++c) {
        const float gradient = element(dy[p], c);
        const float g = gradient * weight[p][c];
        const float n = (element(h[p], c) - mean) * reciprocal;
        sum += g;
        product = fmaf(g, n, product);
        sums[0][p][c] = fmaf(gradient, n, sums[0][p][c]);
        if constexpr (kBias) {
          sums[kSums - 1][p][c] += gradient;
        }
      }
    }
    const float mean_g = args.mean ? row_sum<kRow>(sum, shared) * inverse : 0.0f;
    const float mean_gn = row_sum<kRow>(product, shared) * inverse;
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int column = (p * kRow + lane) * kN;
      if (column < end) {
        float out[kN];
#pragma unroll
        for (int c = 0; c < kN; ++c) {
          const float g = fmaf(element(dy[p], c), weight[p][c], -mean_g);
          const float n = (element(h[p], c) - mean) * reciprocal;
          out[c] = fmaf(reciprocal, fmaf(-n, mean_gn, g), element(dh_out[p], c));
        }
        store_raw<H, kN>(args.dh.data + row * args.dh.stride[0] + column, out);
        if (args.dx) {
          store_raw<X, kN>(args.dx.data + row * args.dx.stride[0] + column, out);
        }
      }
    }
  }
  let_next_begin();
  partial += int64_t{blockIdx.x} * kSums * columns;
#pragma unroll
  for (int s = 0; s < kSums; ++s) {
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      if constexpr (kGroups > 1) {
        __syncthreads();
#pragma unroll
        for (int c = 0; c < kN; ++c) {
          shared[c * kThreads + static_cast<int>(threadIdx.x)] = sums[s][p][c];
        }
        __syncthreads();
        for (int i = static_cast<int>(threadIdx.x); i < kRow * kN; i += kThreads) {
          const int c = i / kRow, of = i % kRow, column = (p * kRow + of) * kN + c;
          float total = 0;
#pragma unroll 8
          for (int group = 0; group < kGroups; ++group) {
            total += shared[c * kThreads + group * kRow + of];
          }
          if (column < columns) {
            partial[s * columns + column] = total;
          }
        }
      } else {
        const int column = (p * kRow + lane) * kN;
        if (column < columns) {
          store_raw<float, kN>(partial + s * columns + column, sums[s][p]);
        }
      }
    }
  }
}

/// Any row: two passes over it, by kRow threads.
template <class T, class X, class H, int kRow>
__global__ void __launch_bounds__(256) backward_any_kernel(const NormBackward<T, X, H, float> args) {
  __shared__ float shared[8];
  const int lane = static_cast<int>(threadIdx.x) % kRow;
  const int64_t columns = args.h.size[1], row = (int64_t{blockIdx.x} * 256 + threadIdx.x) / kRow;
  if (row >= args.h.size[0]) {
    return;  // all threads of the row
  }
  const float inverse = 1.0f / static_cast<float>(columns);
  const T* dy = args.dy.data + row * args.dy.stride[0];
  const H* h = args.h.data + row * args.h.stride[0];
  const H* dh_out = args.dh_out ? args.dh_out.data + row * args.dh_out.stride[0] : nullptr;
  H* dh = args.dh.data + row * args.dh.stride[0];
  X* dx = args.dx ? args.dx.data + row * args.dx.stride[0] : nullptr;
  const float reciprocal = args.reciprocal.data[row], mean = args.mean ? args.mean.data[row] : 0.0f;
  float sum = 0, product = 0;
  for (int64_t i = lane; i < columns; i += kRow) {
    const float g = to_float(dy[i]) * args.weight.data[i];
    sum += g;
    product = fmaf(g, (to_float(h[i]) - mean) * reciprocal, product);
  }
  const float mean_g = args.mean ? row_sum<kRow>(sum, shared) * inverse : 0.0f;
  const float mean_gn = row_sum<kRow>(product, shared) * inverse;
  for (int64_t i = lane; i < columns; i += kRow) {
    const float g = fmaf(to_float(dy[i]), args.weight.data[i], -mean_g);
    const float n = (to_float(h[i]) - mean) * reciprocal;
    const float out = fmaf(reciprocal, fmaf(-n, mean_gn, g), dh_out ? to_float(dh_out[i]) : 0.0f);
    dh[i] = from_float<H>(out);
    if (dx) {
      dx[i] = from_float<X>(out);
    }
  }
}

/// A thread a column, a block a piece of the rows. Before backward_any_kernel: dh may lie where dy or h did.
template <class T, class X, class H>
__global__ void __launch_bounds__(256)
    weights_any_kernel(const NormBackward<T, X, H, float> args, int64_t piece, float* partial) {
  const int64_t rows = args.h.size[0], columns = args.h.size[1], sums = args.dbias ? 2 : 1;
  const int64_t sides = ceil_div<int64_t>(columns, 256), at = blockIdx.x / sides;
  const int64_t column = blockIdx.x % sides * 256 + threadIdx.x;
  if (column >= columns) {
    return;
  }
  float dweight = 0, dbias = 0;
  const int64_t last = (at + 1) * piece < rows ? (at + 1) * piece : rows;
#pragma unroll 4
  for (int64_t row = at * piece; row < last; ++row) {
    const float gradient = to_float(args.dy.data[row * args.dy.stride[0] + column]);
    const float h = to_float(args.h.data[row * args.h.stride[0] + column]);
    const float mean = args.mean ? args.mean.data[row] : 0.0f;
    dweight = fmaf(gradient, (h - mean) * args.reciprocal.data[row], dweight);
    dbias += gradient;
  }
  partial[at * sums * columns + column] = dweight;
  if (sums == 2) {
    partial[(at * sums + 1) * columns + column] = dbias;
  }
}

struct AddWeightGradient {
  float *dweight, *dbias;
  int64_t columns;
  __device__ void operator()(int64_t i, float sum) const { (i < columns ? dweight[i] : dbias[i - columns]) += sum; }
};

template <class T, class X, class H, int kRow>
void launch_any(const Exec& exec, const NormBackward<T, X, H, float>& args) {
  backward_any_kernel<T, X, H, kRow>
      <<<static_cast<unsigned>(ceil_div<int64_t>(args.h.size[0], 256 / kRow)), 256, 0, stream_of(exec)>>>(args);
  check_launch(exec, kOp);
}

template <class T, class X, class H>
void backward_any(const Exec& exec, const NormBackward<T, X, H, float>& args) {
  const int64_t rows = args.h.size[0], columns = args.h.size[1], sums = args.dbias ? 2 : 1;
  const int64_t piece = std::max<int64_t>(16, ceil_div<int64_t>(rows, 512)), pieces = ceil_div(rows, piece);
  const Scratch<float> partial(exec, pieces * sums * columns);
  weights_any_kernel<T, X, H>
      <<<static_cast<unsigned>(pieces * ceil_div<int64_t>(columns, 256)), 256, 0, stream_of(exec)>>>(args, piece,
                                                                                                     partial.get());
  check_launch(exec, kOp);
  columns <= 1024 ? launch_any<T, X, H, 32>(exec, args) : launch_any<T, X, H, 256>(exec, args);
  sum_rows(exec, kOp, partial.get(), pieces, sums * columns,
           AddWeightGradient{args.dweight.data, args.dbias.data, columns});
}

}  // namespace

template <class T, class X, class H>
void norm_backward(const Exec& exec, const NormBackward<T, X, H, float>& args) {
  check_norm(args);
  const int64_t rows = args.h.size[0], columns = args.h.size[1];
  if (rows == 0 || columns == 0) {
    return;
  }
  constexpr int kN = kNormPack<T, X, H>;
  const bool packs = columns % kN == 0 && packs_fit<kN>(args.dy) && packs_fit<kN>(args.dh) && packs_fit<kN>(args.h) &&
                     packs_fit<kN>(args.dh_out) && packs_fit<kN>(args.dx);
  const auto launch = [&](auto row, auto count) {
    constexpr int kRow = decltype(row)::value, kPacks = decltype(count)::value;
    constexpr int kThreads = kBackwardThreads<kRow, kN * kPacks>;
    const int64_t blocks = std::min(kBackwardBlocks, ceil_div<int64_t>(rows, kThreads / kRow));
    const int64_t sums = args.dbias ? 2 : 1;
    const Scratch<float> partial(exec, blocks * sums * columns);
    const auto kernel = args.dbias ? backward_kernel<T, X, H, kN, kRow, kPacks, true>
                                   : backward_kernel<T, X, H, kN, kRow, kPacks, false>;
    kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream_of(exec)>>>(args, partial.get());
    check_launch(exec, kOp);
    sum_rows(exec, kOp, partial.get(), blocks, sums * columns,
             AddWeightGradient{args.dweight.data, args.dbias.data, columns});
  };
  if (!packs || !for_row_shape<kN>(columns, launch)) {
    backward_any(exec, args);
  }
}

template void norm_backward(const Exec&, const NormBackward<float, float, float, float>&);
template void norm_backward(const Exec&, const NormBackward<BFloat16, BFloat16, float, float>&);
template void norm_backward(const Exec&, const NormBackward<BFloat16, float, float, float>&);
template void norm_backward(const Exec&, const NormBackward<BFloat16, BFloat16, BFloat16, float>&);

}  // namespace blockstate::kernels::cuda
