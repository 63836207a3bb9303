// SPDX-License-Identifier: Apache-2.0
// Products of up to some tens of rows with a weight, as steps of generation make them: what counts is how soon the
// weight is there, so its rows are spread over many blocks and their columns over the warps of a block.
#pragma once

#include "kernels/cuda_launch.cuh"
#include "kernels/gemm.h"

namespace blockstate::kernels::cuda {

/// d (16, 8) += a (16, 16) b (16, 8), bfloat16. Lane l has a[0] at row l / 4, columns 2 (l % 4) + 0, 1; a[1] 8 rows,
/// a[2] 8 columns, a[3] both further; b[0] and b[1] like a[0] and a[2], of column l / 4; d[0], d[1] like a[0], d[2],
/// d[3] like a[1].
__device__ inline void multiply_tile(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                     uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ inline uint4 load_16_bytes(const BFloat16* from) { return *reinterpret_cast<const uint4*>(from); }

/// A block makes 16 kRowTiles rows of 8 kColumnTiles columns of c (M, N) = a (M, K) b (N, K) transposed (+ bias). Each
/// warp takes 32 columns of a and b out of 32 kWarps; lane l reads 8 neighbours of them, 8 (l % 4) on. Which of the
/// columns meet in one tile's product does not matter, as long as those of a and b are the same.
/// K a multiple of 8; rows of a and b aligned to 16 bytes.
/// `results` says what becomes of a sum: results.prepare(m, n) reads early what results.finish(prepared, m, n, sum)
/// will want.
template <class Results, int kRowTiles, int kColumnTiles, int kWarps, int kDepth>
__global__ void __launch_bounds__(32 * kWarps)
    few_rows_kernel(const View<const BFloat16, 2> a, const View<const BFloat16, 2> b, const Results results) {
  constexpr int kThreads = 32 * kWarps, kRows = 16 * kRowTiles, kColumns = 8 * kColumnTiles;
  constexpr int kResults = ceil_div(kRows * kColumns, kThreads);  // of a thread
  __shared__ float partial[kWarps][kRows][kColumns];
  let_next_begin();
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t M = a.size[0], N = b.size[0], K = a.size[1];
  const int64_t first_row = int64_t{blockIdx.y} * kRows, first_column = int64_t{blockIdx.x} * kColumns;
  // Rows and columns beyond the last are the last once more: loads without conditions are all under way at once.
  const BFloat16 *weight[kColumnTiles], *x[2 * kRowTiles];
#pragma unroll
  for (int j = 0; j < kColumnTiles; ++j) {
    const int64_t n = first_column + 8 * j + lane / 4;
    weight[j] = b.data + (n < N ? n : N - 1) * b.stride[0] + 8 * (lane % 4);
  }
#pragma unroll
  for (int r = 0; r < 2 * kRowTiles; ++r) {
    const int64_t m = first_row + 8 * r + lane / 4;
    x[r] = a.data + (m < M ? m : M - 1) * a.stride[0] + 8 * (lane % 4);
  }
  for (int64_t k = 32 * warp; k + 8 * (lane % 4) < K; k += 32 * kWarps) {
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      if (lane % 2 == 0) {
        prefetch_to_l2(weight[j] + k);
      }
    }
  }
  const auto result_row = [&](int i) { return first_row + (static_cast<int>(threadIdx.x) + i * kThreads) / kColumns; };
  const auto result_column = [&](int i) { return first_column + (threadIdx.x + i * kThreads) % kColumns; };
  const auto has_result = [&](int i) {
    return static_cast<int>(threadIdx.x) + i * kThreads < kRows * kColumns && result_row(i) < M && result_column(i) < N;
  };
#pragma unroll
  for (int i = 0; i < kResults; ++i) {
    if (has_result(i)) {
      results.prefetch(result_row(i), result_column(i));
    }
  }
  wait_for_earlier_work();
  float sum[kRowTiles][kColumnTiles][4] = {};
  uint4 w[kDepth][kColumnTiles], v[kDepth][kRowTiles][2];
  bool there[kDepth];
  const auto load = [&](int64_t k0) {
#pragma unroll
    for (int i = 0; i < kDepth; ++i) {
      const int64_t k = k0 + 32 * kWarps * i;
      there[i] = k + 8 * (lane % 4) < K;
      const int64_t from = there[i] ? k : -8 * (lane % 4);
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
        w[i][j] = load_16_bytes(weight[j] + from);
      }
#pragma unroll
      for (int r = 0; r < 2 * kRowTiles; ++r) {
        v[i][r / 2][r % 2] = load_16_bytes(x[r] + from);
      }
    }
    __syncwarp();  // no product before all loads are under way
  };
  load(32 * warp);
  typename Results::Prepared prepared[kResults];
#pragma unroll
  for (int i = 0; i < kResults; ++i) {
    if (has_result(i)) {
      prepared[i] = results.prepare(result_row(i), result_column(i));
    }
  }

  for (int64_t k0 = 32 * warp; k0 < K;) {
#pragma unroll
    for (int i = 0; i < kDepth; ++i) {
      if (!there[i]) {  // 0 times what was read instead might not be 0
#pragma unroll
        for (int j = 0; j < kColumnTiles; ++j) {
          w[i][j] = make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (int r = 0; r < 2 * kRowTiles; ++r) {
          v[i][r / 2][r % 2] = make_uint4(0, 0, 0, 0);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kDepth; ++i) {
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
        for (int j = 0; j < kColumnTiles; ++j) {
          const uint4 low = v[i][r][0], high = v[i][r][1];
          multiply_tile(sum[r][j], low.x, high.x, low.y, high.y, w[i][j].x, w[i][j].y);
          multiply_tile(sum[r][j], low.z, high.z, low.w, high.w, w[i][j].z, w[i][j].w);
        }
      }
    }
    k0 += 32 * kWarps * kDepth;
    if (k0 < K) {
      load(k0);
    }
  }
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        *reinterpret_cast<float2*>(&partial[warp][16 * r + 8 * half + lane / 4][8 * j + 2 * (lane % 4)]) =
            make_float2(sum[r][j][2 * half], sum[r][j][2 * half + 1]);
      }
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kResults; ++i) {
    if (has_result(i)) {
      const int at = static_cast<int>(threadIdx.x) + i * kThreads;
      float total = 0;
#pragma unroll
      for (int other = 0; other < kWarps; ++other) {
        total += partial[other][at / kColumns][at % kColumns];
      }
      results.finish(prepared[i], result_row(i), result_column(i), total);
    }
  }
}

/// What a product does with its sums.
template <class C>
struct ProductResults {
  using Prepared = float;  // bias
  View<C, 2> c;
  View<const float, 1> bias;
  float alpha;

  __device__ void prefetch(int64_t, int64_t) const {}
  __device__ float prepare(int64_t, int64_t n) const { return bias ? bias.data[n] : 0.0f; }
  __device__ void finish(float added, int64_t m, int64_t n, float sum) const {
    c.data[m * c.stride[0] + n] = from_float<C>(alpha * sum + added);
  }
};

// Measured on an H100 against cuBLASLt: beyond so many rows it is faster, unless the weight is small.
inline constexpr int64_t kFewRows = 32;
inline constexpr int64_t kFewRowsOfSmall = 128, kSmallWeight = 1 << 18;

/// Whether few_rows serves a product of these factors, b transposed.
inline bool has_few_rows(const View<const BFloat16, 2>& a, const View<const BFloat16, 2>& b) {
  const auto aligned = [](const View<const BFloat16, 2>& rows) {
    return reinterpret_cast<uintptr_t>(rows.data) % 16 == 0 && (rows.size[0] <= 1 || rows.stride[0] % 8 == 0);
  };
  const int64_t most = b.elements() <= kSmallWeight ? kFewRowsOfSmall : kFewRows;
  return a.size[0] <= most && b.size[0] < (int64_t{1} << 31) && a.size[1] % 8 == 0 && aligned(a) && aligned(b);
}

template <class Results>
void few_rows(const Exec& exec, const char* op, const View<const BFloat16, 2>& a, const View<const BFloat16, 2>& b,
              const Results& results) {
  const int64_t M = a.size[0], N = b.size[0], K = a.size[1];
  const auto blocks = [&](int64_t row_tiles, int64_t column_tiles) {
    return ceil_div<int64_t>(M, 16 * row_tiles) * ceil_div<int64_t>(N, 8 * column_tiles);
  };
  const auto launch = [&](auto row_tiles, auto column_tiles, auto warps, auto depth) {
    const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(N, 8 * column_tiles())),
                    static_cast<unsigned>(ceil_div<int64_t>(M, 16 * row_tiles())));
    launch_early<few_rows_kernel<Results, row_tiles(), column_tiles(), warps(), depth()>>(exec, op, grid, 32 * warps(),
                                                                                          0, a, b, results);
  };
  const std::integral_constant<int, 1> one;
  const std::integral_constant<int, 2> two;
  const std::integral_constant<int, 3> three;
  const std::integral_constant<int, 4> four;
  const std::integral_constant<int, 6> six;
  const std::integral_constant<int, 8> eight;
  const std::integral_constant<int, 16> sixteen;
  // Tiles as small as still makes no more blocks than run at once: each block then has little to wait for. As measured.
  if (blocks(1, 1) <= 128) {
    launch(one, one, sixteen, three);
  } else if (blocks(1, 2) <= 256) {
    K > 1024 ? launch(one, two, eight, six) : launch(one, two, eight, three);
  } else {
    launch(two, four, eight, three);
  }
}

}  // namespace blockstate::kernels::cuda
