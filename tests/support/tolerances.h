// SPDX-License-Identifier: Apache-2.0
// The one table of tolerances. A test that needs more says why beside its number.
#pragma once

#include <type_traits>

namespace blockstate::test {

/// Passes where |found - expected| <= abs + rel * scale; scale is |expected| unless the comparison is given another.
struct Tolerance {
  double rel;
  double abs;
};

inline constexpr Tolerance kFloat64{1e-10, 1e-12};
inline constexpr Tolerance kFloat32{1e-5, 1e-6};
/// Recurrences over more than 1024 steps, in float32.
inline constexpr Tolerance kFloat32LongScan{6e-4, 2e-3};
inline constexpr Tolerance kBFloat16{3e-2, 5e-2};
/// Analytic against numeric gradients, both in double (gradcheck.h says where its own error comes from).
inline constexpr Tolerance kGradient{1e-7, 1e-8};

template <class T>
constexpr Tolerance tolerance_of() {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>, "float or double");
  return std::is_same_v<T, double> ? kFloat64 : kFloat32;
}

}  // namespace blockstate::test
