// SPDX-License-Identifier: Apache-2.0
// Strided rows in a GPU's memory for the tests of CUDA kernels.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "tests/support/cuda_array.h"

namespace blockstate::test {

/// A view of rank R whose rows are followed by `gap` elements and begin `offset` elements after an aligned address.
/// What was not assigned is NaN; the gaps must stay so.
template <class T, int R>
class CudaView {
 public:
  explicit CudaView(std::array<int64_t, R> size, int64_t gap = 0, int64_t offset = 0)
      : CudaView(std::vector<float>(), size, gap, offset) {}
  CudaView(const std::vector<float>& values, std::array<int64_t, R> size, int64_t gap = 0, int64_t offset = 0)
      : array_(laid_out(values, size, gap, offset)), width_(size[R - 1]), gap_(gap), offset_(offset) {
    view_.data = array_.data() + offset;
    int64_t stride = 1;
    for (int d = R - 1; d >= 0; --d) {
      view_.size[d] = size[static_cast<size_t>(d)];
      view_.stride[d] = stride;
      stride *= view_.size[d] + (d == R - 1 ? gap : 0);
    }
  }

  View<T, R> view() const { return view_; }
  View<const T, R> cview() const { return view_; }

  /// The elements of the view. Error where a kernel wrote outside of it.
  std::vector<T> stored() const {
    const std::vector<T> all = array_.host();
    std::vector<T> values;
    T untouched;
    std::memset(static_cast<void*>(&untouched), 0xff, sizeof untouched);
    for (size_t i = 0; i < all.size(); ++i) {
      const int64_t at = static_cast<int64_t>(i) - offset_;
      if (at >= 0 && at % (width_ + gap_) < width_) {
        values.push_back(all[i]);
      } else {
        require(std::memcmp(&all[i], &untouched, sizeof untouched) == 0, "a kernel wrote between rows, at ", at);
      }
    }
    return values;
  }
  std::vector<float> host() const { return as_float(stored()); }

 private:
  static std::vector<T> laid_out(const std::vector<float>& values, std::array<int64_t, R> size, int64_t gap,
                                 int64_t offset) {
    int64_t rows = 1;
    for (int d = 0; d + 1 < R; ++d) {
      rows *= size[static_cast<size_t>(d)];
    }
    const int64_t width = size[R - 1];
    std::vector<T> all(static_cast<size_t>(offset + rows * (width + gap)));
    std::memset(static_cast<void*>(all.data()), 0xff, all.size() * sizeof(T));
    for (size_t i = 0; i < values.size(); ++i) {
      const int64_t at = static_cast<int64_t>(i);
      all[static_cast<size_t>(offset + at / width * (width + gap) + at % width)] = static_cast<T>(values[i]);
    }
    return all;
  }

  CudaArray<T> array_;
  int64_t width_, gap_, offset_;
  View<T, R> view_;
};

}  // namespace blockstate::test
