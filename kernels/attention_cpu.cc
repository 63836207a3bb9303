// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "core/base/parallel.h"
#include "kernels/attention.h"
#include "kernels/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/attention-inl.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {
namespace {

template <class T>
struct ForwardMemory {
  T* q;       // [p][lane], scaled
  T* y;       // [p][lane], not yet divided by the sum
  T* keys;    // [key][p], then the values in its place
  T* scores;  // [key][lane]
  T* bias;    // by distance
  T* limits;  // [2][lane]
  T* high;    // [lane], maximum so far
  T* sum;     // [lane], of exponentials
  T* shrink;  // [lane], what the sums so far are multiplied by
};

template <class T>
ForwardMemory<T> forward_memory(int64_t width, int64_t P) {
  ScratchArrays<T> scratch(2 * P * width + kKeys * (P + width) + (kKeys + width) + 5 * width, 9);
  return {scratch.take(P * width),     scratch.take(P * width),     scratch.take(kKeys * P),
          scratch.take(kKeys * width), scratch.take(kKeys + width), scratch.take(2 * width),
          scratch.take(width),         scratch.take(width),         scratch.take(width)};
}

/// Scores become exponentials relative to the new maximum (Milakov & Gimelshein 2018, online softmax).
template <class D, class T = hn::TFromD<D>>
void soften(D d, int64_t width, int64_t count, bool fresh, const ForwardMemory<T>& memory) {
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  const auto lowest = hn::Set(d, -std::numeric_limits<T>::infinity());
  for (int64_t x = 0; x < width; x += N) {
    const auto before = fresh ? lowest : hn::Load(d, memory.high + x);
    auto high = before, other = before;  // two chains: one would wait for its own latency
    for (int64_t j = 0; j + 1 < count; j += 2) {
      high = hn::Max(high, hn::Load(d, memory.scores + j * width + x));
      other = hn::Max(other, hn::Load(d, memory.scores + (j + 1) * width + x));
    }
    high = hn::Max(hn::Max(high, other), hn::Load(d, memory.scores + (count - 1) * width + x));
    hn::Store(high, d, memory.high + x);
    // A query that has seen no key yet has no maximum: any finite number keeps -inf - (-inf) away.
    const auto base = hn::IfThenElse(hn::Eq(high, lowest), hn::Zero(d), high);
    const auto shrink = Exp(d, hn::Sub(before, base));
    auto sum = fresh ? hn::Zero(d) : hn::Mul(hn::Load(d, memory.sum + x), shrink);
    for (int64_t j = 0; j < count; ++j) {
      T* const at = memory.scores + j * width + x;
      const auto e = Exp(d, hn::Sub(hn::Load(d, at), base));
      sum = hn::Add(sum, e);
      hn::Store(e, d, at);
    }
    hn::Store(sum, d, memory.sum + x);
    hn::Store(shrink, d, memory.shrink + x);
  }
}

template <class D, class T = hn::TFromD<D>>
void multiply_lanes(D d, int64_t rows, int64_t width, const T* factor, T* values) {
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t x = 0; x < width; x += N) {
      T* const at = values + r * width + x;
      hn::Store(hn::Mul(hn::Load(d, at), hn::Load(d, factor + x)), d, at);
    }
  }
}

template <class T>
void store_queries(const AttentionForward<T>& args, const QueryTile& tile, const ForwardMemory<T>& memory) {
  const int64_t P = args.q.size[3];
  for (int64_t i = 0; i < tile.count; ++i) {
    const bool nothing = sees_nothing(args, tile, i);
    T* const to = &args.y(tile.b, tile.first + i, tile.h, 0);
    const T inverse = nothing ? T(0) : 1 / memory.sum[i];
    for (int64_t p = 0; p < P; ++p) {
      to[p] = nothing ? T(0) : memory.y[p * tile.width + i] * inverse;
    }
    if (args.log_sum_exp) {
      args.log_sum_exp(tile.b, tile.h, tile.first + i) =
          nothing ? -std::numeric_limits<T>::infinity() : memory.high[i] + std::log(memory.sum[i]);
    }
  }
}

template <class T>
void forward_tile(const AttentionForward<T>& args, int64_t b, int64_t h, int64_t first) {
  const hn::ScalableTag<T> d;
  const QueryTile tile = query_tile(args, b, h, first, static_cast<int64_t>(hn::Lanes(d)));
  const int64_t P = args.q.size[3], width = tile.width;
  const ForwardMemory<T> memory = forward_memory<T>(width, P);
  load_transposed(args.q, tile, args.scale, memory.q);
  for (int64_t j0 = tile.low; j0 < tile.high; j0 += kKeys) {
    const int64_t count = std::min(kKeys, tile.high - j0);
    const bool fresh = j0 == tile.low;
    load_keys(d, args.k, tile, j0, count, memory.keys);
    multiply(d, count, width, P, memory.keys, P, 1, memory.q, width, memory.scores, width, false);
    if (args.bias) {
      load_bias(args, tile, j0, count, memory.bias);
    }
    bias_and_mask(d, args, tile, j0, count, memory.bias, memory.limits, memory.scores);
    soften(d, width, count, fresh, memory);
    if (!fresh) {
      multiply_lanes(d, P, width, memory.shrink, memory.y);
    }
    load_keys(d, args.v, tile, j0, count, memory.keys);
    multiply(d, P, width, count, memory.keys, 1, P, memory.scores, width, memory.y, width, !fresh);
  }
  store_queries(args, tile, memory);
}

template <class T>
void forward(const AttentionForward<T>& args) {
  const int64_t B = args.q.size[0], L = args.q.size[1], H = args.q.size[2];
  const int64_t queries = kVectors * static_cast<int64_t>(hn::Lanes(hn::ScalableTag<T>()));
  const int64_t tiles = (L + queries - 1) / queries;
  parallel_for(B * H * tiles, 1, [&](int64_t task, int64_t) {
    const FlushDenormals scope;  // the weights of hidden keys underflow
    forward_tile(args, task / tiles / H, task / tiles % H, task % tiles * queries);
  });
}

void attention_forward_float(const AttentionForward<float>& args) { forward(args); }
void attention_forward_double(const AttentionForward<double>& args) { forward(args); }

}  // namespace
}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace blockstate::kernels::cpu {

HWY_EXPORT(attention_forward_float);
HWY_EXPORT(attention_forward_double);

template <>
void attention_forward<float>(const AttentionForward<float>& args) {
  HWY_DYNAMIC_DISPATCH(attention_forward_float)(args);
}

template <>
void attention_forward<double>(const AttentionForward<double>& args) {
  HWY_DYNAMIC_DISPATCH(attention_forward_double)(args);
}

}  // namespace blockstate::kernels::cpu
#endif
