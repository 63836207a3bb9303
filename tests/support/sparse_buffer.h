// SPDX-License-Identifier: Apache-2.0
// Address space without memory behind it, for views whose offsets pass 2^31 elements: only pages that are touched
// become real. Reads of untouched pages give zeros.
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "core/base/check.h"

namespace blockstate::test {

template <class T>
class SparseBuffer {
 public:
  explicit SparseBuffer(int64_t count) : bytes_(static_cast<size_t>(count) * sizeof(T)) {
    void* address = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    require(address != MAP_FAILED, "SparseBuffer: cannot map ", bytes_, " bytes: ", std::strerror(errno));
    data_ = static_cast<T*>(address);
  }
  ~SparseBuffer() { munmap(data_, bytes_); }
  SparseBuffer(const SparseBuffer&) = delete;
  SparseBuffer& operator=(const SparseBuffer&) = delete;

  T* data() const { return data_; }

 private:
  size_t bytes_;
  T* data_;
};

}  // namespace blockstate::test
