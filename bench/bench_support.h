// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "core/base/random.h"

namespace blockstate::bench {

/// The same numbers, uniform in [low, high), in every run.
inline std::vector<float> values(int64_t count, float low, float high) {
  RandomStream random(static_cast<uint64_t>(count));
  std::vector<float> out(static_cast<size_t>(count));
  for (float& value : out) {
    value = low + (high - low) * static_cast<float>(random.uniform());
  }
  return out;
}

}  // namespace blockstate::bench
