// SPDX-License-Identifier: Apache-2.0
// The causal convolution as its header writes it, in double.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace blockstate::test {

/// Row-major; an empty vector is an absent argument.
template <class T>
struct ConvInputs {
  int64_t B = 1, L = 1, D = 1, K = 1;
  bool silu = true;
  std::vector<T> x, weight, bias, initial, dy, dfinal;
  std::vector<int64_t> position;
};

template <class T>
struct ConvResults {
  std::vector<T> y, final, dx, dweight, dbias, dinitial;
};

inline ConvResults<double> naive_causal_conv1d(const ConvInputs<double>& in) {
  const int64_t B = in.B, L = in.L, D = in.D, K = in.K;
  ConvResults<double> out;
  const auto input = [&](int64_t b, int64_t t, int64_t d) {
    if (t >= 0) {
      return in.x[(b * L + t) * D + d];
    }
    return in.initial.empty() ? 0.0 : in.initial[(b * (K - 1) + K - 1 + t) * D + d];
  };
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t t = 0; t < L; ++t) {
      const int64_t position = in.position.empty() ? K : in.position[b * L + t];
      for (int64_t d = 0; d < D; ++d) {
        double a = in.bias.empty() ? 0 : in.bias[d];
        for (int64_t j = 0; j < K && j <= position; ++j) {
          a += in.weight[d * K + K - 1 - j] * input(b, t - j, d);
        }
        out.y.push_back(position < 0 ? 0 : in.silu ? a / (1 + std::exp(-a)) : a);
      }
    }
    int64_t last = L - 1;
    while (last >= 0 && !in.position.empty() && in.position[b * L + last] < 0) {
      --last;
    }
    const int64_t reach = last >= 0 && !in.position.empty() ? in.position[b * L + last] : K;
    for (int64_t k = 0; k < K - 1; ++k) {
      for (int64_t d = 0; d < D; ++d) {
        const int64_t back = K - 2 - k;
        out.final.push_back(back <= reach ? input(b, last - back, d) : 0);
      }
    }
  }
  return out;
}

}  // namespace blockstate::test
