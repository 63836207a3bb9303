// SPDX-License-Identifier: Apache-2.0
// Training in chunks on a GPU, with dropout: gradients and parameters after an optimiser's step are those of one pass,
// and what is kept for the second pass changes no bit.
#include <catch2/catch.hpp>

#include "core/autograd/kept.h"
#include "core/train/objective.h"
#include "tests/cuda/stacks.h"
#include "tests/nn/law.h"
#include "tests/support/compare.h"

namespace blockstate {
namespace {

using model::HeadKind;
using test::kGpu;
using test::kStacks;
using train::Chunking;

// Each tensor relative to its largest element, as for single sublayers; float32 rounds at 6e-8.
constexpr double kLaw = test::kFloat32.rel;
constexpr int64_t kPlenty = int64_t{1} << 40;

std::unique_ptr<model::Model> build(const std::string& blocks, HeadKind head, DType activations = DType::kFloat32,
                                    double dropout = 0.1) {
  model::ModelConfig config = test::config_of(blocks);
  config.dropout = dropout;
  return std::make_unique<model::Model>(config, test::shape_of(head), nn::Initialiser(3, DType::kFloat32, kGpu),
                                        activations);
}

void clear_gradients(const model::Model& model) {
  for (const nn::Parameter& parameter : model.parameters()) {
    Variable(parameter.variable).clear_grad();
  }
}

/// Loss, all parameter gradients, and the parameters after a step.
test::Outcome gradients(const model::Model& model, const data::Batch& batch, const Chunking& chunking = {},
                        uint64_t key = 9) {
  clear_gradients(model);
  const model::ModelInput input = train::model_input(model, batch, true, key, chunking.steps);
  test::Outcome outcome;
  outcome.tensors["loss"] = {
      train::accumulate_gradients(model, batch, input, {.label_smoothing = 0.05}, chunking).wait()};
  for (const nn::Parameter& parameter : model.parameters()) {
    const Tensor& grad = parameter.variable.grad();
    outcome.tensors["d " + parameter.name] =
        grad.defined() ? test::values_of(grad)
                       : std::vector<double>(static_cast<size_t>(parameter.variable.value().elements()), 0.0);
  }
  outcome.stepped = test::stepped_parameters(model);
  return outcome;
}

void check_law(const test::Outcome& found, const test::Outcome& whole) {
  std::string worst, worst_step;
  const double off = test::distance(found, whole, &worst);
  const double step = test::step_distance(found, whole, kLaw, DType::kFloat32, &worst_step);
  INFO("worst in " << worst << ", after a step in " << worst_step);
  CHECK(off <= kLaw);
  CHECK(step <= 1);
}

void check_bits(const test::Outcome& found, const test::Outcome& expected) {
  for (const auto& [name, values] : expected.tensors) {
    CHECK(test::same_bits(name, found.tensors.at(name), values));
  }
  for (const auto& [name, values] : expected.stepped) {
    CHECK(test::same_bits(name + " after a step", found.stepped.at(name), values));
  }
}

/// The first pass over steps [begin, end), as accumulate_gradients makes it; what it takes of the room.
int64_t first_pass(const model::Model& model, const model::ModelInput& input, int64_t begin, int64_t end,
                   nn::CarryMap& carry, Kept& kept, KeepRoom room) {
  GradMode off(false);
  const int64_t before = room.bytes;
  const LeaveScope keeping(kept, room);
  model.run(train::slice_steps(model, input, begin, end), &carry);
  return before - room.bytes;
}

/// Bytes that the first chunk takes where there is room for all, or for a little of each.
int64_t bytes_of_chunk(const model::Model& model, const data::Batch& batch, int64_t chunk, bool little_only) {
  nn::CarryMap carry;
  Kept kept;
  return first_pass(model, train::model_input(model, batch, true, 9, chunk), 0, chunk, carry, kept,
                    {.bytes = kPlenty, .little_only = little_only});
}

/// Bytes that a step takes at most, beside what the model takes.
int64_t peak_of(const model::Model& model, const data::Batch& batch, const Chunking& chunking, test::Outcome& outcome) {
  clear_gradients(model);
  reset_peak_memory(kGpu);
  const int64_t before = memory_statistics(kGpu).in_use;
  outcome = gradients(model, batch, chunking);
  return memory_statistics(kGpu).peak - before;
}

}  // namespace

TEST_CASE("gradients and steps over chunks on a GPU equal one pass, whatever is kept", "[cuda][chunks]") {
  const std::string blocks = GENERATE(from_range(kStacks));
  for (const HeadKind head : {HeadKind::kLanguageModel, HeadKind::kClassify}) {
    const auto model = build(blocks, head);
    const data::Batch batch = test::batch_of(head);
    const test::Outcome whole = gradients(*model, batch);
    for (const int64_t chunk : {16, 37, 64}) {
      const test::Outcome rebuilt = gradients(*model, batch, {.steps = chunk});
      CAPTURE(blocks, static_cast<int>(head), chunk);
      check_law(rebuilt, whole);
      // Room for half of a chunk, for some of each, for all.
      const int64_t all = bytes_of_chunk(*model, batch, chunk, false);
      CHECK(all > 0);
      for (const int64_t room : {all / 2, 3 * all / 2, kPlenty}) {
        CAPTURE(room);
        check_bits(gradients(*model, batch, {.steps = chunk, .keep = room}), rebuilt);
      }
      check_bits(gradients(*model, batch, {.steps = chunk, .on_host = true, .keep = kPlenty}), rebuilt);
    }
  }
}

TEST_CASE("single steps and packed records as chunks on a GPU equal one pass", "[cuda][chunks]") {
  const std::string blocks = GENERATE(from_range(kStacks));
  const auto model = build(blocks, HeadKind::kLanguageModel);
  CAPTURE(blocks);
  const data::Batch batch = test::batch_of(HeadKind::kLanguageModel, {41, 23});
  const test::Outcome whole = gradients(*model, batch);
  for (const int64_t room : {int64_t{0}, kPlenty}) {
    check_law(gradients(*model, batch, {.steps = 1, .keep = room}), whole);
  }
  // Three records share a row; that of 150 steps has its own.
  const data::Batch packed = test::batch_of(HeadKind::kLanguageModel, {150, 40, 31, 60}, 160);
  REQUIRE(packed.batch() == 2);
  const test::Outcome together = gradients(*model, packed);
  const test::Outcome rebuilt = gradients(*model, packed, {.steps = 37});
  check_law(rebuilt, together);
  check_bits(gradients(*model, packed, {.steps = 37, .keep = kPlenty}), rebuilt);
}

TEST_CASE("a wrong carry or another draw of dropout would be seen on a GPU", "[cuda][chunks]") {
  const std::string blocks = GENERATE(from_range(kStacks));
  const auto model = build(blocks, HeadKind::kLanguageModel, DType::kFloat32, 0);
  CAPTURE(blocks);
  const data::Batch batch = test::batch_of(HeadKind::kLanguageModel);
  const test::Outcome whole = gradients(*model, batch);
  const auto check_differs = [](const test::Outcome& wrong, const test::Outcome& right) {
    CHECK(test::distance(wrong, right) >= 10 * kLaw);
    CHECK(test::step_distance(wrong, right, kLaw, DType::kFloat32) > 1);
  };
  check_differs(gradients(*model, batch, {.steps = 48, .truncate = true}), whole);
  // Had the second chunk begun with no past.
  data::Batch forgetful = batch;
  forgetful.position = batch.position.clone();
  for (int64_t b = 0; b < batch.batch(); ++b) {
    int64_t* position = forgetful.position.data<int64_t>() + b * batch.length();
    for (int64_t t = 48; t < batch.length(); ++t) {
      position[t] -= position[t] < 0 ? 0 : 48;
    }
  }
  check_differs(gradients(*model, forgetful, {.steps = 48}), whole);
  const auto drops = build(blocks, HeadKind::kLanguageModel);
  check_differs(gradients(*drops, batch, {}, 10), gradients(*drops, batch));
}

TEST_CASE("chunks of a long row keep the states before segments, and no bit changes", "[cuda][chunks]") {
  const std::string blocks = GENERATE("mamba mamba", "mamba mf window", "mamba s4d sh", "mamba mf_wide mf_wide_s4d");
  const DType activations = GENERATE(DType::kFloat32, DType::kBFloat16);
  CAPTURE(blocks, static_cast<int>(activations));
  const int64_t chunk = 1 << 13;
  const auto model = build(blocks, HeadKind::kLanguageModel, activations);
  const data::Batch batch = test::batch_of(HeadKind::kLanguageModel, {(1 << 15) + 101});
  const int64_t before_last = (batch.length() - 1) / chunk;  // chunks of the first pass
  REQUIRE(before_last == 4);

  // With room for a little of each chunk the scan leaves the states before its segments and nothing else, and the
  // second pass takes them.
  const int64_t all = bytes_of_chunk(*model, batch, chunk, false);
  const int64_t little = bytes_of_chunk(*model, batch, chunk, true);
  REQUIRE(little > 0);
  REQUIRE(little < all);
  {
    const model::ModelInput input = train::model_input(*model, batch, true, 9, chunk);
    nn::CarryMap carry;
    Kept kept;
    CHECK(first_pass(*model, input, 0, chunk, carry, kept, {.bytes = before_last * little, .little_only = true}) ==
          little);
    int64_t scans = 0;
    for (const Kept::Entry& entry : kept.entries) {
      if (entry.op == "selective_scan") {
        ++scans;
        REQUIRE(entry.outputs.size() == 4);
        CHECK(!entry.outputs[0].defined());
        REQUIRE(entry.outputs[3].defined());
        CHECK(entry.outputs[3].size(0) > 1);
      }
    }
    CHECK(scans == (blocks.find("mf") != std::string::npos ? 1 : 2));  // MF reads states at window ends, by another op
    carry.clear();
    {
      const TakeScope taking(kept);
      model->forward(train::slice_steps(*model, input, 0, chunk), &carry);
    }
    CHECK(kept.next == kept.entries.size());
    for (const Kept::Entry& entry : kept.entries) {
      CHECK((entry.op != "selective_scan" || !entry.outputs[3].defined()));
    }
  }

  // Nothing, a little of each, a little of each and all of one, all.
  const test::Outcome rebuilt = gradients(*model, batch, {.steps = chunk});
  test::Outcome found;
  const int64_t bare = peak_of(*model, batch, {.steps = chunk}, found);
  check_bits(found, rebuilt);
  int64_t last = bare;
  for (const int64_t room : {before_last * little, before_last * little + all, kPlenty}) {
    CAPTURE(room);
    const int64_t peak = peak_of(*model, batch, {.steps = chunk, .keep = room}, found);
    CHECK(peak > bare);  // what is kept lies there while chunks are worked on
    CHECK(peak >= last);
    CHECK(peak <= bare + std::min(room, before_last * all) + (1 << 20));
    last = peak;
    check_bits(found, rebuilt);
  }
  if (activations == DType::kFloat32) {
    check_law(rebuilt, gradients(*model, batch));
  }
}

}  // namespace blockstate
