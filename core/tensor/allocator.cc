// SPDX-License-Identifier: Apache-2.0
#include "core/tensor/allocator.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "core/base/check.h"
#include "kernels/cuda_exec.h"

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

std::string gib(int64_t bytes) {
  const int64_t hundredths = bytes / ((int64_t{1} << 30) / 100);
  return join(hundredths / 100, ".", hundredths % 100 / 10, hundredths % 10);
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
      throw OutOfMemory(join("out of memory on the CPU: ", gib(size), " GiB were asked for while ",
                             gib(statistics_.in_use),
                             " GiB of tensors are in use; lower train.batch or data.length, or set train.chunk"));
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

std::byte* take_on_gpu(int64_t bytes, Device device) {
  namespace cuda = kernels::cuda;
  const cuda::Exec exec = cuda::exec(device.index);
  std::byte* memory = cuda::take_memory(exec, bytes);
  if (memory == nullptr) {
    throw OutOfMemory(join("out of memory on ", device_name(device), ": ", gib(bytes), " GiB were asked for while ",
                           gib(cuda::memory_use(exec).in_use), " GiB of tensors are in use and ",
                           gib(cuda::free_memory(exec)),
                           " GiB are free; lower train.batch or data.length, or set train.chunk"));
  }
  return memory;
}

}  // namespace

Storage::~Storage() {
  if (data == nullptr) {
    return;
  }
  if (device.kind == DeviceKind::kCuda) {
    kernels::cuda::give_memory(kernels::cuda::exec(device.index), data);
  } else {
    host().give(data, bytes);
  }
}

std::shared_ptr<Storage> allocate(int64_t bytes, Device device) {
  auto storage = std::make_shared<Storage>();
  storage->data = device.kind == DeviceKind::kCuda ? take_on_gpu(bytes, device) : host().take(bytes);
  storage->bytes = bytes;
  storage->device = device;
  return storage;
}

MemoryStatistics memory_statistics(Device device) {
  if (device.kind == DeviceKind::kCpu) {
    return host().statistics();
  }
  const auto use = kernels::cuda::memory_use(kernels::cuda::exec(device.index));
  return {use.in_use, use.peak, use.reserved};
}

int64_t free_memory(Device device) {
  if (device.kind == DeviceKind::kCuda) {
    return kernels::cuda::free_memory(kernels::cuda::exec(device.index));
  }
  return static_cast<int64_t>(sysconf(_SC_AVPHYS_PAGES)) * static_cast<int64_t>(sysconf(_SC_PAGESIZE));
}

void reset_peak_memory(Device device) {
  if (device.kind == DeviceKind::kCuda) {
    kernels::cuda::reset_peak_memory(kernels::cuda::exec(device.index));
  } else {
    host().reset_peak();
  }
}

void release_cached_memory(Device device) {
  if (device.kind == DeviceKind::kCuda) {
    kernels::cuda::release_memory(kernels::cuda::exec(device.index));
  } else {
    host().release_all();
  }
}

}  // namespace blockstate
