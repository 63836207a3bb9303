// SPDX-License-Identifier: Apache-2.0
// Comparisons of views and vectors for use inside CHECK and REQUIRE: CHECK(compare("dx", dx, expected, kFloat32)).
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <ostream>
#include <string>
#include <type_traits>
#include <vector>

#include "core/base/check.h"
#include "core/base/view.h"
#include "tests/support/tolerances.h"

namespace blockstate::test {

/// Outcome of a comparison: converts to bool, prints as a sentence.
struct Comparison {
  bool passed = true;
  int64_t count = 0;       // elements compared
  int64_t bad = 0;         // elements out of tolerance
  int64_t first_bad = -1;  // row-major position
  int64_t worst = -1;      // row-major position of the largest error, in units of its tolerance
  double worst_error = 0;  // |found - expected| there
  std::string text;
  explicit operator bool() const { return passed; }
};

inline std::ostream& operator<<(std::ostream& out, const Comparison& comparison) { return out << comparison.text; }

/// Row-major copy of the elements of a view.
template <class T, int R>
std::vector<std::remove_cv_t<T>> elements_of(View<T, R> view) {
  std::vector<std::remove_cv_t<T>> out;
  const int64_t count = view.elements();
  out.reserve(static_cast<size_t>(count));
  std::array<int64_t, R> at{};
  for (int64_t i = 0; i < count; ++i) {
    int64_t offset = 0;
    for (int d = 0; d < R; ++d) {
      offset += at[d] * view.stride[d];
    }
    out.push_back(view.data[offset]);
    for (int d = R - 1; d >= 0 && ++at[d] == view.size[d]; --d) {
      at[d] = 0;
    }
  }
  return out;
}

template <class T>
const std::vector<T>& elements_of(const std::vector<T>& values) {
  return values;
}

template <class T, int R>
std::string index_text(View<T, R> view, int64_t position) {
  std::string text = "]";
  for (int d = R - 1; d >= 0; --d) {
    text = join(d == 0 ? "[" : ", ", position % view.size[d], text);
    position /= view.size[d];
  }
  return text;
}

template <class T>
std::string index_text(const std::vector<T>&, int64_t position) {
  return join("[", position, "]");
}

/// |found[i] - expected[i]| <= abs + rel * scale[i] for every i. NaN never passes; equal infinities do. `scale` serves
/// sums with cancellation: the sum of the absolute terms, against which the rounding error of any order is bounded.
template <class Found, class Expected>
Comparison compare_scaled(const std::string& name, const Found& found, const Expected& expected,
                          const std::vector<double>& scale, Tolerance tolerance) {
  const auto& left = elements_of(found);
  const auto& right = elements_of(expected);
  Comparison out;
  out.count = static_cast<int64_t>(left.size());
  if (left.size() != right.size() || left.size() != scale.size()) {
    out.passed = false;
    out.text = join(name, ": ", left.size(), " elements, expected ", right.size());
    return out;
  }
  double worst_ratio = -1;
  for (size_t i = 0; i < left.size(); ++i) {
    const double value = static_cast<double>(left[i]);
    const double wanted = static_cast<double>(right[i]);
    const double error = value == wanted ? 0 : std::abs(value - wanted);
    const double limit = tolerance.abs + tolerance.rel * scale[i];
    const bool good = error <= limit;  // false for NaN
    const double ratio = std::isnan(error) ? HUGE_VAL : limit > 0 ? error / limit : (good ? 0 : HUGE_VAL);
    if (ratio > worst_ratio) {
      worst_ratio = ratio;
      out.worst = static_cast<int64_t>(i);
      out.worst_error = error;
    }
    if (!good) {
      ++out.bad;
      if (out.first_bad < 0) {
        out.first_bad = static_cast<int64_t>(i);
      }
    }
  }
  out.passed = out.bad == 0;
  if (out.passed) {
    out.text = join(name, ": ", out.count, " elements agree, worst error ", out.worst_error);
    return out;
  }
  const auto describe = [&](int64_t i) {
    return join(name, index_text(found, i), " = ", static_cast<double>(left[static_cast<size_t>(i)]), ", expected ",
                static_cast<double>(right[static_cast<size_t>(i)]));
  };
  out.text = join(out.bad, " of ", out.count, " elements differ (rel ", tolerance.rel, ", abs ", tolerance.abs,
                  "); first ", describe(out.first_bad), "; worst ", describe(out.worst));
  return out;
}

/// |found[i] - expected[i]| <= abs + rel * |expected[i]| for every i. Views or vectors, in any pairing of types.
template <class Found, class Expected>
Comparison compare(const std::string& name, const Found& found, const Expected& expected, Tolerance tolerance) {
  std::vector<double> scale;
  for (const auto& value : elements_of(expected)) {
    scale.push_back(std::abs(static_cast<double>(value)));
  }
  return compare_scaled(name, found, expected, scale, tolerance);
}

/// The same bits in every element (so +0 and -0 differ, and a NaN equals itself).
template <class Found, class Expected>
Comparison same_bits(const std::string& name, const Found& found, const Expected& expected) {
  const auto& left = elements_of(found);
  const auto& right = elements_of(expected);
  static_assert(std::is_same_v<decltype(left), decltype(right)>, "bits of the same type");
  Comparison out;
  out.count = static_cast<int64_t>(left.size());
  if (left.size() != right.size()) {
    out.passed = false;
    out.text = join(name, ": ", left.size(), " elements, expected ", right.size());
    return out;
  }
  for (size_t i = 0; i < left.size(); ++i) {
    if (std::memcmp(&left[i], &right[i], sizeof left[i]) != 0 && ++out.bad == 1) {
      out.first_bad = static_cast<int64_t>(i);
    }
  }
  out.passed = out.bad == 0;
  out.text = out.passed ? join(name, ": ", out.count, " elements have the same bits")
                        : join(out.bad, " of ", out.count, " elements have other bits; first ", name,
                               index_text(found, out.first_bad), " = ",
                               static_cast<double>(left[static_cast<size_t>(out.first_bad)]), ", expected ",
                               static_cast<double>(right[static_cast<size_t>(out.first_bad)]));
  return out;
}

}  // namespace blockstate::test
