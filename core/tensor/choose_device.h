// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "core/base/device.h"

namespace blockstate {

/// Accepts "cpu", "cuda", "cuda:N", and "auto" (a GPU if this build and machine have a usable one, else the CPU).
/// Asking for CUDA where there is none is an Error that says what is missing.
Device choose_device(std::string_view name);

}  // namespace blockstate
