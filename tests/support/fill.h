// SPDX-License-Identifier: Apache-2.0
// Seeded values for tests. The same key gives the same values on every machine.
#pragma once

#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "core/base/random.h"

namespace blockstate::test {

template <class T>
std::vector<T> random_normal(uint64_t key, int64_t count, double scale = 1, double shift = 0) {
  RandomStream stream(key);
  std::vector<T> values(static_cast<size_t>(count));
  for (T& value : values) {
    value = static_cast<T>(shift + scale * stream.normal());
  }
  return values;
}

/// The same numbers, drawn once a process: for those that run after run of a test asks for, and that would take longer
/// than the runs. Not for several threads.
inline const std::vector<double>& shared_normal(uint64_t key, int64_t count, double scale = 1, double shift = 0) {
  static std::map<std::tuple<uint64_t, int64_t, double, double>, std::vector<double>> drawn;
  std::vector<double>& values = drawn[{key, count, scale, shift}];
  if (values.empty()) {
    values = random_normal<double>(key, count, scale, shift);
  }
  return values;
}

template <class T>
std::vector<T> random_uniform(uint64_t key, int64_t count, double low = 0, double high = 1) {
  RandomStream stream(key);
  std::vector<T> values(static_cast<size_t>(count));
  for (T& value : values) {
    value = static_cast<T>(low + (high - low) * stream.uniform());
  }
  return values;
}

/// Integers in [low, high).
inline std::vector<int64_t> random_ids(uint64_t key, int64_t count, int64_t low, int64_t high) {
  RandomStream stream(key);
  std::vector<int64_t> values(static_cast<size_t>(count));
  for (int64_t& value : values) {
    value = low + static_cast<int64_t>(stream.below(static_cast<uint64_t>(high - low)));
  }
  return values;
}

/// The same values in another type, for a double reference of a float input.
template <class To, class From>
std::vector<To> converted(const std::vector<From>& values) {
  return std::vector<To>(values.begin(), values.end());
}

}  // namespace blockstate::test
