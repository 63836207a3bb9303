// SPDX-License-Identifier: Apache-2.0
#include "core/base/device.h"

#include "core/base/check.h"

namespace blockstate {

std::string device_name(Device device) { return device.kind == DeviceKind::kCpu ? "cpu" : join("cuda:", device.index); }

}  // namespace blockstate
