// SPDX-License-Identifier: Apache-2.0
// Matrices in a GPU's memory with gaps between their rows and a start that need not be aligned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "tests/support/cuda_array.h"
#include "tests/support/tolerances.h"

namespace blockstate::test {

/// How a matrix lies: `gap` elements after each row, `offset` before the first.
struct Lie {
  int64_t gap = 0;
  int64_t offset = 0;
};

/// Elements that no view shows keep a value of their own; host() fails where a kernel changed one.
template <class T>
class CudaRows {
 public:
  CudaRows(int64_t rows, int64_t columns, Lie lie = {})
      : CudaRows(std::vector<float>(static_cast<size_t>(rows * columns), kHidden), rows, columns, lie) {}
  CudaRows(const std::vector<float>& values, int64_t rows, int64_t columns, Lie lie = {})
      : rows_(rows), columns_(columns), lie_(lie), array_(stored_as<T>(spread(values, rows, columns, lie))) {}

  int64_t pitch() const { return columns_ + lie_.gap; }
  T* data() const { return array_.data() + lie_.offset; }
  View<T, 2> view() const { return {data(), {rows_, columns_}, {pitch(), 1}}; }
  View<const T, 2> cview() const { return view(); }
  /// Rows as (a, b, c): a * b of them, of c columns.
  View<T, 3> view(int64_t a, int64_t b) const { return {data(), {a, b, columns_}, {b * pitch(), pitch(), 1}}; }
  View<const T, 3> cview(int64_t a, int64_t b) const { return view(a, b); }

  std::vector<float> host() const {
    const std::vector<float> all = as_float(array_.host());
    std::vector<float> seen;
    for (int64_t i = 0; i < static_cast<int64_t>(all.size()); ++i) {
      const int64_t at = i - lie_.offset;
      const bool shown = at >= 0 && at < rows_ * pitch() && at % pitch() < columns_;
      if (shown) {
        seen.push_back(all[static_cast<size_t>(i)]);
      } else {
        require(all[static_cast<size_t>(i)] == kHidden, "a kernel wrote between the rows of its view");
      }
    }
    return seen;
  }

 private:
  static constexpr float kHidden = 1232;  // exact in bfloat16 too

  static std::vector<float> spread(const std::vector<float>& values, int64_t rows, int64_t columns, Lie lie) {
    std::vector<float> all(static_cast<size_t>(lie.offset + rows * (columns + lie.gap)), kHidden);
    for (int64_t i = 0; i < rows * columns; ++i) {
      all[static_cast<size_t>(lie.offset + i / columns * (columns + lie.gap) + i % columns)] =
          values[static_cast<size_t>(i)];
    }
    return all;
  }

  int64_t rows_, columns_;
  Lie lie_;
  CudaArray<T> array_;
};

/// float by its tolerance; bfloat16, where an op rounds once, against the reference rounded once.
template <class T>
Comparison judge(const std::string& name, const std::vector<float>& found, const std::vector<double>& reference) {
  if constexpr (std::is_same_v<T, float>) {
    return compare(name, found, reference, kFloat32);
  } else {
    std::vector<float> rounded;
    for (const double value : reference) {
      rounded.push_back(static_cast<float>(T(static_cast<float>(value))));
    }
    return compare_twice_naive(name, found, reference, rounded, 1e-6);
  }
}

}  // namespace blockstate::test
