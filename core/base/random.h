// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers: a number is a pure function of what it is for, never of the order of calls, so a
// recomputed segment, another chunking or another thread count draws the same ones. C++17-clean.
#pragma once

#include <cstdint>

#include "core/base/view.h"

namespace blockstate {

/// Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Four words from a 128-bit
/// counter and a 64-bit key.
struct Philox {
  uint32_t word[4];

  BLOCKSTATE_HOST_DEVICE Philox(uint64_t key, uint64_t counter_high, uint64_t counter_low) {
    uint32_t k0 = static_cast<uint32_t>(key);
    uint32_t k1 = static_cast<uint32_t>(key >> 32);
    word[0] = static_cast<uint32_t>(counter_low);
    word[1] = static_cast<uint32_t>(counter_low >> 32);
    word[2] = static_cast<uint32_t>(counter_high);
    word[3] = static_cast<uint32_t>(counter_high >> 32);
    for (int round = 0; round < 10; ++round) {
      const uint64_t product0 = uint64_t{0xD2511F53u} * word[0];
      const uint64_t product1 = uint64_t{0xCD9E8D57u} * word[2];
      const uint32_t next0 = static_cast<uint32_t>(product1 >> 32) ^ word[1] ^ k0;
      const uint32_t next2 = static_cast<uint32_t>(product0 >> 32) ^ word[3] ^ k1;
      word[1] = static_cast<uint32_t>(product1);
      word[3] = static_cast<uint32_t>(product0);
      word[0] = next0;
      word[2] = next2;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
  }
};

/// Mixes a word into a key (the finaliser of SplitMix64), for building keys from several identifiers.
BLOCKSTATE_HOST_DEVICE inline uint64_t mix_key(uint64_t key, uint64_t word) {
  uint64_t z = (key ^ word) + 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

/// Uniform in [0, 1) with 24 bits.
BLOCKSTATE_HOST_DEVICE inline float unit_float(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

/// A stream of numbers for one purpose (initialising one parameter, shuffling one epoch). Its state is (key, counter).
class RandomStream {
 public:
  explicit RandomStream(uint64_t key) : key_(key) {}
  uint64_t bits();
  /// Uniform in [0, 1) with 53 bits.
  double uniform();
  /// Standard normal (Box-Muller).
  double normal();
  /// Uniform in [0, bound), unbiased; bound > 0.
  uint64_t below(uint64_t bound);

 private:
  uint64_t key_;
  uint64_t counter_ = 0;
};

}  // namespace blockstate
