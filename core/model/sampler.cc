// SPDX-License-Identifier: Apache-2.0
#include "core/model/sampler.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"
#include "core/base/random.h"

namespace blockstate::model {
namespace {

constexpr uint64_t kPurpose = 0x73616d706c657221;  // keeps these numbers apart from a training's of the same seed

}  // namespace

double sampling_uniform(uint64_t seed, int64_t sample, int64_t position) {
  const Philox numbers(mix_key(seed, kPurpose), static_cast<uint64_t>(sample), static_cast<uint64_t>(position));
  const uint64_t bits = uint64_t{numbers.word[0]} << 32 | numbers.word[1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

Sampler::Sampler(const Sampling& sampling) : sampling_(sampling) {
  require(sampling.temperature >= 0 && std::isfinite(sampling.temperature),
          "--temperature: 0 (greedy) or more was wanted, found ", sampling.temperature);
  require(sampling.top_k >= 0, "--top-k: 0 (all) or more was wanted, found ", sampling.top_k);
  require(sampling.top_p > 0 && sampling.top_p <= 1, "--top-p: more than 0 and at most 1 was wanted, found ",
          sampling.top_p);
}

int64_t Sampler::draw(std::span<const float> logits, int64_t sample, int64_t position) {
  order_.clear();
  for (size_t id = 0; id < logits.size(); ++id) {
    require(!std::isnan(logits[id]), "the model's logit of token ", id, " at step ", position,
            " is not a number; was its training stable?");
    order_.emplace_back(static_cast<double>(logits[id]), static_cast<int64_t>(id));
  }
  const auto likelier = [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  };
  const auto best = std::min_element(order_.begin(), order_.end(), likelier);
  require(best != order_.end() && std::isfinite(best->first), "the model gives no finite logit at step ", position,
          "; was its training stable?");
  if (sampling_.temperature == 0) {
    return best->second;
  }
  const double peak = best->first;
  const auto all = static_cast<int64_t>(order_.size());
  const int64_t kept = sampling_.top_k == 0 ? all : std::min(sampling_.top_k, all);
  if (kept < all || sampling_.top_p < 1) {
    std::partial_sort(order_.begin(), order_.begin() + kept, order_.end(), likelier);
    order_.resize(static_cast<size_t>(kept));
  }
  double total = 0;
  for (auto& [weight, id] : order_) {
    weight = std::exp((weight - peak) / sampling_.temperature);
    total += weight;
  }
  if (sampling_.top_p < 1) {
    double reached = 0;
    size_t count = 0;
    while (count < order_.size() && reached < sampling_.top_p * total) {
      reached += order_[count++].first;
    }
    order_.resize(count);
    total = reached;
  }
  double left = sampling_uniform(sampling_.seed, sample, position) * total;
  int64_t last = 0;
  for (const auto& [weight, id] : order_) {
    if (weight > 0) {
      last = id;  // rounding may leave a little at the end: it belongs to the last one that can be drawn
      left -= weight;
      if (left < 0) {
        break;
      }
    }
  }
  return last;
}

}  // namespace blockstate::model
