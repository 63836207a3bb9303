// SPDX-License-Identifier: Apache-2.0
// Drawing tokens, and a generator that goes on from a carry.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <set>

#include "core/model/generator.h"
#include "core/model/sampler.h"
#include "tests/nn/law.h"
#include "tests/support/compare.h"

namespace blockstate {
namespace {

using Catch::Matchers::Contains;
using model::Sampler;
using model::Sampling;

/// How often each token comes, of `draws`.
std::vector<double> shares(const Sampling& sampling, const std::vector<float>& logits, int64_t draws = 40000) {
  Sampler sampler(sampling);
  std::vector<double> counts(logits.size());
  for (int64_t i = 0; i < draws; ++i) {
    counts[static_cast<size_t>(sampler.draw(logits, 3, i))] += 1 / static_cast<double>(draws);
  }
  return counts;
}

void check_shares(const Sampling& sampling, const std::vector<float>& logits, const std::vector<double>& expected) {
  const std::vector<double> found = shares(sampling, logits);
  for (size_t i = 0; i < expected.size(); ++i) {
    INFO("token " << i);
    // Five standard deviations of a share of 40000 draws; a token that may not be drawn never is.
    CHECK(std::abs(found[i] - expected[i]) <= 5 * std::sqrt(expected[i] * (1 - expected[i]) / 40000));
  }
}

// Probabilities 0.1, 0.4, 0.2, 0.3.
const std::vector<float> kLogits = {std::log(0.1F), std::log(0.4F), std::log(0.2F), std::log(0.3F)};

}  // namespace

TEST_CASE("tokens come as often as their probability says", "[sampler]") {
  check_shares({}, kLogits, {0.1, 0.4, 0.2, 0.3});
  std::vector<float> moved = kLogits;  // logits count up to a constant
  for (float& logit : moved) {
    logit += 500;
  }
  check_shares({}, moved, {0.1, 0.4, 0.2, 0.3});
  check_shares({.temperature = 0.5}, kLogits, {0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3});
  check_shares({.top_k = 2}, kLogits, {0, 4.0 / 7, 0, 3.0 / 7});
  check_shares({.top_k = 4}, kLogits, {0.1, 0.4, 0.2, 0.3});
  check_shares({.top_k = 1000}, kLogits, {0.1, 0.4, 0.2, 0.3});
  check_shares({.top_p = 0.65}, kLogits, {0, 4.0 / 7, 0, 3.0 / 7});
  check_shares({.top_p = 0.75}, kLogits, {0, 4.0 / 9, 2.0 / 9, 3.0 / 9});
  check_shares({.top_k = 3, .top_p = 0.7}, kLogits, {0, 4.0 / 7, 0, 3.0 / 7});
  check_shares({.temperature = 0.5, .top_p = 0.8}, kLogits, {0, 16.0 / 25, 0, 9.0 / 25});
  const float never = -std::numeric_limits<float>::infinity();
  check_shares({}, {0, never, 0, never}, {0.5, 0, 0.5, 0});
}

TEST_CASE("greedy and its limits", "[sampler]") {
  const std::vector<float> tied = {1, 3, 2, 3};
  for (const Sampling& sampling : {Sampling{.temperature = 0}, Sampling{.top_k = 1}, Sampling{.top_p = 1e-12},
                                   Sampling{.temperature = 0, .top_k = 3, .seed = 9}}) {
    Sampler sampler(sampling);
    for (int64_t i = 0; i < 50; ++i) {
      CHECK(sampler.draw(tied, 0, i) == 1);  // the lower id of the two
    }
  }
  CHECK(Sampler({.temperature = 1e-300}).draw(std::vector<float>{1, 2, 1.5F}, 0, 0) == 1);
}

TEST_CASE("a draw is a function of seed, sample and position", "[sampler]") {
  std::set<double> seen;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    for (int64_t sample = 0; sample < 8; ++sample) {
      for (int64_t position = 0; position < 64; ++position) {
        const double u = model::sampling_uniform(seed, sample, position);
        CHECK((u >= 0 && u < 1));
        CHECK(u == model::sampling_uniform(seed, sample, position));
        seen.insert(u);
      }
    }
  }
  CHECK(seen.size() == 8 * 8 * 64);
}

TEST_CASE("what cannot be drawn from is said", "[sampler]") {
  CHECK_THROWS_WITH(Sampler({.temperature = -0.5}), Contains("--temperature") && Contains("-0.5"));
  CHECK_THROWS_WITH(Sampler({.temperature = std::nan("")}), Contains("--temperature"));
  CHECK_THROWS_WITH(Sampler({.top_k = -1}), Contains("--top-k") && Contains("-1"));
  CHECK_THROWS_WITH(Sampler({.top_p = 0}), Contains("--top-p"));
  CHECK_THROWS_WITH(Sampler({.top_p = std::nan("")}), Contains("--top-p"));
  Sampler sampler({});
  CHECK_THROWS_WITH(sampler.draw(std::vector<float>{1, std::nanf(""), 2}, 0, 7),
                    Contains("token 1") && Contains("step 7"));
  const float infinite = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH(sampler.draw(std::vector<float>{-infinite, -infinite}, 0, 7), Contains("no finite logit"));
}

TEST_CASE("a generator goes on from a carry with the same bits", "[model]") {
  constexpr int64_t kVocabulary = 6, kLength = 31;
  model::ModelConfig config;
  config.d_model = 8;
  config.blocks = {"mamba s4d window hybrid full"};
  config.sublayers["mamba"] = {"mamba", nn::MambaConfig{.state = 4}};
  config.sublayers["s4d"] = {"s4d", nn::S4dConfig{.state = 4}};
  config.sublayers["window"] = {"attention", nn::AttentionConfig{.heads = 2, .window = 6}};
  config.sublayers["full"] = {"attention", nn::AttentionConfig{.heads = 2}};
  config.sublayers["hybrid"] = {"block_state", nn::BlockStateConfig{.window = 4, .states = 3, .heads = 2}};
  const model::Model model(config, {.vocabulary = kVocabulary, .outputs = kVocabulary},
                           nn::Initialiser(3, DType::kFloat32));
  const std::vector<int64_t> ids = test::random_ids(4, kLength, 0, kVocabulary);
  const auto steps = [&](model::Generator& generator, int64_t begin, int64_t end) {
    std::vector<std::vector<double>> logits;
    for (int64_t t = begin; t < end; ++t) {
      logits.push_back(test::values_of(generator.step({ids[static_cast<size_t>(t)]}).clone()));
    }
    return logits;
  };
  for (const int64_t cut : {0, 1, 3, 4, 5, 17, 30}) {
    CAPTURE(cut);
    model::Generator straight(model, 1), first(model, 1), second(model, 1);
    steps(straight, 0, cut);
    steps(first, 0, cut);
    second.restore(first.carry(), first.position());
    CHECK(second.position() == cut);
    const auto expected = steps(straight, cut, kLength);
    CHECK(steps(second, cut, kLength) == expected);
    // The carry is copied: going on elsewhere changed nothing here.
    CHECK(steps(first, cut, kLength) == expected);
    if (cut > 0) {
      // A carry of one step too early, or none, is another stream.
      model::Generator late(model, 1), empty(model, 1);
      steps(late, 0, cut - 1);
      second.restore(late.carry(), cut);
      CHECK(steps(second, cut, kLength) != expected);
      CHECK(steps(empty, cut, kLength) != expected);
    }
    // One row becomes several.
    model::Generator rows(model, 3);
    model::Generator again(model, 1);
    steps(again, 0, cut);
    rows.restore(again.carry(), cut);
    const int64_t id = ids[static_cast<size_t>(cut)];
    const Tensor all = rows.step({id, id, id});
    for (int64_t row = 0; row < 3; ++row) {
      CHECK(test::compare("logits", test::values_of(all.slice(0, row, row + 1).packed()), expected.front(),
                          {1e-5, 1e-6}));
    }
    if (cut > 0) {
      CHECK_THROWS_WITH(second.restore(rows.carry(), cut), Contains("has 3 rows; 1 were wanted"));
    }
  }
}

}  // namespace blockstate
