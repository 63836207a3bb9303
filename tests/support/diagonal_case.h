// SPDX-License-Identifier: Apache-2.0
// A diagonal scan with all its inputs and outputs, for the tests that run it forward and backward in many ways.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/base/view.h"
#include "kernels/diagonal_scan.h"
#include "tests/support/fill.h"
#include "tests/support/naive_diagonal_scan.h"

namespace blockstate::test {

template <class T>
struct DiagonalCase {
  DiagonalShape shape;
  std::vector<T> u, a, c, skip, initial, dy, dfinal;
  std::vector<int64_t> position;  // empty: absent
  std::vector<T> y, final, checkpoint, du, da, dc, dD, dinitial;

  /// Decays e^-r with r up to `forget`: memory survives 1 / forget steps.
  DiagonalCase(DiagonalShape s, uint64_t key, double forget = 0.02) : shape(s) {
    const int64_t states = s.D * s.P;
    const std::vector<double> rate = random_uniform<double>(key, states, 0, forget);
    const std::vector<double> turn = random_uniform<double>(key + 1, states, -3.1, 3.1);
    for (int64_t i = 0; i < states; ++i) {
      const double size = std::exp(-rate[static_cast<size_t>(i)]), angle = turn[static_cast<size_t>(i)];
      a.push_back(static_cast<T>(size * std::cos(angle)));
      a.push_back(static_cast<T>(size * std::sin(angle)));
    }
    c = random_normal<T>(key + 2, states * 2);
    u = random_normal<T>(key + 3, s.B * s.L * s.D);
    skip = random_normal<T>(key + 4, s.D);
    initial = random_normal<T>(key + 5, s.B * states * 2);
    dy = random_normal<T>(key + 6, s.B * s.L * s.D);
    dfinal = random_normal<T>(key + 7, s.B * states * 2);
  }

  kernels::DiagonalScanForward<T> arguments() {
    const auto [B, L, D, P] = shape;
    const int64_t tiles = (L + kernels::kDiagonalCheckpoint - 1) / kernels::kDiagonalCheckpoint;
    y.assign(u.size(), T(NAN));
    final.assign(static_cast<size_t>(B * D * P * 2), T(NAN));
    checkpoint.assign(static_cast<size_t>(B * tiles * P * 2 * D), T(NAN));
    kernels::DiagonalScanForward<T> args;
    args.y = make_view(y.data(), B, L, D);
    args.final = make_view(final.data(), B, D, P, 2);
    args.checkpoint = make_view(checkpoint.data(), B, tiles, P, 2, D);
    args.u = make_view<const T>(u.data(), B, L, D);
    args.a = make_view<const T>(a.data(), D, P, 2);
    args.c = make_view<const T>(c.data(), D, P, 2);
    args.D = make_view<const T>(skip.empty() ? nullptr : skip.data(), D);
    args.initial = make_view<const T>(initial.empty() ? nullptr : initial.data(), B, D, P, 2);
    args.position = make_view<const int64_t>(position.empty() ? nullptr : position.data(), B, L);
    return args;
  }

  void forward() { kernels::cpu::diagonal_scan_forward(arguments()); }

  /// Needs forward() first. Parameter gradients start from 0.
  void backward() {
    const auto [B, L, D, P] = shape;
    const DiagonalCase kept = *this;
    kernels::DiagonalScanBackward<T> args;
    args.forward = arguments();
    std::copy(kept.y.begin(), kept.y.end(), y.begin());
    std::copy(kept.final.begin(), kept.final.end(), final.begin());
    std::copy(kept.checkpoint.begin(), kept.checkpoint.end(), checkpoint.begin());
    du.assign(u.size(), T(NAN));
    dinitial.assign(static_cast<size_t>(B * D * P * 2), T(NAN));
    da.assign(a.size(), T(0));
    dc.assign(c.size(), T(0));
    dD.assign(static_cast<size_t>(D), T(0));
    args.du = make_view(du.data(), B, L, D);
    args.da = make_view(da.data(), D, P, 2);
    args.dc = make_view(dc.data(), D, P, 2);
    args.dD = make_view(skip.empty() ? nullptr : dD.data(), D);
    args.dinitial = make_view(dinitial.data(), B, D, P, 2);
    args.dy = make_view<const T>(dy.data(), B, L, D);
    args.dfinal = make_view<const T>(dfinal.empty() ? nullptr : dfinal.data(), B, D, P, 2);
    kernels::cpu::diagonal_scan_backward(args);
  }

  NaiveDiagonalScan naive() const {
    return naive_diagonal_scan(shape, converted<double>(u), converted<double>(a), converted<double>(c),
                               converted<double>(skip), converted<double>(initial), position);
  }

  /// The sum whose gradients backward() gives.
  double loss() {
    forward();
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      sum += static_cast<double>(dy[i]) * static_cast<double>(y[i]);
    }
    for (size_t i = 0; i < dfinal.size(); ++i) {
      sum += static_cast<double>(dfinal[i]) * static_cast<double>(final[i]);
    }
    return sum;
  }

  /// Steps [begin, end) of every row as a case of their own, without the carries.
  DiagonalCase piece(int64_t begin, int64_t end) const {
    DiagonalCase out = *this;
    out.shape.L = end - begin;
    const auto cut = [&](const auto& from, int64_t width) {
      auto to = from;
      to.clear();
      for (int64_t b = 0; b < shape.B && !from.empty(); ++b) {
        to.insert(to.end(), from.begin() + (b * shape.L + begin) * width, from.begin() + (b * shape.L + end) * width);
      }
      return to;
    };
    out.u = cut(u, shape.D);
    out.dy = cut(dy, shape.D);
    out.position = cut(position, 1);
    out.initial.clear();
    out.dfinal.clear();
    return out;
  }
};

/// Writes (B, l, D) values of a piece back into steps [begin, begin + l) of (B, L, D).
template <class T>
void paste(const std::vector<T>& piece, int64_t B, int64_t L, int64_t D, int64_t begin, std::vector<T>& whole) {
  const int64_t length = B * D == 0 ? 0 : static_cast<int64_t>(piece.size()) / (B * D);
  for (int64_t b = 0; b < B; ++b) {
    std::copy_n(piece.begin() + b * length * D, length * D, whole.begin() + (b * L + begin) * D);
  }
}

}  // namespace blockstate::test
