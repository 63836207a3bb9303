// SPDX-License-Identifier: Apache-2.0
// Sets of named tensors bit by bit, for tests of resuming.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/train/named_tensors.h"

namespace blockstate::test {

/// Tensors that are not the same in name, shape and every bit.
inline int64_t different(const train::NamedTensors& found, const train::NamedTensors& expected) {
  int64_t count = found.size() != expected.size();
  for (const auto& [name, tensor] : expected) {
    const Tensor& other = found.at(name);
    count += other.shape() != tensor.shape() ||
             std::memcmp(other.bytes(), tensor.bytes(),
                         static_cast<size_t>(tensor.elements() * dtype_size(tensor.dtype()))) != 0;
  }
  return count;
}

}  // namespace blockstate::test
