// SPDX-License-Identifier: Apache-2.0
// C++17-clean: included from .cu files.
#pragma once

#include <cstdint>
#include <cstring>

namespace blockstate {

/// The upper half of a float32: 8 bits of exponent, 7 of mantissa. A storage type: arithmetic happens in float.
struct BFloat16 {
  uint16_t bits = 0;

  BFloat16() = default;
  /// Rounds to nearest, ties to even; NaN stays NaN.
  explicit BFloat16(float value) {
    uint32_t word;
    std::memcpy(&word, &value, sizeof(word));
    const bool nan = (word & 0x7fffffffu) > 0x7f800000u;
    bits = static_cast<uint16_t>(nan ? (word >> 16) | 0x40u : (word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
  }
  explicit operator float() const {
    const uint32_t word = uint32_t{bits} << 16;
    float value;
    std::memcpy(&value, &word, sizeof(value));
    return value;
  }
};
static_assert(sizeof(BFloat16) == 2, "bfloat16 tensors are arrays of two-byte elements");

}  // namespace blockstate
