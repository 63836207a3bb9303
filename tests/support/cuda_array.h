// SPDX-License-Identifier: Apache-2.0
// Arrays in a GPU's memory for the tests of CUDA kernels, and the rule by which bfloat16 results are judged.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "core/base/bfloat16.h"
#include "core/base/check.h"
#include "core/base/view.h"
#include "kernels/cuda_exec.h"
#include "tests/support/compare.h"

namespace blockstate::test {

inline kernels::cuda::Exec gpu() { return kernels::cuda::exec(0); }

/// float values in another element type: rounded for BFloat16.
template <class T>
std::vector<T> stored_as(const std::vector<float>& values) {
  std::vector<T> out;
  out.reserve(values.size());
  for (const float value : values) {
    out.push_back(static_cast<T>(value));
  }
  return out;
}

template <class T>
std::vector<float> as_float(const std::vector<T>& values) {
  std::vector<float> out;
  out.reserve(values.size());
  for (const T value : values) {
    out.push_back(static_cast<float>(value));
  }
  return out;
}

/// What T can hold of the values: the inputs that a reference must see.
template <class T>
std::vector<float> rounded_to(const std::vector<float>& values) {
  return as_float(stored_as<T>(values));
}

/// `kGuard` bytes of a known pattern stand before and after the elements; those not assigned are NaN (in float and in
/// bfloat16), so an element that a kernel forgot is seen, and so is one that it wrote outside.
template <class T>
class CudaArray {
 public:
  explicit CudaArray(int64_t count) : CudaArray(std::vector<T>(), count) {}
  explicit CudaArray(const std::vector<T>& values) : CudaArray(values, static_cast<int64_t>(values.size())) {}
  ~CudaArray() { kernels::cuda::give_memory(gpu(), memory_); }
  CudaArray(const CudaArray&) = delete;
  CudaArray& operator=(const CudaArray&) = delete;

  T* data() const { return reinterpret_cast<T*>(memory_ + kGuard); }
  int64_t count() const { return count_; }
  template <class... Size>
  View<T, static_cast<int>(sizeof...(Size))> view(Size... sizes) const {
    return make_view(data(), sizes...);
  }
  template <class... Size>
  View<const T, static_cast<int>(sizeof...(Size))> cview(Size... sizes) const {
    return make_view<const T>(data(), sizes...);
  }

  /// The elements. Error where a kernel wrote outside of them.
  std::vector<T> host() const {
    std::vector<unsigned char> bytes(static_cast<size_t>(all_bytes()));
    kernels::cuda::copy_to_host(gpu(), bytes.data(), memory_, all_bytes());
    for (int64_t i = 0; i < kGuard; ++i) {
      require(bytes[static_cast<size_t>(i)] == kPattern && bytes[static_cast<size_t>(all_bytes() - 1 - i)] == kPattern,
              "a kernel wrote outside of its array of ", count_, " elements");
    }
    std::vector<T> values(static_cast<size_t>(count_));
    std::memcpy(values.data(), bytes.data() + kGuard, values.size() * sizeof(T));
    return values;
  }

 private:
  static constexpr int64_t kGuard = 256;
  static constexpr unsigned char kPattern = 0xff;

  CudaArray(const std::vector<T>& values, int64_t count) : count_(count) {
    memory_ = kernels::cuda::take_memory(gpu(), all_bytes());
    require(memory_ != nullptr, "the GPU has no room for a test's array of ", count, " elements");
    std::vector<unsigned char> bytes(static_cast<size_t>(all_bytes()), kPattern);
    if (!values.empty()) {
      std::memcpy(bytes.data() + kGuard, values.data(), values.size() * sizeof(T));
    }
    kernels::cuda::copy_to_device(gpu(), memory_, bytes.data(), all_bytes());
  }
  int64_t all_bytes() const { return 2 * kGuard + count_ * static_cast<int64_t>(sizeof(T)); }

  int64_t count_;
  std::byte* memory_;
};

/// Memory of the GPU as it is, for views whose offsets pass 2^31 elements: nothing of it is set or checked but what a
/// test touches.
template <class T>
class CudaSpace {
 public:
  explicit CudaSpace(int64_t count)
      : memory_(kernels::cuda::take_memory(gpu(), count * static_cast<int64_t>(sizeof(T)))) {
    require(memory_ != nullptr, "the GPU has no room for a test's space of ", count, " elements");
  }
  ~CudaSpace() {
    kernels::cuda::give_memory(gpu(), memory_);
    kernels::cuda::synchronize(gpu());
    kernels::cuda::release_memory(gpu());
  }
  CudaSpace(const CudaSpace&) = delete;
  CudaSpace& operator=(const CudaSpace&) = delete;
  T* data() const { return reinterpret_cast<T*>(memory_); }
  void write(int64_t at, const T* from, int64_t count) const {
    kernels::cuda::copy_to_device(gpu(), data() + at, from, count * static_cast<int64_t>(sizeof(T)));
  }
  void read(int64_t at, T* to, int64_t count) const {
    kernels::cuda::copy_to_host(gpu(), to, data() + at, count * static_cast<int64_t>(sizeof(T)));
  }

 private:
  std::byte* memory_;
};

/// Low precision is judged against a naive run in low precision: the largest error may be twice that of `naive` (the
/// reference computed with every intermediate rounded as a plain implementation would; where there is one rounding
/// only, the reference rounded once), plus the noise of float32 sums.
inline Comparison compare_twice_naive(const std::string& name, const std::vector<float>& found,
                                      const std::vector<double>& reference, const std::vector<float>& naive,
                                      double float_noise) {
  Comparison out;
  out.count = static_cast<int64_t>(found.size());
  if (found.size() != reference.size() || naive.size() != reference.size()) {
    out.passed = false;
    out.text = join(name, ": ", found.size(), " elements, expected ", reference.size());
    return out;
  }
  double worst = 0, allowed = 0, largest = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const double error = std::abs(static_cast<double>(found[i]) - reference[i]);
    allowed = std::max(allowed, std::abs(static_cast<double>(naive[i]) - reference[i]));
    largest = std::max(largest, std::abs(reference[i]));
    if (!(error <= worst)) {
      worst = std::isnan(error) ? HUGE_VAL : error;
      out.worst = static_cast<int64_t>(i);
    }
  }
  out.worst_error = worst;
  const double limit = 2 * allowed + float_noise * largest;
  out.passed = worst <= limit;
  out.bad = out.passed ? 0 : 1;
  out.text = join(name, ": worst error ", worst, " at ", out.worst, ", the naive one ", allowed, ", limit ", limit);
  return out;
}

}  // namespace blockstate::test
