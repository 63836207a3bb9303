// SPDX-License-Identifier: Apache-2.0
// Whole models on a GPU: the numbers of the CPU, bfloat16 near float32, the same bits twice.
#include <algorithm>
#include <catch2/catch.hpp>

#include "core/model/generator.h"
#include "core/model/model.h"
#include "core/train/evaluate.h"
#include "core/train/objective.h"
#include "tests/cuda/stacks.h"
#include "tests/nn/law.h"

namespace blockstate {
namespace {

using model::HeadKind;
using model::ModelConfig;
using test::config_of;
using test::kGpu;
using test::kStacks;
using test::kVocabulary;

/// Loss and all parameter gradients.
test::Outcome gradients(const ModelConfig& config, HeadKind head, Device device, DType activations) {
  const model::Model model(config, test::shape_of(head), nn::Initialiser(3, DType::kFloat32, device), activations);
  const data::Batch batch = test::batch_of(head);
  const model::ModelInput input = train::model_input(model, batch, true, 9);
  test::Outcome outcome;
  outcome.tensors["loss"] = {train::accumulate_gradients(model, batch, input, {.label_smoothing = 0.05}).wait()};
  for (const nn::Parameter& parameter : model.parameters()) {
    const Tensor& grad = parameter.variable.grad();
    if (grad.defined()) {
      outcome.tensors["d " + parameter.name] = test::values_of(grad);
    }
  }
  return outcome;
}

}  // namespace

TEST_CASE("models on a GPU have the losses and gradients of the CPU", "[cuda][model]") {
  for (const std::string& blocks : kStacks) {
    for (const HeadKind head : {HeadKind::kLanguageModel, HeadKind::kClassify}) {
      CAPTURE(blocks, static_cast<int>(head));
      const ModelConfig config = config_of(blocks);
      const test::Outcome cpu = gradients(config, head, {}, DType::kFloat32);
      const test::Outcome gpu = gradients(config, head, kGpu, DType::kFloat32);
      std::string worst;
      const double off = test::distance(gpu, cpu, &worst);
      INFO("worst in " << worst);
      CHECK(off <= 2e-4);  // relative to the largest element of a gradient; sums over 450 steps in float32
    }
  }
}

TEST_CASE("bfloat16 models on a GPU stay near float32, and repeat their bits", "[cuda][model]") {
  for (const std::string& blocks : kStacks) {
    CAPTURE(blocks);
    const ModelConfig config = config_of(blocks);
    const test::Outcome exact = gradients(config, HeadKind::kLanguageModel, {}, DType::kFloat32);
    const test::Outcome rounded = gradients(config, HeadKind::kLanguageModel, kGpu, DType::kBFloat16);
    CHECK(rounded.tensors.at("loss")[0] == Approx(exact.tensors.at("loss")[0]).epsilon(0.01));
    for (const auto& [name, values] : exact.tensors) {
      INFO(name);
      // Direction and size of a gradient: eight bits of mantissa through two or three sublayers.
      double dot = 0, left = 0, right = 0;
      const std::vector<double>& found = rounded.tensors.at(name);
      for (size_t i = 0; i < values.size(); ++i) {
        dot += values[i] * found[i];
        left += values[i] * values[i];
        right += found[i] * found[i];
      }
      CHECK((dot > 0.98 * std::sqrt(left * right) || left < 1e-12));
      CHECK((std::abs(right / left - 1) < 0.1 || left < 1e-12));
    }
    const test::Outcome again = gradients(config, HeadKind::kLanguageModel, kGpu, DType::kBFloat16);
    CHECK(again.tensors == rounded.tensors);
  }
}

TEST_CASE("recorded steps of generation give the logits of one pass", "[cuda][model]") {
  for (const std::string blocks : {"mamba mamba", "s4d window", "sh mlp", "mf", "full"}) {
    for (const DType activations : {DType::kFloat32, DType::kBFloat16}) {
      CAPTURE(blocks, static_cast<int>(activations));
      ModelConfig config = config_of(blocks);
      const model::Model model(config, {.vocabulary = kVocabulary, .outputs = kVocabulary},
                               nn::Initialiser(3, DType::kFloat32, kGpu), activations);
      constexpr int64_t kLength = 60;
      const std::vector<int64_t> ids = test::random_ids(4, kLength, 0, kVocabulary);
      GradMode off(false);
      const Tensor tokens = Tensor::from({1, kLength}, ids);
      const Tensor whole =
          model.forward({.tokens = tokens.to(kGpu), .frames = {}, .sequence = nn::plain_sequence(1, kLength, 0, kGpu)})
              .value()
              .to(Device{})
              .to(DType::kFloat32);
      const double largest = [&] {
        double most = 0;
        for (const double value : test::values_of(whole)) {
          most = std::max(most, std::abs(value));
        }
        return most;
      }();
      const double allowed = activations == DType::kFloat32 ? 1e-4 : 0.05;
      model::Generator generator(model, 1);
      Tensor logits = generator.prompt(tokens.slice(1, 0, 5));
      for (int64_t t = 4; t + 1 < kLength; ++t) {
        const std::vector<int64_t> next = {ids[static_cast<size_t>(t + 1)]};
        // From the host and from the device in turn.
        logits = t % 2 == 0 ? generator.step(next) : generator.step(Tensor::from({1}, next).to(kGpu));
        const std::vector<double> found = test::values_of(logits.to(Device{}).to(DType::kFloat32));
        const auto largest_of_all = std::max_element(found.begin(), found.end());
        CHECK(test::values_of(generator.best().to(Device{}).to(DType::kFloat64))[0] == largest_of_all - found.begin());
        for (int64_t v = 0; v < kVocabulary; ++v) {
          const double expected = static_cast<double>(whole.data<float>()[(t + 1) * kVocabulary + v]);
          INFO("step " << t + 1 << ", logit " << v);
          CHECK(std::abs(found[static_cast<size_t>(v)] - expected) <= allowed * largest);
        }
      }
    }
  }
}

}  // namespace blockstate
