// SPDX-License-Identifier: Apache-2.0
// kernels/diagonal_scan.h in double, one loop a letter. All arrays row-major.
#pragma once

#include <complex>
#include <cstdint>
#include <vector>

namespace blockstate::test {

struct DiagonalShape {
  int64_t B, L, D, P;
};

struct NaiveDiagonalScan {
  std::vector<double> y;      // (B, L, D)
  std::vector<double> scale;  // (B, L, D), sum of the absolute terms of y: what rounding errors are relative to
  std::vector<double> final;  // (B, D, P, 2)
};

/// `skip`, `initial` and `position` may be empty: absent.
inline NaiveDiagonalScan naive_diagonal_scan(DiagonalShape s, const std::vector<double>& u,
                                             const std::vector<double>& a, const std::vector<double>& c,
                                             const std::vector<double>& skip, const std::vector<double>& initial,
                                             const std::vector<int64_t>& position) {
  using Complex = std::complex<double>;
  const auto at = [](const std::vector<double>& values, int64_t i) {
    return Complex(values[static_cast<size_t>(2 * i)], values[static_cast<size_t>(2 * i + 1)]);
  };
  NaiveDiagonalScan out;
  out.y.resize(static_cast<size_t>(s.B * s.L * s.D));
  out.scale.resize(out.y.size());
  out.final.resize(static_cast<size_t>(s.B * s.D * s.P * 2));
  for (int64_t b = 0; b < s.B; ++b) {
    for (int64_t d = 0; d < s.D; ++d) {
      std::vector<Complex> h(static_cast<size_t>(s.P));
      for (int64_t p = 0; p < s.P && !initial.empty(); ++p) {
        h[static_cast<size_t>(p)] = at(initial, (b * s.D + d) * s.P + p);
      }
      for (int64_t t = 0; t < s.L; ++t) {
        const size_t here = static_cast<size_t>((b * s.L + t) * s.D + d);
        const int64_t place = position.empty() ? 1 : position[static_cast<size_t>(b * s.L + t)];
        if (place < 0) {
          continue;
        }
        if (!skip.empty()) {
          out.y[here] = skip[static_cast<size_t>(d)] * u[here];
          out.scale[here] = std::abs(out.y[here]);
        }
        for (int64_t p = 0; p < s.P; ++p) {
          Complex& state = h[static_cast<size_t>(p)];
          state = (place == 0 ? 0.0 : at(a, d * s.P + p) * state) + u[here];
          out.y[here] += (at(c, d * s.P + p) * state).real();
          out.scale[here] += std::abs(at(c, d * s.P + p)) * std::abs(state);
        }
      }
      for (int64_t p = 0; p < s.P; ++p) {
        const size_t to = static_cast<size_t>(2 * ((b * s.D + d) * s.P + p));
        out.final[to] = h[static_cast<size_t>(p)].real();
        out.final[to + 1] = h[static_cast<size_t>(p)].imag();
      }
    }
  }
  return out;
}

}  // namespace blockstate::test
