// SPDX-License-Identifier: Apache-2.0
#include "core/base/random.h"

#include <cmath>

namespace blockstate {

uint64_t RandomStream::bits() {
  const Philox draw(key_, 0, counter_++);
  return (uint64_t{draw.word[1]} << 32) | draw.word[0];
}

double RandomStream::uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }

double RandomStream::normal() {
  constexpr double kTwoPi = 6.283185307179586476925;
  const double radius = std::sqrt(-2.0 * std::log1p(-uniform()));
  return radius * std::cos(kTwoPi * uniform());
}

uint64_t RandomStream::below(uint64_t bound) {
  // Rejects the tail of the 64-bit range that would favour small numbers.
  const uint64_t limit = UINT64_MAX - (UINT64_MAX % bound + 1) % bound;
  uint64_t draw = bits();
  while (draw > limit) {
    draw = bits();
  }
  return draw % bound;
}

}  // namespace blockstate
