// SPDX-License-Identifier: Apache-2.0
// Backward pass of range attention on any GPU, in float32 whatever is stored: exact, deterministic, not the fastest.
// Two kernels form the scores anew: one owns a tile of keys and walks the queries that see it (dk, dv), one owns a tile
// of queries and walks the keys that it sees (dq). Nothing is added across CTAs, so there is one order of sums.
// attention_bwd_wgmma_cuda.cu is the fast one for bfloat16 on sm_90a.
#include <algorithm>

#include "kernels/attention_bwd_cuda.cuh"
#include "kernels/attention_check.h"
#include "kernels/attention_tiles.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 256;                          // 16 by 16
constexpr int64_t kBiasRowBytes = int64_t{128} << 20;  // working memory for the gradients of biases

template <class T>
struct Problem {
  AttentionBackward<T, float> args;
  const QueryTileKeys* summary;
  const IntRange* ranges;
  const IntRange* visitors;
  const float* projection;  // (B, L, H)
  int query_tiles;
  int key_tiles;
  float* dbias_rows;  // (tiles of one launch, M); absent: none
  int64_t first_task;
};

/// dy . y of every query, a warp each.
template <class T>
__global__ void project(View<const T, 4> dy, View<const T, 4> y, float* projection) {
  const int64_t task = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  const int64_t H = y.size[2], L = y.size[1];
  if (task >= y.size[0] * L * H) {
    return;
  }
  const T* const a = &dy(task / H / L, task / H % L, task % H, 0);
  const T* const b = &y(task / H / L, task / H % L, task % H, 0);
  float sum = 0;
  for (int64_t p = threadIdx.x % 32; p < y.size[3]; p += 32) {
    sum += to_float(a[p]) * to_float(b[p]);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) {
    projection[task] = sum;
  }
}

template <int kP, int kTile>
struct Layout {
  static constexpr int kPitch = kP + 4;  // of rows of q, k, v, dy: rows start in different banks, 16-byte aligned
  static constexpr int kWeightPitch = kTile + 4;
  static constexpr int kRows = kTile / 16;  // rows and columns of the scores of a thread
  static constexpr int kColumns = kP / 64;  // groups of four columns of a gradient of a thread
  static constexpr int kTileFloats = kTile * kPitch;
  static constexpr int kBytes = (4 * kTileFloats + kTile * kWeightPitch) * static_cast<int>(sizeof(float));
};

/// Rows [first, first + kTile) of one row and head, zeros past the ends.
template <int kP, int kTile, class T>
__device__ void load_tile(View<const T, 4> view, int64_t b, int64_t h, int first, float* to) {
  const int P = static_cast<int>(view.size[3]);
  for (int x = static_cast<int>(threadIdx.x); x < kTile * kP; x += kThreads) {
    const int row = x / kP, p = x % kP;
    const bool inside = p < P && first + row < view.size[1];
    to[row * Layout<kP, kTile>::kPitch + p] = inside ? to_float(view(b, int64_t{first} + row, h, p)) : 0.f;
  }
}

/// out[r][c] = a[row + 16 r] . b[column + 16 c]
template <int kP, int kTile>
__device__ void products(const float* a, const float* b,
                         float (&out)[Layout<kP, kTile>::kRows][Layout<kP, kTile>::kRows]) {
  constexpr int kRows = Layout<kP, kTile>::kRows, kPitch = Layout<kP, kTile>::kPitch;
  a += threadIdx.x / 16 * kPitch;
  b += threadIdx.x % 16 * kPitch;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int c = 0; c < kRows; ++c) {
      out[r][c] = 0;
    }
  }
#pragma unroll 4
  for (int p = 0; p < kP; p += 4) {
    float4 left[kRows], right[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      left[r] = *reinterpret_cast<const float4*>(a + r * 16 * kPitch + p);
      right[r] = *reinterpret_cast<const float4*>(b + r * 16 * kPitch + p);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int c = 0; c < kRows; ++c) {
        out[r][c] = fmaf(left[r].x, right[c].x, out[r][c]);
        out[r][c] = fmaf(left[r].y, right[c].y, out[r][c]);
        out[r][c] = fmaf(left[r].z, right[c].z, out[r][c]);
        out[r][c] = fmaf(left[r].w, right[c].w, out[r][c]);
      }
    }
  }
}

/// sums[r][c] += sum over x of weights[row + 16 r][x] rows[x][4 column + 64 c]
template <int kP, int kTile>
__device__ void accumulate(const float* weights, const float* rows,
                           float4 (&sums)[Layout<kP, kTile>::kRows][Layout<kP, kTile>::kColumns]) {
  using L = Layout<kP, kTile>;
  weights += threadIdx.x / 16 * L::kWeightPitch;
  rows += threadIdx.x % 16 * 4;
#pragma unroll 2
  for (int x = 0; x < kTile; x += 4) {
    float weight[L::kRows][4];
#pragma unroll
    for (int r = 0; r < L::kRows; ++r) {
      const float4 four = *reinterpret_cast<const float4*>(weights + r * 16 * L::kWeightPitch + x);
      weight[r][0] = four.x;
      weight[r][1] = four.y;
      weight[r][2] = four.z;
      weight[r][3] = four.w;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int c = 0; c < L::kColumns; ++c) {
        const float4 value = *reinterpret_cast<const float4*>(rows + (x + i) * L::kPitch + 64 * c);
#pragma unroll
        for (int r = 0; r < L::kRows; ++r) {
          sums[r][c].x = fmaf(weight[r][i], value.x, sums[r][c].x);
          sums[r][c].y = fmaf(weight[r][i], value.y, sums[r][c].y);
          sums[r][c].z = fmaf(weight[r][i], value.z, sums[r][c].z);
          sums[r][c].w = fmaf(weight[r][i], value.w, sums[r][c].w);
        }
      }
    }
  }
}

template <int kP, int kTile, class T>
__device__ void store_tile(View<T, 4> view, int64_t b, int64_t h, int first, float factor,
                           const float4 (&sums)[Layout<kP, kTile>::kRows][Layout<kP, kTile>::kColumns]) {
  using L = Layout<kP, kTile>;
#pragma unroll
  for (int r = 0; r < L::kRows; ++r) {
    const int64_t row = int64_t{first} + threadIdx.x / 16 + 16 * r;
    if (row >= view.size[1]) {
      continue;
    }
#pragma unroll
    for (int c = 0; c < L::kColumns; ++c) {
      const int p = static_cast<int>(threadIdx.x) % 16 * 4 + 64 * c;
      const float values[4] = {sums[r][c].x, sums[r][c].y, sums[r][c].z, sums[r][c].w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (p + i < view.size[3]) {
          view(b, row, h, p + i) = from_float<T>(factor * values[i]);
        }
      }
    }
  }
}

/// Scores become probabilities, slopes (dy . v) the gradients of the scores: this thread's queries are
/// q0 + row + 16 r, its keys k0 + column + 16 c.
template <int kRows, int kTile, class T>
__device__ void weigh(const Problem<T>& problem, int64_t b, int64_t h, int q0, int k0, float (&scores)[kRows][kRows],
                      float (&slopes)[kRows][kRows]) {
  const AttentionForward<T, float>& in = problem.args.forward;
  const IntRange* const ranges = problem.ranges + b * problem.query_tiles * kTile;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int i = q0 + static_cast<int>(threadIdx.x) / 16 + 16 * r;
    const IntRange range = ranges[i];
    const bool any = range.begin < range.end;
    const float log_sum = any ? in.log_sum_exp(b, h, i) : 0.f;
    const float projection = any ? problem.projection[(b * in.q.size[1] + i) * in.q.size[2] + h] : 0.f;
#pragma unroll
    for (int c = 0; c < kRows; ++c) {
      const int j = k0 + static_cast<int>(threadIdx.x) % 16 + 16 * c;
      const bool seen = j >= range.begin && j < range.end;
      float score = in.scale * scores[r][c];
      if (seen && in.bias) {
        score += in.bias(h, min(i + in.offset - j, in.bias.size[1] - 1));
      }
      scores[r][c] = seen ? expf(score - log_sum) : 0.f;
      slopes[r][c] = seen ? scores[r][c] * (slopes[r][c] - projection) : 0.f;
    }
  }
}

/// weights[query][key], or [key][query] where kByKey.
template <bool kByKey, int kRows, int kPitch>
__device__ void keep_weights(const float (&values)[kRows][kRows], float* weights) {
  const int row = static_cast<int>(threadIdx.x) / 16, column = static_cast<int>(threadIdx.x) % 16;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int c = 0; c < kRows; ++c) {
      const int q = row + 16 * r, k = column + 16 * c;
      weights[kByKey ? k * kPitch + q : q * kPitch + k] = values[r][c];
    }
  }
}

extern __shared__ float4 shared_tiles[];

/// dk and dv of a tile of keys.
template <class T, int kP, int kTile>
__global__ __launch_bounds__(kThreads) void backward_keys(const __grid_constant__ Problem<T> problem) {
  using L = Layout<kP, kTile>;
  const AttentionForward<T, float>& in = problem.args.forward;
  const int64_t H = in.q.size[2];
  const int n = static_cast<int>(blockIdx.x % problem.key_tiles);
  const int64_t h = blockIdx.x / problem.key_tiles % H, b = blockIdx.x / problem.key_tiles / H;
  float* const keys = reinterpret_cast<float*>(shared_tiles);
  float* const values = keys + L::kTileFloats;
  float* const queries = values + L::kTileFloats;
  float* const dys = queries + L::kTileFloats;
  float* const weights = dys + L::kTileFloats;
  load_tile<kP, kTile>(in.k, b, h, n * kTile, keys);
  load_tile<kP, kTile>(in.v, b, h, n * kTile, values);
  float4 dk[L::kRows][L::kColumns] = {}, dv[L::kRows][L::kColumns] = {};
  const IntRange visitors = problem.visitors[b * problem.key_tiles + n];
  for (int m = visitors.begin; m < visitors.end; ++m) {
    if (!meets(problem.summary[b * problem.query_tiles + m], n * kTile, kTile)) {
      continue;
    }
    __syncthreads();
    load_tile<kP, kTile>(in.q, b, h, m * kTile, queries);
    load_tile<kP, kTile>(problem.args.dy, b, h, m * kTile, dys);
    __syncthreads();
    float scores[L::kRows][L::kRows], slopes[L::kRows][L::kRows];
    products<kP, kTile>(queries, keys, scores);
    products<kP, kTile>(dys, values, slopes);
    weigh<L::kRows, kTile>(problem, b, h, m * kTile, n * kTile, scores, slopes);
    keep_weights<true, L::kRows, L::kWeightPitch>(scores, weights);
    __syncthreads();
    accumulate<kP, kTile>(weights, dys, dv);
    __syncthreads();
    keep_weights<true, L::kRows, L::kWeightPitch>(slopes, weights);
    __syncthreads();
    accumulate<kP, kTile>(weights, queries, dk);
  }
  store_tile<kP, kTile>(problem.args.dk, b, h, n * kTile, in.scale, dk);
  store_tile<kP, kTile>(problem.args.dv, b, h, n * kTile, 1.f, dv);
}

/// Adds the slopes of a tile to the CTA's row of gradients by distance: a thread for each diagonal. `shared` holds
/// 2 * kTile floats.
template <int kTile, int kPitch>
__device__ void add_diagonals(const float* weights, int64_t nearest, int64_t M, float* row, float* shared) {
  const int thread = static_cast<int>(threadIdx.x);
  float sum = 0;
  if (thread < 2 * kTile - 1) {  // i - j = thread - (kTile - 1) in the tile
    for (int i = max(0, thread - (kTile - 1)); i <= min(kTile - 1, thread); ++i) {
      sum += weights[i * kPitch + i - thread + (kTile - 1)];
    }
    shared[thread] = sum;
    const int64_t distance = nearest + thread;
    if (distance >= 0 && distance < M - 1) {
      row[distance] += sum;
    }
  }
  __syncthreads();
  if (thread == 0) {  // the last bias serves all greater distances
    for (int x = static_cast<int>(max(int64_t{0}, min(int64_t{2} * kTile, M - 1 - nearest))); x < 2 * kTile - 1; ++x) {
      row[M - 1] += shared[x];
    }
  }
}

/// dq of a tile of queries, and its part of dbias.
template <class T, int kP, int kTile>
__global__ __launch_bounds__(kThreads) void backward_queries(const __grid_constant__ Problem<T> problem) {
  using L = Layout<kP, kTile>;
  const AttentionForward<T, float>& in = problem.args.forward;
  const int64_t H = in.q.size[2], task = problem.first_task + blockIdx.x;
  const int m = static_cast<int>(task % problem.query_tiles);
  const int64_t h = task / problem.query_tiles % H, b = task / problem.query_tiles / H;
  float* const queries = reinterpret_cast<float*>(shared_tiles);
  float* const dys = queries + L::kTileFloats;
  float* const keys = dys + L::kTileFloats;
  float* const values = keys + L::kTileFloats;
  float* const weights = values + L::kTileFloats;
  __shared__ float diagonals[2 * kTile];
  const int64_t M = in.bias.size[1];
  float* const row = problem.dbias_rows == nullptr ? nullptr : problem.dbias_rows + blockIdx.x * M;
  for (int64_t x = threadIdx.x; x < M && row != nullptr; x += kThreads) {
    row[x] = 0;
  }
  load_tile<kP, kTile>(in.q, b, h, m * kTile, queries);
  load_tile<kP, kTile>(problem.args.dy, b, h, m * kTile, dys);
  float4 dq[L::kRows][L::kColumns] = {};
  const QueryTileKeys seen = problem.summary[b * problem.query_tiles + m];
  for (int k0 = seen.low == INT_MAX ? 0 : seen.low / kTile * kTile; k0 < seen.high; k0 += kTile) {
    __syncthreads();
    load_tile<kP, kTile>(in.k, b, h, k0, keys);
    load_tile<kP, kTile>(in.v, b, h, k0, values);
    __syncthreads();
    float scores[L::kRows][L::kRows], slopes[L::kRows][L::kRows];
    products<kP, kTile>(queries, keys, scores);
    products<kP, kTile>(dys, values, slopes);
    weigh<L::kRows, kTile>(problem, b, h, m * kTile, k0, scores, slopes);
    keep_weights<false, L::kRows, L::kWeightPitch>(slopes, weights);
    __syncthreads();
    accumulate<kP, kTile>(weights, keys, dq);
    if (row != nullptr) {
      add_diagonals<kTile, L::kWeightPitch>(weights, int64_t{m} * kTile + in.offset - k0 - (kTile - 1), M, row,
                                            diagonals);
    }
  }
  store_tile<kP, kTile>(problem.args.dq, b, h, m * kTile, in.scale, dq);
}

/// Adds the rows of tiles [first, first + count) to dbias, a warp for each element.
__global__ void add_bias_rows(const float* rows, int64_t first, int64_t count, int64_t tiles, View<float, 2> dbias) {
  const int64_t H = dbias.size[0], M = dbias.size[1];
  const int64_t task = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (task >= H * M) {
    return;
  }
  const int64_t h = task / M, m = task % M;
  float sum = 0;
  for (int64_t t = threadIdx.x % 32; t < count; t += 32) {
    if ((first + t) / tiles % H == h) {
      sum += rows[t * M + m];
    }
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) {
    dbias(h, m) += sum;
  }
}

unsigned grid(int64_t blocks) {
  require(blocks <= INT_MAX, "attention: ", blocks, " tiles are more than one launch can have");
  return static_cast<unsigned>(blocks);
}

template <class T, int kP, int kTile>
void backward_of_width(const Exec& exec, const AttentionBackward<T, float>& args) {
  const AttentionForward<T, float>& in = args.forward;
  const int64_t B = in.q.size[0], L = in.q.size[1], H = in.q.size[2], M = in.bias.size[1];
  const AttentionTiles<kTile, kTile> tiles(exec, in.begin, in.end, in.k.size[1]);
  const Scratch<float> projection(exec, B * L * H);
  Problem<T> problem{args,
                     tiles.summary(),
                     tiles.ranges(),
                     tiles.visitors(),
                     projection.get(),
                     tiles.query_tiles(),
                     tiles.key_tiles(),
                     nullptr,
                     0};
  constexpr int kBytes = Layout<kP, kTile>::kBytes;
  if (L > 0) {
    project<T><<<grid(ceil_div<int64_t>(B * L * H, kThreads / 32)), kThreads, 0, stream_of(exec)>>>(args.dy, in.y,
                                                                                                    projection.get());
    check_launch(exec, "attention backward");
  }
  if (tiles.key_tiles() > 0) {
    const auto kernel = backward_keys<T, kP, kTile>;
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), "attention backward");
    kernel<<<grid(B * H * tiles.key_tiles()), kThreads, kBytes, stream_of(exec)>>>(problem);
    check_launch(exec, "attention backward");
  }
  const int64_t tasks = B * H * tiles.query_tiles();
  const bool with_bias = args.dbias && M > 0;
  const int64_t at_once =
      with_bias ? std::max<int64_t>(1, kBiasRowBytes / (M * static_cast<int64_t>(sizeof(float)))) : INT_MAX;
  const Scratch<float> rows(exec, with_bias ? std::min(at_once, tasks) * M : 0);
  const auto kernel = backward_queries<T, kP, kTile>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), "attention backward");
  for (int64_t first = 0; first < tasks; first += at_once) {
    const int64_t count = std::min(at_once, tasks - first);
    problem.first_task = first;
    problem.dbias_rows = with_bias ? rows.get() : nullptr;
    kernel<<<grid(count), kThreads, kBytes, stream_of(exec)>>>(problem);
    check_launch(exec, "attention backward");
    if (with_bias) {
      add_bias_rows<<<grid(ceil_div<int64_t>(H * M, kThreads / 32)), kThreads, 0, stream_of(exec)>>>(
          rows.get(), first, count, tiles.query_tiles(), args.dbias);
      check_launch(exec, "attention backward");
    }
  }
}

template <class T>
void backward(const Exec& exec, const AttentionBackward<T, float>& args) {
  check_attention(args);
  const AttentionForward<T, float>& in = args.forward;
  const int64_t P = in.q.size[3];
  require(P <= 256, "attention backward: heads of width ", P,
          " are wider than 256, the widest that its CUDA kernels know");
  if (in.q.size[0] * in.q.size[2] * P == 0) {
    return;
  }
  if (attention_backward_wgmma(exec, args)) {
    return;
  }
  if (P <= 64) {
    backward_of_width<T, 64, 64>(exec, args);
  } else if (P <= 128) {
    backward_of_width<T, 128, 32>(exec, args);
  } else {
    backward_of_width<T, 256, 16>(exec, args);
  }
}

}  // namespace

template <>
void attention_backward<float>(const Exec& exec, const AttentionBackward<float, float>& args) {
  backward(exec, args);
}

template <>
void attention_backward<BFloat16>(const Exec& exec, const AttentionBackward<BFloat16, float>& args) {
  backward(exec, args);
}

}  // namespace blockstate::kernels::cuda
