// SPDX-License-Identifier: Apache-2.0
// The selective scan as its header writes it, one loop over every index, in double.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace blockstate::test {

struct ScanSize {
  int64_t B = 1;
  int64_t L = 1;
  int64_t D = 1;
  int64_t N = 1;
};

/// Row-major inputs of a scan and the gradients that come into its backward. An empty vector is an absent argument.
template <class T>
struct ScanInputs {
  ScanSize size;
  std::vector<T> u, delta, A, B, C, D, z, bias, initial, dy, dfinal;
  std::vector<int64_t> position;
};

/// Everything the scan computes. `scale` (of y and final) is the sum of the absolute terms, for judging rounding.
template <class T>
struct ScanResults {
  std::vector<T> y, final, du, ddelta, dA, dB, dC, dD, dz, dbias, dinitial;
  std::vector<double> y_scale, final_scale;
};

inline double naive_softplus(double x) { return x > 20 ? x : std::log1p(std::exp(x)); }
inline double naive_silu(double x) { return x / (1 + std::exp(-x)); }

inline ScanResults<double> naive_selective_scan(const ScanInputs<double>& in) {
  const auto [B, L, D, N] = in.size;
  ScanResults<double> out;
  out.y.assign(in.u.size(), 0);
  out.y_scale.assign(in.u.size(), 0);
  out.final.assign(static_cast<size_t>(B * D * N), 0);
  out.final_scale = out.final;
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t d = 0; d < D; ++d) {
      std::vector<double> h(static_cast<size_t>(N), 0), size(static_cast<size_t>(N), 0);
      for (int64_t n = 0; n < N && !in.initial.empty(); ++n) {
        h[n] = in.initial[(b * D + d) * N + n];
        size[n] = std::abs(h[n]);
      }
      for (int64_t t = 0; t < L; ++t) {
        const int64_t row = b * L + t;
        const int64_t at = row * D + d;
        const int64_t position = in.position.empty() ? 1 : in.position[row];
        if (position < 0) {
          continue;
        }
        const double dt = naive_softplus(in.delta[at] + (in.bias.empty() ? 0 : in.bias[d]));
        double v = in.D.empty() ? 0 : in.D[d] * in.u[at];
        double scale = std::abs(v);
        for (int64_t n = 0; n < N; ++n) {
          const double a = position == 0 ? 0 : std::exp(dt * in.A[d * N + n]);
          const double w = dt * in.B[row * N + n] * in.u[at];
          h[n] = a * h[n] + w;
          size[n] = a * size[n] + std::abs(w);
          v += in.C[row * N + n] * h[n];
          scale += std::abs(in.C[row * N + n]) * size[n];
        }
        const double gate = in.z.empty() ? 1 : naive_silu(in.z[at]);
        out.y[at] = v * gate;
        out.y_scale[at] = scale * std::abs(gate);
      }
      for (int64_t n = 0; n < N; ++n) {
        out.final[(b * D + d) * N + n] = h[n];
        out.final_scale[(b * D + d) * N + n] = size[n];
      }
    }
  }
  return out;
}

}  // namespace blockstate::test
