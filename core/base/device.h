// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace blockstate {

enum class DeviceKind : uint8_t { kCpu, kCuda };

/// Where a tensor lives. `index` numbers the GPUs; it is 0 for the CPU.
struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

std::string device_name(Device device);
/// Accepts "cpu", "cuda", "cuda:N", and "auto" (a GPU if this build and machine have one, else the CPU).
/// Asking for CUDA where there is none is an Error that says what is missing.
Device parse_device(std::string_view name);

}  // namespace blockstate
