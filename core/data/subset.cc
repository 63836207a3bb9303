// SPDX-License-Identifier: Apache-2.0
#include "core/data/subset.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/random.h"

namespace blockstate::data {

std::pair<std::shared_ptr<Dataset>, std::shared_ptr<Dataset>> hold_out(std::shared_ptr<const Dataset> whole,
                                                                       double fraction, uint64_t seed) {
  const int64_t size = whole->size();
  std::vector<int64_t> order(static_cast<size_t>(size));
  std::iota(order.begin(), order.end(), 0);
  RandomStream stream(mix_key(seed, 0x686f6c64));
  for (size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[stream.below(i)]);
  }
  int64_t held = static_cast<int64_t>(std::llround(fraction * static_cast<double>(size)));
  if (size >= 2 && fraction > 0) {
    held = std::clamp<int64_t>(held, 1, size - 1);
  }
  std::vector<int64_t> second(order.begin(), order.begin() + held), first(order.begin() + held, order.end());
  std::sort(first.begin(), first.end());
  std::sort(second.begin(), second.end());
  return {std::make_shared<Subset>(whole, std::move(first)), std::make_shared<Subset>(whole, std::move(second))};
}

}  // namespace blockstate::data
