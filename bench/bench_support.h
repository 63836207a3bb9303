// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "core/base/parallel.h"
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

/// The size of the pool while a benchmark runs.
class PoolSize {
 public:
  explicit PoolSize(int64_t threads) : before_(thread_count()) { set_thread_count(static_cast<int>(threads)); }
  ~PoolSize() { set_thread_count(before_); }
  PoolSize(const PoolSize&) = delete;
  PoolSize& operator=(const PoolSize&) = delete;

 private:
  int before_;
};

}  // namespace blockstate::bench
