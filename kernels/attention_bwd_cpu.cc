// SPDX-License-Identifier: Apache-2.0
#include "core/base/check.h"
#include "core/base/parallel.h"
#include "hwy/aligned_allocator.h"
#include "kernels/attention.h"
#include "kernels/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention_bwd_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/attention-inl.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {
namespace {

template <class T>
struct BackwardMemory {
  T* q;           // [p][lane], scaled
  T* dy;          // [p][lane]
  T* dq;          // [p][lane]
  T* q_rows;      // [lane][p padded to a vector], scaled
  T* dy_rows;     // [lane][p padded]
  T* keys;        // [key][p]
  T* values;      // [key][p]
  T* scores;      // [key][lane], then probabilities
  T* slopes;      // [key][lane], gradients of the scores
  T* sums;        // [key][p padded]
  T* bias;        // by distance
  T* dbias;       // by distance
  T* limits;      // [2][lane]
  T* log_sum;     // [lane]; infinity where a query sees nothing, which makes its probabilities 0
  T* projection;  // [lane], dy . y
};

template <class T>
BackwardMemory<T> backward_memory(int64_t width, int64_t P, int64_t padded) {
  ScratchArrays<T> scratch(3 * P * width + 2 * width * padded + 2 * kKeys * P + 2 * kKeys * width + kKeys * padded +
                               2 * (kKeys + width) + 4 * width,
                           15);
  BackwardMemory<T> memory;
  memory.q = scratch.take(P * width);
  memory.dy = scratch.take(P * width);
  memory.dq = scratch.take(P * width);
  memory.q_rows = scratch.take(width * padded);
  memory.dy_rows = scratch.take(width * padded);
  memory.keys = scratch.take(kKeys * P);
  memory.values = scratch.take(kKeys * P);
  memory.scores = scratch.take(kKeys * width);
  memory.slopes = scratch.take(kKeys * width);
  memory.sums = scratch.take(kKeys * padded);
  memory.bias = scratch.take(kKeys + width);
  memory.dbias = scratch.take(kKeys + width);
  memory.limits = scratch.take(2 * width);
  memory.log_sum = scratch.take(width);
  memory.projection = scratch.take(width);
  return memory;
}

template <class T>
void load_rows(View<const T, 4> view, const QueryTile& tile, T scale, int64_t padded, T* to) {
  for (int64_t i = 0; i < tile.count; ++i, to += padded) {
    const T* const from = &view(tile.b, tile.first + i, tile.h, 0);
    for (int64_t p = 0; p < view.size[3]; ++p) {
      to[p] = scale * from[p];
    }
    std::fill(to + view.size[3], to + padded, T(0));
  }
}

template <class T>
void load_queries(const AttentionBackward<T>& args, const QueryTile& tile, int64_t padded,
                  const BackwardMemory<T>& memory) {
  const AttentionForward<T>& in = args.forward;
  load_transposed(in.q, tile, in.scale, memory.q);
  load_transposed(args.dy, tile, T(1), memory.dy);
  load_rows(in.q, tile, in.scale, padded, memory.q_rows);
  load_rows(args.dy, tile, T(1), padded, memory.dy_rows);
  for (int64_t i = 0; i < tile.width; ++i) {
    const bool nothing = sees_nothing(in, tile, i);
    memory.log_sum[i] = nothing ? std::numeric_limits<T>::infinity() : in.log_sum_exp(tile.b, tile.h, tile.first + i);
    T sums[4] = {};
    for (int64_t p = 0; p < in.q.size[3] && !nothing; ++p) {
      sums[p % 4] += in.y(tile.b, tile.first + i, tile.h, p) * args.dy(tile.b, tile.first + i, tile.h, p);
    }
    memory.projection[i] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }
}

/// scores become probabilities P, slopes (which hold dP) become P * (dP - dy . y).
template <class D, class T = hn::TFromD<D>>
void probabilities(D d, int64_t width, int64_t count, const BackwardMemory<T>& memory) {
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t x = 0; x < width; x += N) {
    const auto log_sum = hn::Load(d, memory.log_sum + x);
    const auto projection = hn::Load(d, memory.projection + x);
    for (int64_t j = 0; j < count; ++j) {
      T* const score = memory.scores + j * width + x;
      T* const slope = memory.slopes + j * width + x;
      const auto p = Exp(d, hn::Sub(hn::Load(d, score), log_sum));
      hn::Store(p, d, score);
      hn::Store(hn::Mul(p, hn::Sub(hn::Load(d, slope), projection)), d, slope);
    }
  }
}

/// Adds the slopes of a tile to the gradients by distance, `total` (M).
template <class D, class T = hn::TFromD<D>>
void add_bias_gradient(D d, const AttentionForward<T>& in, const QueryTile& tile, int64_t j0, int64_t count,
                       const BackwardMemory<T>& memory, T* total) {
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  std::fill_n(memory.dbias, count + tile.width, T(0));
  for (int64_t j = 0; j < count; ++j) {
    for (int64_t x = 0; x < tile.width; x += N) {
      T* const to = memory.dbias + count - 1 - j + x;
      hn::StoreU(hn::Add(hn::LoadU(d, to), hn::Load(d, memory.slopes + j * tile.width + x)), d, to);
    }
  }
  const int64_t nearest = tile.first + in.offset - (j0 + count - 1);
  for (int64_t x = 0; x < count + tile.width - 1; ++x) {
    total[std::clamp<int64_t>(nearest + x, 0, in.bias.size[1] - 1)] += memory.dbias[x];
  }
}

/// Adds weights^T rows to keys [j0, j0 + count) of a gradient; weights are [key][lane], rows [lane][p padded].
template <class D, class T = hn::TFromD<D>>
void add_key_gradient(D d, const QueryTile& tile, int64_t j0, int64_t count, const T* weights, const T* rows,
                      int64_t padded, T* sums, View<T, 4> gradient) {
  multiply(d, count, padded, tile.count, weights, tile.width, 1, rows, padded, sums, padded, false);
  for (int64_t j = 0; j < count; ++j) {
    T* const to = &gradient(tile.b, j0 + j, tile.h, 0);
    for (int64_t p = 0; p < gradient.size[3]; ++p) {
      to[p] += sums[j * padded + p];
    }
  }
}

template <class T>
void backward_tile(const AttentionBackward<T>& args, int64_t b, int64_t h, int64_t first, T* dbias) {
  const hn::ScalableTag<T> d;
  const AttentionForward<T>& in = args.forward;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  const QueryTile tile = query_tile(in, b, h, first, N);
  const int64_t P = in.q.size[3], width = tile.width, padded = (P + N - 1) / N * N;
  const BackwardMemory<T> memory = backward_memory<T>(width, P, padded);
  load_queries(args, tile, padded, memory);
  std::fill_n(memory.dq, P * width, T(0));
  for (int64_t j0 = tile.low; j0 < tile.high; j0 += kKeys) {
    const int64_t count = std::min(kKeys, tile.high - j0);
    load_keys(d, in.k, tile, j0, count, memory.keys);
    load_keys(d, in.v, tile, j0, count, memory.values);
    multiply(d, count, width, P, memory.keys, P, 1, memory.q, width, memory.scores, width, false);
    multiply(d, count, width, P, memory.values, P, 1, memory.dy, width, memory.slopes, width, false);
    if (in.bias) {
      load_bias(in, tile, j0, count, memory.bias);
    }
    bias_and_mask(d, in, tile, j0, count, memory.bias, memory.limits, memory.scores);
    probabilities(d, width, count, memory);
    if (args.dbias) {
      add_bias_gradient(d, in, tile, j0, count, memory, dbias);
    }
    multiply(d, P, width, count, memory.keys, 1, P, memory.slopes, width, memory.dq, width, true);
    add_key_gradient(d, tile, j0, count, memory.slopes, memory.q_rows, padded, memory.sums, args.dk);
    add_key_gradient(d, tile, j0, count, memory.scores, memory.dy_rows, padded, memory.sums, args.dv);
  }
  for (int64_t i = 0; i < tile.count; ++i) {
    T* const to = &args.dq(b, first + i, h, 0);
    for (int64_t p = 0; p < P; ++p) {
      to[p] = in.scale * memory.dq[p * width + i];
    }
  }
}

/// One row and head: its queries in order, so that dk, dv and dbias have one order of sums whatever the threads do.
template <class T>
void backward_head(const AttentionBackward<T>& args, int64_t b, int64_t h, T* dbias) {
  const AttentionForward<T>& in = args.forward;
  const int64_t queries = kVectors * static_cast<int64_t>(hn::Lanes(hn::ScalableTag<T>()));
  for (int64_t j = 0; j < in.k.size[1] && in.q.size[3] > 0; ++j) {
    std::fill_n(&args.dk(b, j, h, 0), in.q.size[3], T(0));
    std::fill_n(&args.dv(b, j, h, 0), in.q.size[3], T(0));
  }
  if (args.dbias) {
    std::fill_n(dbias, in.bias.size[1], T(0));
  }
  for (int64_t first = 0; first < in.q.size[1]; first += queries) {
    backward_tile(args, b, h, first, dbias);
  }
}

template <class T>
void backward(const AttentionBackward<T>& args) {
  const int64_t B = args.forward.q.size[0], H = args.forward.q.size[2];
  const int64_t M = args.dbias ? args.dbias.size[1] : 0;
  const auto rows = hwy::AllocateAligned<T>(static_cast<size_t>(std::max<int64_t>(1, B * H * M)));
  require(rows != nullptr, "attention: no memory for the gradients of ", B * H * M, " biases");
  parallel_for(B * H, 1, [&](int64_t task, int64_t) {
    const FlushDenormals scope;  // the weights of hidden keys underflow
    backward_head(args, task / H, task % H, rows.get() + task * M);
  });
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t h = 0; h < H; ++h) {
      for (int64_t m = 0; m < M; ++m) {
        args.dbias(h, m) += rows[static_cast<size_t>((b * H + h) * M + m)];
      }
    }
  }
}

void attention_backward_float(const AttentionBackward<float>& args) { backward(args); }
void attention_backward_double(const AttentionBackward<double>& args) { backward(args); }

}  // namespace
}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace blockstate::kernels::cpu {

HWY_EXPORT(attention_backward_float);
HWY_EXPORT(attention_backward_double);

template <>
void attention_backward<float>(const AttentionBackward<float>& args) {
  HWY_DYNAMIC_DISPATCH(attention_backward_float)(args);
}

template <>
void attention_backward<double>(const AttentionBackward<double>& args) {
  HWY_DYNAMIC_DISPATCH(attention_backward_double)(args);
}

}  // namespace blockstate::kernels::cpu
#endif
