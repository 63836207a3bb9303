// SPDX-License-Identifier: Apache-2.0
// Range attention with all its inputs and outputs, for the tests that run it forward and backward in many ways.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/base/view.h"
#include "kernels/attention.h"
#include "tests/support/fill.h"
#include "tests/support/naive_attention.h"

namespace blockstate::test {

template <class T>
struct AttentionCase {
  AttentionShape shape;
  int64_t offset = 0;
  T scale = 1;
  std::vector<T> q, k, v, bias, dy;
  std::vector<int64_t> begin, end;
  std::vector<T> y, log_sum_exp, dq, dk, dv, dbias;

  AttentionCase(AttentionShape s, uint64_t key) : shape(s), offset(s.J - s.L) {
    scale = static_cast<T>(1 / std::sqrt(static_cast<double>(std::max<int64_t>(1, s.P))));
    q = random_normal<T>(key, s.B * s.L * s.H * s.P);
    k = random_normal<T>(key + 1, s.B * s.J * s.H * s.P);
    v = random_normal<T>(key + 2, s.B * s.J * s.H * s.P);
    bias = random_normal<T>(key + 3, s.H * s.M);
    dy = random_normal<T>(key + 4, s.B * s.L * s.H * s.P);
    see_window(s.J + s.L);
  }

  /// Every query sees its own key (at i + offset) and the `window` - 1 before it.
  void see_window(int64_t window) {
    begin.clear();
    end.clear();
    for (int64_t b = 0; b < shape.B; ++b) {
      for (int64_t i = 0; i < shape.L; ++i) {
        end.push_back(std::clamp<int64_t>(i + offset + 1, 0, shape.J));
        begin.push_back(std::clamp<int64_t>(i + offset + 1 - window, 0, end.back()));
      }
    }
  }

  /// Ranges that step forward unevenly, empty here and there.
  void see_random_ranges(uint64_t key) {
    RandomStream stream(key);
    for (int64_t b = 0; b < shape.B; ++b) {
      int64_t low = 0, high = 0;
      for (int64_t i = 0; i < shape.L; ++i) {
        const size_t at = static_cast<size_t>(b * shape.L + i);
        const int64_t last = std::min(shape.J, i + offset + 1);
        high = std::max(high, last - static_cast<int64_t>(stream.below(4)));
        low = std::max(low, high - 1 - static_cast<int64_t>(stream.below(90)));
        const bool empty = stream.below(5) == 0 || high <= low;
        begin[at] = empty ? 0 : low;
        end[at] = empty ? 0 : high;
      }
    }
  }

  kernels::AttentionForward<T> arguments() {
    const auto [B, L, J, H, P, M] = shape;
    y.assign(q.size(), T(NAN));
    log_sum_exp.assign(static_cast<size_t>(B * H * L), T(NAN));
    kernels::AttentionForward<T> args;
    args.y = make_view(y.data(), B, L, H, P);
    args.log_sum_exp = make_view(log_sum_exp.data(), B, H, L);
    args.q = make_view<const T>(q.data(), B, L, H, P);
    args.k = make_view<const T>(k.data(), B, J, H, P);
    args.v = make_view<const T>(v.data(), B, J, H, P);
    args.begin = make_view<const int64_t>(begin.data(), B, L);
    args.end = make_view<const int64_t>(end.data(), B, L);
    args.bias = make_view<const T>(M > 0 ? bias.data() : nullptr, H, M);
    args.scale = scale;
    args.offset = offset;
    return args;
  }

  void forward() { kernels::cpu::attention_forward(arguments()); }

  /// Needs forward() first. dbias starts from 0.
  void backward() {
    const auto [B, L, J, H, P, M] = shape;
    const AttentionCase kept = *this;
    kernels::AttentionBackward<T> args;
    args.forward = arguments();
    std::copy(kept.y.begin(), kept.y.end(), y.begin());
    std::copy(kept.log_sum_exp.begin(), kept.log_sum_exp.end(), log_sum_exp.begin());
    dq.assign(q.size(), T(NAN));
    dk.assign(k.size(), T(NAN));
    dv.assign(v.size(), T(NAN));
    dbias.assign(bias.size(), T(0));
    args.dq = make_view(dq.data(), B, L, H, P);
    args.dk = make_view(dk.data(), B, J, H, P);
    args.dv = make_view(dv.data(), B, J, H, P);
    args.dbias = make_view(M > 0 ? dbias.data() : nullptr, H, M);
    args.dy = make_view<const T>(dy.data(), B, L, H, P);
    kernels::cpu::attention_backward(args);
  }

  NaiveAttention naive() const {
    return naive_attention(shape, converted<double>(q), converted<double>(k), converted<double>(v), begin, end,
                           converted<double>(bias), static_cast<double>(scale), offset);
  }

  /// The sum whose gradients backward() gives.
  double loss() {
    forward();
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      sum += static_cast<double>(dy[i]) * static_cast<double>(y[i]);
    }
    return sum;
  }

  /// Queries [first, last) with all keys up to their own: what a chunk with carried keys sees.
  AttentionCase chunk(int64_t first, int64_t last, int64_t oldest) const {
    AttentionCase out = *this;
    const auto [B, L, J, H, P, M] = shape;
    const int64_t newest = last + offset;
    out.shape.L = last - first;
    out.shape.J = newest - oldest;
    out.offset = first + offset - oldest;
    const auto rows = [&](const std::vector<T>& from, int64_t length, int64_t low, int64_t high) {
      std::vector<T> to;
      for (int64_t b = 0; b < B; ++b) {
        to.insert(to.end(), from.begin() + (b * length + low) * H * P, from.begin() + (b * length + high) * H * P);
      }
      return to;
    };
    out.q = rows(q, L, first, last);
    out.dy = rows(dy, L, first, last);
    out.k = rows(k, J, oldest, newest);
    out.v = rows(v, J, oldest, newest);
    out.begin.clear();
    out.end.clear();
    for (int64_t b = 0; b < B; ++b) {
      for (int64_t i = first; i < last; ++i) {
        const size_t at = static_cast<size_t>(b * L + i);
        const bool empty = begin[at] >= end[at];
        out.begin.push_back(empty ? 0 : begin[at] - oldest);
        out.end.push_back(empty ? 0 : end[at] - oldest);
      }
    }
    return out;
  }
};

}  // namespace blockstate::test
