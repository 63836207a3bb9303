// SPDX-License-Identifier: Apache-2.0
#include "core/tensor/recording.h"

#include <cstdlib>

namespace blockstate {

bool may_record(Device device) {
  static const bool unwanted = [] {
    const char* value = std::getenv("BLOCKSTATE_NO_GRAPHS");
    return value != nullptr && value[0] == '1';
  }();
  return device.kind == DeviceKind::kCuda && !unwanted;
}

}  // namespace blockstate
