// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace blockstate::model {

/// How the next token is drawn from logits. The filters follow one another: temperature, top-k, top-p (nucleus
/// sampling, Holtzman et al. 2019, arXiv 1904.09751).
struct Sampling {
  double temperature = 1;  ///< logits are divided by it; 0: always the likeliest token (greedy)
  int64_t top_k = 0;       ///< only the k likeliest; 0, or more than there are: all
  double top_p = 1;        ///< only the likeliest ones that together reach this probability
  uint64_t seed = 1;
};

/// Uniform in [0, 1) with 53 bits: a function of what the number is for, so that a sample depends neither on the others
/// made beside it nor on where its making was interrupted. `position`: steps of the stream before the token.
double sampling_uniform(uint64_t seed, int64_t sample, int64_t position);

/// Draws tokens. Among equal logits the lower id counts as the likelier.
class Sampler {
 public:
  /// Error: a temperature below 0, a top_k below 0, a top_p outside (0, 1].
  explicit Sampler(const Sampling& sampling);
  /// An id in [0, V) from logits (V). Error: a logit that is NaN, or no finite one.
  int64_t draw(std::span<const float> logits, int64_t sample, int64_t position);
  const Sampling& sampling() const { return sampling_; }

 private:
  Sampling sampling_;
  std::vector<std::pair<double, int64_t>> order_;  ///< logit or weight, and id
};

}  // namespace blockstate::model
