// SPDX-License-Identifier: Apache-2.0
#include "core/tensor/choose_device.h"

#include <charconv>

#include "core/base/check.h"
#include "kernels/cuda_exec.h"

namespace blockstate {

Device choose_device(std::string_view name) {
  if (name == "cpu") {
    return {};
  }
  if (name == "auto") {
    return kernels::cuda::device_count() > 0 && kernels::cuda::why_unusable(0).empty() ? Device{DeviceKind::kCuda, 0}
                                                                                       : Device{};
  }
  Device device{DeviceKind::kCuda, 0};
  if (name != "cuda") {
    const bool numbered = name.substr(0, 5) == "cuda:";
    const char* end = name.data() + name.size();
    const auto [rest, problem] =
        numbered ? std::from_chars(name.data() + 5, end, device.index) : std::from_chars_result{end, std::errc()};
    require(numbered && problem == std::errc() && rest == end && device.index >= 0, "device = \"", name,
            "\" is not known; choose auto, cpu, cuda or cuda:N");
  }
  const std::string reason = kernels::cuda::why_unusable(device.index);
  require(reason.empty(), "device = \"", name, "\": ", reason);
  return device;
}

}  // namespace blockstate
