// SPDX-License-Identifier: Apache-2.0
#include "core/data/synthetic.h"

#include <algorithm>
#include <numeric>

#include "core/base/check.h"
#include "core/base/random.h"

namespace blockstate::data {
namespace {

RandomStream stream_of(const SyntheticOptions& options, int64_t index) {
  return RandomStream(mix_key(mix_key(options.seed, 0x73796e74), static_cast<uint64_t>(index)));
}

}  // namespace

SelectiveCopying::SelectiveCopying(const SyntheticOptions& options) : options_(options) {
  require(options.length >= options.copies, "selective_copying: data.length = ", options.length,
          " has no room for data.copies = ", options.copies, " symbols");
}

Example SelectiveCopying::get(int64_t index) const {
  RandomStream stream = stream_of(options_, index);
  const int64_t L = options_.length, copies = options_.copies;
  Example example;
  example.name = join("selective_copying:", index);
  example.tokens.assign(static_cast<size_t>(L), options_.symbols);
  example.tokens.resize(static_cast<size_t>(L + copies), options_.symbols + 1);
  example.position_labels.assign(static_cast<size_t>(L + copies), -1);
  // Places by the first `copies` draws of a shuffle, then sorted: each set of places is equally likely.
  std::vector<int64_t> places(static_cast<size_t>(L));
  std::iota(places.begin(), places.end(), 0);
  for (int64_t i = 0; i < copies; ++i) {
    std::swap(places[static_cast<size_t>(i)],
              places[static_cast<size_t>(i) + stream.below(static_cast<uint64_t>(L - i))]);
  }
  std::sort(places.begin(), places.begin() + copies);
  for (int64_t i = 0; i < copies; ++i) {
    const auto symbol = static_cast<int64_t>(stream.below(static_cast<uint64_t>(options_.symbols)));
    example.tokens[static_cast<size_t>(places[static_cast<size_t>(i)])] = symbol;
    example.position_labels[static_cast<size_t>(L + i)] = symbol;
  }
  return example;
}

InductionHeads::InductionHeads(const SyntheticOptions& options) : options_(options) {
  require(options.length >= 4, "induction_heads: data.length = ", options.length, " must be at least 4");
}

Example InductionHeads::get(int64_t index) const {
  RandomStream stream = stream_of(options_, index);
  const int64_t L = options_.length;
  Example example;
  example.name = join("induction_heads:", index);
  for (int64_t t = 0; t < L; ++t) {
    example.tokens.push_back(static_cast<int64_t>(stream.below(static_cast<uint64_t>(options_.symbols))));
  }
  example.position_labels.assign(static_cast<size_t>(L), -1);
  const size_t place = stream.below(static_cast<uint64_t>(L - 2));
  example.tokens[place] = options_.symbols;
  example.tokens.back() = options_.symbols;
  example.position_labels.back() = example.tokens[place + 1];
  return example;
}

}  // namespace blockstate::data
