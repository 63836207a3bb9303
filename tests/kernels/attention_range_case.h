// SPDX-License-Identifier: Apache-2.0
// Which keys a step sees, said key by key: the reference of attention_ranges for the tests of both devices.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention_range.h"

namespace blockstate::test {

struct RangeCase {
  kernels::RangeKind kind;
  int64_t window, carried;
  bool sees_self;
  int64_t first, states;
};
inline constexpr RangeCase kRangeCases[] = {
    {kernels::RangeKind::kSliding, 1, 0, true, 0, 0},   {kernels::RangeKind::kSliding, 5, 4, true, 0, 0},
    {kernels::RangeKind::kSliding, 5, 7, false, 0, 0},  {kernels::RangeKind::kSliding, 0, 60, true, 0, 0},
    {kernels::RangeKind::kSliding, 0, 60, false, 0, 0}, {kernels::RangeKind::kBlock, 4, 3, true, 0, 0},
    {kernels::RangeKind::kBlock, 1, 0, true, 0, 0},     {kernels::RangeKind::kPrevious, 4, 0, true, 0, 3},
    {kernels::RangeKind::kPrevious, 4, 0, true, 6, 2},  {kernels::RangeKind::kPrevious, 7, 0, true, 1000003, 1}};

/// Rows of a chunk whose record began before it, with a reset and padding inside; and one of padding only.
inline std::vector<int64_t> range_positions(int64_t batch, int64_t length) {
  std::vector<int64_t> position;
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t reset = length / 3 + b, padding = length - 2 * b;
    for (int64_t t = 0; t < length; ++t) {
      position.push_back(t >= padding || b == 3 ? -1 : t < reset ? t + 50 : t - reset);
    }
  }
  return position;
}

/// True where step i at this position sees key k, from the words of the contract: keys from `carried` on are the
/// chunk's steps, those before it the steps just before the chunk.
inline bool sees_key(const RangeCase& s, int64_t position, int64_t step, int64_t key) {
  const int64_t distance = s.carried + step - key;  // in steps; 0 for the step itself
  if (position < 0) {
    return false;
  }
  switch (s.kind) {
    case kernels::RangeKind::kSliding:
      return distance >= (s.sees_self ? 0 : 1) && distance <= position &&
             (s.window == 0 || distance < s.window + (s.sees_self ? 0 : 1));
    case kernels::RangeKind::kBlock:
      return distance >= 0 && distance <= position &&
             (position - distance) / s.window == position / s.window;  // the same aligned window of the record
    default: {
      const int64_t group = (s.first + step) / s.window - s.first / s.window;
      return position >= s.window && key / s.states == group;
    }
  }
}

}  // namespace blockstate::test
