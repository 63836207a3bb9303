// SPDX-License-Identifier: Apache-2.0
// Range attention on any GPU: products in float32, tiles in shared memory, softmax over tiles of keys as they come
// (Milakov & Gimelshein 2018; Dao et al. 2022). bfloat16 goes to kernels/attention_hopper_cuda.cu where that can.
#include <type_traits>

#include "kernels/attention.cuh"
#include "kernels/attention_check.h"
#include "kernels/attention_hopper.h"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 256;  // 16 by 16: rows of queries, columns of keys or of y
constexpr int kPad = 4;        // floats between rows in shared memory: neighbouring rows start in other banks

/// Rows [first, first + count) of one row and head of a (B, L, H, P) view, times `scale`; 0 past the end and past
/// column P. `wide`: four neighbours may be read as one.
template <int kRows, int kWidth, class T>
__device__ void load_rows(const View<const T, 4>& view, int64_t b, int64_t first, int64_t h, int count, bool wide,
                          float scale, float* to) {
  const int P = static_cast<int>(view.size[3]);
  const T* const from = view.data + b * view.stride[0] + first * view.stride[1] + h * view.stride[2];
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kWidth / 4; i += kThreads) {
    const int row = i / (kWidth / 4), p = i % (kWidth / 4) * 4;
    float value[4] = {};
    if (row < count) {
      const T* const at = from + row * view.stride[1] + p;
      if (wide && p + 4 <= P) {
        load_pack<4>(at, value);
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          value[e] = p + e < P ? to_float(at[e]) : 0.0f;
        }
      }
    }
    *reinterpret_cast<float4*>(to + row * (kWidth + kPad) + p) =
        make_float4(scale * value[0], scale * value[1], scale * value[2], scale * value[3]);
  }
}

/// s[i][j] = row i of q . row j of keys; this thread has rows ty * R + i and keys tx + 16 * j.
template <int R, int C, int kWidth>
__device__ void scores(const float* q, const float* keys, int P, float (&s)[R][C]) {
  const int tx = static_cast<int>(threadIdx.x) % 16, ty = static_cast<int>(threadIdx.x) / 16;
#pragma unroll
  for (int i = 0; i < R; ++i) {
#pragma unroll
    for (int j = 0; j < C; ++j) {
      s[i][j] = 0;
    }
  }
#pragma unroll 2
  for (int p = 0; p < P; p += 4) {
    float4 a[R];
#pragma unroll
    for (int i = 0; i < R; ++i) {
      a[i] = *reinterpret_cast<const float4*>(q + (ty * R + i) * (kWidth + kPad) + p);
    }
#pragma unroll
    for (int j = 0; j < C; ++j) {
      const float4 b = *reinterpret_cast<const float4*>(keys + (tx + 16 * j) * (kWidth + kPad) + p);
#pragma unroll
      for (int i = 0; i < R; ++i) {
        s[i][j] = fmaf(a[i].x, b.x, fmaf(a[i].y, b.y, fmaf(a[i].z, b.z, fmaf(a[i].w, b.w, s[i][j]))));
      }
    }
  }
}

/// y[i][4 g + e] += sum over keys of weights[row i] values[.][64 g + 4 tx + e].
template <int R, int W, int kKeys, int kWidth>
__device__ void add_values(const float* weights, const float* values, int count, float (&y)[R][W]) {
  const int tx = static_cast<int>(threadIdx.x) % 16, ty = static_cast<int>(threadIdx.x) / 16;
#pragma unroll 1
  for (int j = 0; j < count; j += 4) {
    float a[R][4];
#pragma unroll
    for (int i = 0; i < R; ++i) {
      load_pack<4>(weights + (ty * R + i) * (kKeys + kPad) + j, a[i]);
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
#pragma unroll
      for (int g = 0; g < W; g += 4) {
        const float4 b = *reinterpret_cast<const float4*>(values + (j + e) * (kWidth + kPad) + 16 * g + 4 * tx);
#pragma unroll
        for (int i = 0; i < R; ++i) {
          y[i][g] = fmaf(a[i][e], b.x, y[i][g]);
          y[i][g + 1] = fmaf(a[i][e], b.y, y[i][g + 1]);
          y[i][g + 2] = fmaf(a[i][e], b.z, y[i][g + 2]);
          y[i][g + 3] = fmaf(a[i][e], b.w, y[i][g + 3]);
        }
      }
    }
  }
}

template <int kWidth, int kQueries, int kKeys>
constexpr int shared_bytes() {
  return 4 * ((kQueries + kKeys) * (kWidth + kPad) + kQueries * (kKeys + kPad));
}

template <class T, int kWidth, int kQueries, int kKeys>
__global__ __launch_bounds__(kThreads) void attention_forward_kernel(AttentionForward<T, float> args, bool wide,
                                                                     bool wide_y) {
  constexpr int R = kQueries / 16, C = kKeys / 16, W = kWidth / 16;
  extern __shared__ __align__(16) float memory[];
  float* const q = memory;
  float* const keys = q + kQueries * (kWidth + kPad);
  float* const weights = keys + kKeys * (kWidth + kPad);
  __shared__ int from[kQueries], to[kQueries];
  __shared__ KeyRange range;
  const int64_t L = args.q.size[1], H = args.q.size[2], heads = args.q.size[0] * H;
  const int P = static_cast<int>(args.q.size[3]);
  // Later queries tend to see more: they start first.
  const int64_t first = ((L - 1) / kQueries - blockIdx.x / heads) * kQueries;
  const int64_t b = blockIdx.x % heads / H, h = blockIdx.x % heads % H;
  const int tx = static_cast<int>(threadIdx.x) % 16, ty = static_cast<int>(threadIdx.x) / 16;
  const int queries = static_cast<int>(min(static_cast<int64_t>(kQueries), L - first));
  if (threadIdx.x < 32) {
    const KeyRange found = warp_key_range(args.begin, args.end, b, first, kQueries, [&](int i, int begin, int end) {
      from[i] = begin;
      to[i] = end;
    });
    if (threadIdx.x == 0) {
      range = found;
    }
  }
  load_rows<kQueries, kWidth>(args.q, b, first, h, queries, wide, args.scale * kLog2E, q);
  float high[R], sum[R], y[R][W];
#pragma unroll
  for (int i = 0; i < R; ++i) {
    high[i] = -INFINITY;
    sum[i] = 0;
#pragma unroll
    for (int g = 0; g < W; ++g) {
      y[i][g] = 0;
    }
  }
  __syncthreads();
  for (int64_t j0 = range.low; j0 < range.high; j0 += kKeys) {
    const int count = static_cast<int>(min(static_cast<int64_t>(kKeys), range.high - j0));
    load_rows<kKeys, kWidth>(args.k, b, j0, h, count, wide, 1, keys);
    __syncthreads();
    float s[R][C];
    scores<R, C, kWidth>(q, keys, P, s);
    const bool masked = j0 < range.all_begin || j0 + kKeys > range.all_end;
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const int row = ty * R + i;
#pragma unroll
      for (int j = 0; j < C; ++j) {
        const int64_t key = j0 + tx + 16 * j;
        if (args.bias) {
          const int64_t distance = min(max(first + row + args.offset - key, int64_t{0}), args.bias.size[1] - 1);
          s[i][j] += args.bias(h, distance) * kLog2E;
        }
        if (masked && (key < from[row] || key >= to[row])) {
          s[i][j] = -INFINITY;
        }
      }
      float highest = s[i][0];
#pragma unroll
      for (int j = 1; j < C; ++j) {
        highest = fmaxf(highest, s[i][j]);
      }
      highest = fmaxf(high[i], warp_max<16>(highest));
      // A query that has seen no key yet has no maximum: any finite number keeps -inf - (-inf) away.
      const float base = highest == -INFINITY ? 0.0f : highest;
      const float shrink = exp2f(high[i] - base);
      high[i] = highest;
      sum[i] *= shrink;
#pragma unroll
      for (int g = 0; g < W; ++g) {
        y[i][g] *= shrink;
      }
#pragma unroll
      for (int j = 0; j < C; ++j) {
        const float weight = exp2f(s[i][j] - base);
        sum[i] += weight;
        weights[row * (kKeys + kPad) + tx + 16 * j] = weight;
      }
    }
    __syncthreads();
    load_rows<kKeys, kWidth>(args.v, b, j0, h, count, wide, 1, keys);
    __syncthreads();
    add_values<R, W, kKeys, kWidth>(weights, keys, count, y);
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const int row = ty * R + i;
    const float total = warp_sum<16>(sum[i]);
    if (row >= queries) {
      continue;
    }
    const bool nothing = from[row] >= to[row];
    const float inverse = nothing ? 0.0f : 1 / total;
    T* const out = &args.y(b, first + row, h, 0);
#pragma unroll
    for (int g = 0; g < W; g += 4) {
      const int p = 16 * g + 4 * tx;
      float value[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        value[e] = nothing ? 0.0f : y[i][g + e] * inverse;
      }
      if (wide_y && p + 4 <= P) {
        store_pack<4>(out + p, value);
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (p + e < P) {
            out[p + e] = from_float<T>(value[e]);
          }
        }
      }
    }
    if (tx == 0 && args.log_sum_exp) {
      args.log_sum_exp(b, h, first + row) = nothing ? -INFINITY : (high[i] + log2f(total)) * kLn2;
    }
  }
}

/// Rows may be read four elements at a time.
template <class T>
bool four_wide(const View<T, 4>& view) {
  bool wide = reinterpret_cast<uintptr_t>(view.data) % (4 * sizeof(T)) == 0;
  for (int i = 0; i < 3; ++i) {
    wide = wide && (view.size[i] <= 1 || view.stride[i] % 4 == 0);
  }
  return wide;
}

template <int kWidth, int kQueries, int kKeys, class T>
void launch(const Exec& exec, const AttentionForward<T, float>& args) {
  const int64_t tiles = ceil_div(args.q.size[1], int64_t{kQueries}) * args.q.size[0] * args.q.size[2];
  require(tiles < INT_MAX, "attention: ", tiles, " tiles of queries are more than a GPU takes at once");
  const bool wide = four_wide(args.q) && four_wide(args.k) && four_wide(args.v);
  constexpr int kBytes = shared_bytes<kWidth, kQueries, kKeys>();
  const auto kernel = attention_forward_kernel<T, kWidth, kQueries, kKeys>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), "attention");
  kernel<<<static_cast<unsigned>(tiles), kThreads, kBytes, stream_of(exec)>>>(args, wide, four_wide(args.y));
  check_launch(exec, "attention");
}

}  // namespace

template <class T>
void attention_forward(const Exec& exec, const AttentionForward<T, float>& args) {
  check_attention(args);
  const int64_t P = args.q.size[3], J = args.k.size[1];
  if (args.q.size[0] == 0 || args.q.size[1] == 0 || args.q.size[2] == 0) {
    return;
  }
  require(P <= 256, "attention on a GPU takes heads of at most 256 channels, found ", P);
  require(J < INT_MAX, "attention on a GPU takes fewer than 2^31 - 1 keys, found ", J);
  if constexpr (std::is_same_v<T, BFloat16>) {
    if (attention_forward_hopper(exec, args)) {
      return;
    }
  }
  if (P <= 64) {
    launch<64, 64, 64>(exec, args);
  } else if (P <= 128) {
    launch<128, 64, 64>(exec, args);
  } else {
    launch<256, 32, 32>(exec, args);
  }
}

template void attention_forward<float>(const Exec& exec, const AttentionForward<float, float>& args);
template void attention_forward<BFloat16>(const Exec& exec, const AttentionForward<BFloat16, float>& args);

}  // namespace blockstate::kernels::cuda
