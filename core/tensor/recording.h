// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/base/device.h"

namespace blockstate {

/// Whether work that repeats may be recorded and replayed (kernels::cuda::StreamGraph): on a GPU, unless
/// BLOCKSTATE_NO_GRAPHS=1 is in the environment, for whoever looks for an error.
bool may_record(Device device);

}  // namespace blockstate
