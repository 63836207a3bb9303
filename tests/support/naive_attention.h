// SPDX-License-Identifier: Apache-2.0
// kernels/attention.h in double, by its definition. All arrays row-major.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace blockstate::test {

struct AttentionShape {
  int64_t B, L, J, H, P;
  int64_t M = 0;  // 0: no bias
};

struct NaiveAttention {
  std::vector<double> y;            // (B, L, H, P)
  std::vector<double> log_sum_exp;  // (B, H, L)
};

inline NaiveAttention naive_attention(AttentionShape s, const std::vector<double>& q, const std::vector<double>& k,
                                      const std::vector<double>& v, const std::vector<int64_t>& begin,
                                      const std::vector<int64_t>& end, const std::vector<double>& bias, double scale,
                                      int64_t offset) {
  NaiveAttention out;
  out.y.resize(static_cast<size_t>(s.B * s.L * s.H * s.P), 0);
  out.log_sum_exp.resize(static_cast<size_t>(s.B * s.H * s.L), -std::numeric_limits<double>::infinity());
  const auto query = [&](int64_t b, int64_t i, int64_t h) {
    return static_cast<size_t>(((b * s.L + i) * s.H + h) * s.P);
  };
  const auto key = [&](int64_t b, int64_t j, int64_t h) {
    return static_cast<size_t>(((b * s.J + j) * s.H + h) * s.P);
  };
  for (int64_t b = 0; b < s.B; ++b) {
    for (int64_t h = 0; h < s.H; ++h) {
      for (int64_t i = 0; i < s.L; ++i) {
        const int64_t first = begin[static_cast<size_t>(b * s.L + i)], last = end[static_cast<size_t>(b * s.L + i)];
        std::vector<double> score;
        for (int64_t j = first; j < last; ++j) {
          double dot = 0;
          for (size_t p = 0; p < static_cast<size_t>(s.P); ++p) {
            dot += q[query(b, i, h) + p] * k[key(b, j, h) + p];
          }
          score.push_back(scale * dot);
          if (s.M > 0) {
            score.back() += bias[static_cast<size_t>(h * s.M + std::min(i + offset - j, s.M - 1))];
          }
        }
        if (score.empty()) {
          continue;
        }
        const double high = *std::max_element(score.begin(), score.end());
        double sum = 0;
        for (double& one : score) {
          one = std::exp(one - high);
          sum += one;
        }
        out.log_sum_exp[static_cast<size_t>((b * s.H + h) * s.L + i)] = high + std::log(sum);
        for (int64_t j = first; j < last; ++j) {
          for (size_t p = 0; p < static_cast<size_t>(s.P); ++p) {
            out.y[query(b, i, h) + p] += score[static_cast<size_t>(j - first)] / sum * v[key(b, j, h) + p];
          }
        }
      }
    }
  }
  return out;
}

}  // namespace blockstate::test
