// SPDX-License-Identifier: Apache-2.0
// A model's tensors past 2^31 elements: one pass over two million steps gives the logits of chunks, which stay far
// below that. Needs up to 40 GB.
#include <catch2/catch.hpp>
#include <cmath>

#include "core/train/evaluate.h"
#include "tests/support/fill.h"
#include "tests/support/tolerances.h"

namespace blockstate {
namespace {

constexpr Device kGpu{DeviceKind::kCuda, 0};
constexpr int64_t kLength = (int64_t{1} << 21) + 4099, kChunk = 65536, kVocabulary = 16;

std::vector<float> on_host(const Tensor& logits) {
  const Tensor values = logits.to(DType::kFloat32).to(Device{});
  return {values.data<float>(), values.data<float>() + values.elements()};
}

/// How far numbers are from those they should be.
struct Difference {
  double largest = 0, squares = 0;
  int64_t count = 0;

  void add(float a, float b) {
    const double off = std::abs(static_cast<double>(a) - static_cast<double>(b));
    largest = std::isnan(off) ? HUGE_VAL : std::max(largest, off);
    squares += off * off;
    ++count;
  }
  double root_mean_square() const { return std::sqrt(squares / static_cast<double>(count)); }
};

/// `width`: of the widest tensor between ops.
void check_one_pass(const std::string& blocks, int64_t d_model, int64_t width) {
  REQUIRE(kLength * width > int64_t{1} << 31);
  model::ModelConfig config;
  config.d_model = d_model;
  config.blocks = {blocks};
  config.sublayers["window"] = {"attention", nn::AttentionConfig{.heads = d_model / 64, .window = 512}};
  const model::Model model(config, {.vocabulary = kVocabulary, .outputs = kVocabulary},
                           nn::Initialiser(3, DType::kFloat32, kGpu), DType::kBFloat16);
  data::Example example;
  example.name = "two million steps";
  example.tokens = test::random_ids(1, kLength + 1, 0, kVocabulary);
  const data::Batch batch = data::collate({example}, {.targets = data::TargetKind::kNextToken});
  REQUIRE(batch.length() == kLength);

  GradMode off(false);
  reset_peak_memory(kGpu);
  std::vector<float> whole;
  {
    const Variable logits = model.forward(train::model_input(model, batch, false, 0));
    whole = on_host(logits.value());
    const train::LossResult result = train::loss_of_logits(logits, batch.targets, {}, batch.target_count);
    int64_t finite = 0;
    for (const float loss : on_host(result.row_loss)) {
      finite += std::isfinite(loss);
    }
    CHECK(finite == kLength);
  }
  CHECK(memory_statistics(kGpu).peak < int64_t{40} << 30);  // in half of a card of 80 GB
  double squares = 0, largest = 0;
  for (const float value : whole) {
    squares += static_cast<double>(value) * static_cast<double>(value);
    largest = std::max(largest, std::abs(static_cast<double>(value)));
  }
  const double size = std::sqrt(squares / static_cast<double>(whole.size()));
  REQUIRE(std::isfinite(squares));

  // Sums in another order, by the shapes of products and the cut of scans, change a rounding to bfloat16 here and
  // there; where attention's tiles of queries fall elsewhere than in one pass, all roundings behind it fall anew (where
  // they do not, the bits are the same). In the mean that is less than one rounding of each logit; at worst what
  // several ops in bfloat16 may be off.
  const double mean_allowed = 0x1p-8 * size, allowed = test::kBFloat16.rel * largest;
  const model::ModelInput input = train::model_input(model, batch, false, 0, kChunk);
  int64_t worst_at = 0;
  double worst_mean = 0, worst = 0;
  Difference all;
  train::for_logits(model, input, kChunk, [&](const Tensor& logits, int64_t begin, int64_t end) {
    const std::vector<float> found = on_host(logits);
    constexpr int64_t kBlock = 1024;
    for (int64_t from = begin; from < end; from += kBlock) {
      const int64_t to = std::min(end, from + kBlock);
      Difference difference;
      for (int64_t i = from * kVocabulary; i < to * kVocabulary; ++i) {
        difference.add(found[static_cast<size_t>(i - begin * kVocabulary)], whole[static_cast<size_t>(i)]);
        all.add(found[static_cast<size_t>(i - begin * kVocabulary)], whole[static_cast<size_t>(i)]);
      }
      if (difference.root_mean_square() > worst_mean) {
        worst_mean = difference.root_mean_square();
        worst_at = from;
      }
      worst = std::max(worst, difference.largest);
      if (difference.root_mean_square() > mean_allowed || difference.largest > allowed) {
        INFO(blocks << ", steps " << from << " to " << to << ": off by " << difference.largest << ", in the mean "
                    << difference.root_mean_square() << "; logits are up to " << largest << ", in the mean " << size);
        CHECK(difference.root_mean_square() <= mean_allowed);
        CHECK(difference.largest <= allowed);
      }
    }
  });
  REQUIRE(all.count == kLength * kVocabulary);
  CAPTURE(blocks, worst, worst_mean, worst_at, all.root_mean_square(), allowed, mean_allowed);
  CHECK(worst <= allowed);
  CHECK(worst_mean <= mean_allowed);

  // The steps past the mark without what came before, and logits one step off, are seen to be wrong.
  const int64_t mark = int64_t{1} << 21;
  const std::vector<float> forgetful = on_host(model.forward(train::slice_steps(model, input, mark, kLength)).value());
  Difference without_past, shifted;
  for (int64_t i = 0; i < 64 * kVocabulary; ++i) {
    const float right = whole[static_cast<size_t>(mark * kVocabulary + i)];
    without_past.add(forgetful[static_cast<size_t>(i)], right);
    shifted.add(whole[static_cast<size_t>((mark + 1) * kVocabulary + i)], right);
  }
  CAPTURE(without_past.root_mean_square(), shifted.root_mean_square());
  CHECK(without_past.largest > 2 * allowed);
  CHECK(without_past.root_mean_square() > 2 * mean_allowed);
  CHECK(shifted.root_mean_square() > 2 * mean_allowed);
}

}  // namespace

TEST_CASE("one pass of mamba past 2^31 elements equals chunks on a GPU", "[cuda][model][large]") {
  check_one_pass("mamba", 256, 1024);
  release_cached_memory(kGpu);
}

TEST_CASE("one pass of window attention past 2^31 elements equals chunks on a GPU", "[cuda][model][large]") {
  check_one_pass("window gated_mlp", 384, 3 * 384);
  release_cached_memory(kGpu);
}

}  // namespace blockstate
