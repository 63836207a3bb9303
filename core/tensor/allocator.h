// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "core/base/device.h"

namespace blockstate {

/// A block of a device's memory, 64-byte aligned at least. Freed blocks above a threshold are kept and handed out
/// again: a training step asks for the same sizes over and over, and fresh pages cost more than the kernels that fill
/// them.
struct Storage {
  std::byte* data = nullptr;
  int64_t bytes = 0;
  Device device;
  ~Storage();
};

/// Error with the size asked for and the size in use when memory runs out.
std::shared_ptr<Storage> allocate(int64_t bytes, Device device);

struct MemoryStatistics {
  int64_t in_use = 0;    ///< bytes held by living tensors; on a GPU also what kernels work with
  int64_t peak = 0;      ///< largest in_use since the last reset_peak
  int64_t reserved = 0;  ///< bytes taken from the system, cached blocks included
};

MemoryStatistics memory_statistics(Device device);
void reset_peak_memory(Device device);
/// Bytes that can still be allocated; on the CPU what the system says is available.
int64_t free_memory(Device device);
/// Gives cached blocks back to the system.
void release_cached_memory(Device device);

}  // namespace blockstate
