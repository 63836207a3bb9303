// SPDX-License-Identifier: Apache-2.0
// A buffer that notices writes outside its view, elements inside it that were never written, and (as NaN in the
// result) reads outside it.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "core/base/check.h"
#include "core/base/view.h"
#include "tests/support/compare.h"

namespace blockstate::test {

/// Storage for a view of rank R with guard bands before and after and gaps between rows. All of it starts as poison
/// (a NaN with a payload of its own for floating types). `gap` elements follow every innermost row.
template <class T, int R>
class GuardBuffer {
 public:
  explicit GuardBuffer(std::array<int64_t, R> size, int64_t gap = 0) {
    int64_t stride = 1;
    for (int d = R - 1; d >= 0; --d) {
      view_.size[d] = size[d];
      view_.stride[d] = stride;
      stride *= size[d] + (d == R - 1 ? gap : 0);
    }
    storage_.resize(static_cast<size_t>(stride + 2 * kBand));
    poison();
  }

  /// Moving or copying would leave view_ pointing at the old storage.
  GuardBuffer(const GuardBuffer&) = delete;
  GuardBuffer& operator=(const GuardBuffer&) = delete;

  View<T, R> view() const { return view_; }
  View<const T, R> cview() const { return view_; }

  void poison() {
    for (T& element : storage_) {
      element = poison_value();
    }
    view_.data = storage_.data() + kBand;
  }

  /// Writes row-major values into the view.
  void assign(const std::vector<T>& values) {
    require(static_cast<int64_t>(values.size()) == view_.elements(), "GuardBuffer holds ", view_.elements(),
            " elements, found ", values.size());
    for (int64_t i = 0; i < view_.elements(); ++i) {
      view_.data[offset_of(i)] = values[static_cast<size_t>(i)];
    }
  }

  std::vector<T> elements() const { return elements_of(view_); }

  /// Everything outside the view is still poison. Use it for inputs, and for outputs that may be partly written.
  Comparison bands_intact(const std::string& name = "buffer") const { return inspect(name, false); }
  /// Every element of the view was written and nothing outside it.
  Comparison fully_written(const std::string& name = "buffer") const { return inspect(name, true); }

 private:
  static constexpr int64_t kBand = 64;

  static T poison_value() {
    if constexpr (std::is_same_v<T, float>) {
      const uint32_t bits = 0x7FC5A5A5u;
      T value;
      std::memcpy(&value, &bits, sizeof value);
      return value;
    } else if constexpr (std::is_same_v<T, double>) {
      const uint64_t bits = 0x7FF8A5A5A5A5A5A5ull;
      T value;
      std::memcpy(&value, &bits, sizeof value);
      return value;
    } else {
      return static_cast<T>(std::numeric_limits<T>::max() / 7 * 5);
    }
  }

  static bool is_poison(const T& value) {
    const T poison = poison_value();
    return std::memcmp(&value, &poison, sizeof value) == 0;
  }

  int64_t offset_of(int64_t position) const {
    int64_t offset = 0;
    for (int d = R - 1; d >= 0; --d) {
      offset += position % view_.size[d] * view_.stride[d];
      position /= view_.size[d];
    }
    return offset;
  }

  Comparison inspect(const std::string& name, bool wants_written) const {
    Comparison out;
    out.count = view_.elements();
    std::vector<char> inside(storage_.size(), 0);
    for (int64_t i = 0; i < view_.elements(); ++i) {
      const size_t at = static_cast<size_t>(kBand + offset_of(i));
      inside[at] = 1;
      if (wants_written && is_poison(storage_[at]) && ++out.bad == 1) {
        out.first_bad = i;
        out.text = join(name, index_text(view_, i), " was never written");
      }
    }
    for (size_t at = 0; at < storage_.size(); ++at) {
      if (!inside[at] && !is_poison(storage_[at]) && ++out.bad == 1) {
        out.first_bad = static_cast<int64_t>(at) - kBand;
        out.text = join(name, ": element ", out.first_bad, " from its start, outside the view, was written");
      }
    }
    out.passed = out.bad == 0;
    if (out.passed) {
      out.text = join(name, wants_written ? " is fully written, its bands untouched" : " has its bands untouched");
    }
    return out;
  }

  std::vector<T> storage_;
  View<T, R> view_;
};

}  // namespace blockstate::test
