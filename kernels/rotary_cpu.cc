// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

#include "core/base/parallel.h"
#include "kernels/rotary_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rotary_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

/// (y[p], y[p + half]) = (x[p] cos - x[p + half] sin, x[p + half] cos + x[p] sin). y may be x.
template <class T>
void rotate(const T* x, const T* cosine, const T* sine, int64_t half, T* y) {
  const hn::ScalableTag<T> d;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  int64_t p = 0;
  for (; p + N <= half; p += N) {
    const auto c = hn::LoadU(d, cosine + p), s = hn::LoadU(d, sine + p);
    const auto a = hn::LoadU(d, x + p), b = hn::LoadU(d, x + half + p);
    hn::StoreU(hn::NegMulAdd(b, s, hn::Mul(a, c)), d, y + p);
    hn::StoreU(hn::MulAdd(a, s, hn::Mul(b, c)), d, y + half + p);
  }
  for (; p < half; ++p) {
    const T a = x[p], b = x[half + p];
    y[p] = a * cosine[p] - b * sine[p];
    y[half + p] = b * cosine[p] + a * sine[p];
  }
}

void rotate_float(const float* x, const float* c, const float* s, int64_t half, float* y) { rotate(x, c, s, half, y); }
void rotate_double(const double* x, const double* c, const double* s, int64_t half, double* y) {
  rotate(x, c, s, half, y);
}

}  // namespace
}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace blockstate::kernels::cpu {
namespace {

HWY_EXPORT(rotate_float);
HWY_EXPORT(rotate_double);

auto rotate_function(float) { return HWY_DYNAMIC_DISPATCH(rotate_float); }
auto rotate_function(double) { return HWY_DYNAMIC_DISPATCH(rotate_double); }

struct Turn {
  double cosine;
  double sine;
};

/// Sine and cosine of position * base^(-2p/P). A position is split as 64 * high + low; one complex product in double
/// joins the two parts. That costs far less than a sine, and the result is a function of the position alone.
class Angles {
 public:
  static constexpr int64_t kLow = 64;

  Angles(int64_t half, double base) : low_(static_cast<size_t>(half * kLow)), high_(static_cast<size_t>(half)) {
    constexpr long double kTwoPi = 6.283185307179586476925286766559L;
    for (int64_t p = 0; p < half; ++p) {
      turns_.push_back(std::pow(static_cast<long double>(base), -static_cast<long double>(p) / half) / kTwoPi);
    }
  }

  /// Cosines, then sines, of all frequencies at `position` >= 0, sines times `sign`.
  template <class T>
  void at(int64_t position, T sign, T* cosine, T* sine) {
    const int64_t low = position % kLow, high = position - low;
    const int64_t half = static_cast<int64_t>(turns_.size());
    Turn* const step = low_.data() + low * half;
    if (!known_[static_cast<size_t>(low)]) {
      fill(low, step);
      known_[static_cast<size_t>(low)] = true;
    }
    if (high != high_position_) {
      fill(high, high_.data());
      high_position_ = high;
    }
    for (int64_t p = 0; p < half; ++p) {
      const Turn a = high_[static_cast<size_t>(p)], b = step[p];
      cosine[p] = static_cast<T>(a.cosine * b.cosine - a.sine * b.sine);
      sine[p] = sign * static_cast<T>(a.sine * b.cosine + a.cosine * b.sine);
    }
  }

 private:
  void fill(int64_t position, Turn* to) const {
    for (size_t p = 0; p < turns_.size(); ++p) {
      // In turns and with the longer mantissa, the whole turns can be dropped before anything is lost.
      const long double turns = turns_[p] * static_cast<long double>(position);
      const double angle = static_cast<double>((turns - std::round(turns)) * 6.283185307179586476925286766559L);
      to[p] = {std::cos(angle), std::sin(angle)};
    }
  }

  std::vector<long double> turns_;  // turns a step
  std::vector<Turn> low_;           // [position % 64][p]
  std::array<bool, kLow> known_ = {};
  std::vector<Turn> high_;
  int64_t high_position_ = -1;
};

}  // namespace

template <class T>
void rotary(View<T, 4> y, View<const T, 4> x, View<const int64_t, 2> position, double base, bool inverse) {
  const int64_t B = x.size[0], L = x.size[1], H = x.size[2], P = x.size[3];
  check_rotary(y, x, position);
  const auto rotate = rotate_function(T());
  constexpr int64_t kSteps = 1024;  // of one row, for one task: the table of angles is paid once for them
  const int64_t tiles = (L + kSteps - 1) / kSteps;
  parallel_for(P == 0 || H == 0 ? 0 : B * tiles, 1, [&](int64_t task, int64_t) {
    const int64_t b = task / tiles, begin = task % tiles * kSteps;
    Angles angles(P / 2, base);
    std::vector<T> turn(static_cast<size_t>(P));
    for (int64_t t = begin; t < std::min(L, begin + kSteps); ++t) {
      const int64_t at = position(b, t);
      if (at >= 0) {
        angles.at(at, inverse ? T(-1) : T(1), turn.data(), turn.data() + P / 2);
      }
      for (int64_t h = 0; h < H; ++h) {
        const T* const from = &x(b, t, h, 0);
        T* const to = &y(b, t, h, 0);
        if (at >= 0) {
          rotate(from, turn.data(), turn.data() + P / 2, P / 2, to);
        } else if (to != from) {
          std::copy_n(from, P, to);
        }
      }
    }
  });
}

template void rotary(View<float, 4>, View<const float, 4>, View<const int64_t, 2>, double, bool);
template void rotary(View<double, 4>, View<const double, 4>, View<const int64_t, 2>, double, bool);

}  // namespace blockstate::kernels::cpu
#endif
