// SPDX-License-Identifier: Apache-2.0
#include "core/base/device.h"

#include "core/base/check.h"

namespace blockstate {

std::string device_name(Device device) { return device.kind == DeviceKind::kCpu ? "cpu" : join("cuda:", device.index); }

Device parse_device(std::string_view name) {
  if (name == "cpu" || name == "auto") {
    return {};
  }
  if (name == "cuda" || name.substr(0, 5) == "cuda:") {
    fail("device = \"", name, "\": this build of blockstate has no CUDA code; use device = \"cpu\" or \"auto\"");
  }
  fail("device = \"", name, "\" is not known; choose auto, cpu, cuda or cuda:N");
}

}  // namespace blockstate
