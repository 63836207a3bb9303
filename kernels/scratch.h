// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace blockstate::kernels {

/// Working memory of one thread, kept from call to call so that a tile costs no page faults. Aligned to 64 bytes;
/// contents are undefined. A body of parallel_for asks once and divides what it gets: the next call on the same
/// thread returns the same memory.
inline void* thread_scratch(size_t bytes) {
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  thread_local std::unique_ptr<void, Free> memory;
  thread_local size_t capacity = 0;
  if (bytes > capacity) {
    const size_t rounded = (bytes + 4095) / 4096 * 4096;
    memory.reset();
    capacity = 0;
    memory.reset(std::aligned_alloc(64, rounded));
    if (!memory) {
      throw std::bad_alloc();
    }
    capacity = rounded;
  }
  return memory.get();
}

/// Divides scratch memory into arrays, each aligned to 64 bytes.
template <class T>
class ScratchArrays {
 public:
  explicit ScratchArrays(int64_t elements, int64_t arrays)
      : next_(static_cast<T*>(thread_scratch(static_cast<size_t>(elements + arrays * kAlign) * sizeof(T)))) {}

  T* take(int64_t elements) {
    T* const out = next_;
    next_ += (elements + kAlign - 1) / kAlign * kAlign;
    return out;
  }

 private:
  static constexpr int64_t kAlign = 64 / static_cast<int64_t>(sizeof(T));
  T* next_;
};

}  // namespace blockstate::kernels
