// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace blockstate {

enum class DeviceKind : uint8_t { kCpu, kCuda };

/// Where a tensor lives. `index` numbers the GPUs; it is 0 for the CPU.
struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

std::string device_name(Device device);

}  // namespace blockstate
