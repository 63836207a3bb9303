// SPDX-License-Identifier: Apache-2.0
#include "core/tensor/allocator.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "core/base/check.h"

namespace blockstate {
namespace {

constexpr int64_t kAlignment = 64;
// Smaller blocks go straight to malloc, which caches them well itself.
constexpr int64_t kCacheFrom = 64 * 1024;

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kCache = false;  // a reused block would hide a use after free
#else
constexpr bool kCache = true;
#endif

/// Sizes are rounded up to eighths of a power of two, so that a block serves requests of nearly its size and at most
/// an eighth of it is wasted.
int64_t rounded(int64_t bytes) {
  bytes = std::max<int64_t>(bytes, 1);
  if (bytes < kCacheFrom) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  const int64_t step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(bytes))) / 8;
  return (bytes + step - 1) / step * step;
}

class HostAllocator {
 public:
  std::byte* take(int64_t bytes) {
    const int64_t size = rounded(bytes);
    std::lock_guard lock(mutex_);
    statistics_.in_use += size;
    statistics_.peak = std::max(statistics_.peak, statistics_.in_use);
    auto& blocks = free_[size];
    if (!blocks.empty()) {
      std::byte* block = blocks.back();
      blocks.pop_back();
      return block;
    }
    auto* block = static_cast<std::byte*>(std::aligned_alloc(kAlignment, static_cast<size_t>(size)));
    if (block == nullptr) {
      release();
      block = static_cast<std::byte*>(std::aligned_alloc(kAlignment, static_cast<size_t>(size)));
    }
    if (block == nullptr) {
      statistics_.in_use -= size;
      fail("out of memory on the CPU: ", size, " bytes were asked for while ", statistics_.in_use,
           " bytes of tensors are in use; lower train.batch, data.length or model.d_model");
    }
    statistics_.reserved += size;
    return block;
  }

  void give(std::byte* block, int64_t bytes) {
    const int64_t size = rounded(bytes);
    std::lock_guard lock(mutex_);
    statistics_.in_use -= size;
    if (kCache && size >= kCacheFrom) {
      free_[size].push_back(block);
    } else {
      statistics_.reserved -= size;
      std::free(block);
    }
  }

  void release_all() {
    std::lock_guard lock(mutex_);
    release();
  }

  MemoryStatistics statistics() {
    std::lock_guard lock(mutex_);
    return statistics_;
  }

  void reset_peak() {
    std::lock_guard lock(mutex_);
    statistics_.peak = statistics_.in_use;
  }

 private:
  void release() {
    for (auto& [size, blocks] : free_) {
      for (std::byte* block : blocks) {
        std::free(block);
        statistics_.reserved -= size;
      }
      blocks.clear();
    }
  }

  std::mutex mutex_;
  std::map<int64_t, std::vector<std::byte*>> free_;
  MemoryStatistics statistics_;
};

HostAllocator& host() {
  // Leaked on purpose: tensors in static objects may outlive any order of destruction.
  static auto* allocator = new HostAllocator;
  return *allocator;
}

}  // namespace

Storage::~Storage() {
  if (data != nullptr) {
    host().give(data, bytes);
  }
}

std::shared_ptr<Storage> allocate(int64_t bytes, Device device) {
  require(device.kind == DeviceKind::kCpu, "cannot allocate on ", device_name(device),
          ": this build of blockstate has no CUDA code");
  auto storage = std::make_shared<Storage>();
  storage->data = host().take(bytes);
  storage->bytes = bytes;
  storage->device = device;
  return storage;
}

MemoryStatistics memory_statistics(Device) { return host().statistics(); }
void reset_peak_memory(Device) { host().reset_peak(); }
void release_cached_memory(Device) { host().release_all(); }

}  // namespace blockstate
