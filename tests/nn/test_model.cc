// SPDX-License-Identifier: Apache-2.0
// The whole model: exact gradients over chunks, packed and padded batches, and what its configuration refuses.
#include <algorithm>
#include <catch2/catch.hpp>

#include "core/autograd/ops.h"
#include "core/model/block_pattern.h"
#include "core/model/generator.h"
#include "core/model/model.h"
#include "core/train/evaluate.h"
#include "core/train/objective.h"
#include "tests/nn/law.h"
#include "tests/support/compare.h"

namespace blockstate {
namespace {

using Catch::Matchers::Contains;
using model::HeadKind;
using model::ModelConfig;
using model::ModelShape;
using nn::PoolingKind;

constexpr int64_t kVocabulary = 6, kClasses = 3;
// float64 rounds at 1e-16; five sublayers and 29 steps stay far below this.
constexpr double kLaw = 1e-10;

ModelConfig small_config(const std::vector<std::string>& blocks) {
  ModelConfig config;
  config.d_model = 8;
  config.blocks = blocks;
  config.sublayers["mamba"] = {"mamba", nn::MambaConfig{.state = 4}};
  config.sublayers["s4d"] = {"s4d", nn::S4dConfig{.state = 4}};
  config.sublayers["attention"] = {"attention", nn::AttentionConfig{.heads = 2, .window = 6}};
  config.sublayers["full"] = {"attention",
                              nn::AttentionConfig{.heads = 2, .sees_self = false, .position = nn::PositionKind::kT5}};
  const auto hybrid = [](nn::BlockStateVariant variant, const std::string& ssm) {
    return nn::BlockStateConfig{.variant = variant, .ssm = ssm, .window = 4, .states = 3, .heads = 2};
  };
  config.sublayers["block_state"] = {"block_state", hybrid(nn::BlockStateVariant::kMultiFilter, "s4d")};
  config.sublayers["single"] = {"block_state", hybrid(nn::BlockStateVariant::kSingleHead, "mamba")};
  config.sublayers["multi"] = {"block_state", hybrid(nn::BlockStateVariant::kMultiHead, "s4d")};
  config.sublayers["filters"] = {"block_state", hybrid(nn::BlockStateVariant::kMultiFilter, "mamba")};
  return config;
}

const std::vector<std::string> kMixed = {"mamba block_state", "attention gated_mlp", "single"};

/// Three records of different lengths, as a task wants them.
std::vector<data::Example> ragged_examples() {
  std::vector<data::Example> examples;
  for (const int64_t length : {29, 11, 18}) {
    data::Example example;
    example.name = join("record of ", length);
    example.tokens = test::random_ids(static_cast<uint64_t>(length), length, 0, kVocabulary);
    example.label = length % kClasses;
    example.position_labels = test::random_ids(static_cast<uint64_t>(length) + 50, length, -1, kClasses);
    examples.push_back(example);
  }
  return examples;
}

data::Batch batch_of(const std::vector<data::Example>& examples, HeadKind head, int64_t pack = 0) {
  data::BatchOptions options;
  options.pack = pack;
  options.stride = 4;
  options.targets = head == HeadKind::kLanguageModel ? data::TargetKind::kNextToken
                    : head == HeadKind::kClassify    ? data::TargetKind::kLabel
                                                     : data::TargetKind::kPerPosition;
  options.start_token = head == HeadKind::kLanguageModel ? kVocabulary : -1;
  return data::collate(examples, options);
}

ModelShape shape_of(HeadKind head) {
  return {.head = head,
          .vocabulary = kVocabulary,
          .channels = 0,
          .outputs = head == HeadKind::kLanguageModel ? kVocabulary : kClasses,
          .start_token = head == HeadKind::kLanguageModel};
}

std::unique_ptr<model::Model> build(const ModelConfig& config, HeadKind head, DType dtype = DType::kFloat64) {
  return std::make_unique<model::Model>(config, shape_of(head), nn::Initialiser(3, dtype));
}

/// Loss and all parameter gradients of one batch.
test::Outcome gradients(const model::Model& model, const data::Batch& batch, const train::Chunking& chunking,
                        uint64_t key = 9) {
  for (const nn::Parameter& parameter : model.parameters()) {
    Variable(parameter.variable).clear_grad();
  }
  const model::ModelInput input = train::model_input(model, batch, true, key);
  test::Outcome outcome;
  outcome.tensors["loss"] = {
      train::accumulate_gradients(model, batch, input, {.label_smoothing = 0.05}, chunking).wait()};
  for (const nn::Parameter& parameter : model.parameters()) {
    const Tensor& grad = parameter.variable.grad();
    outcome.tensors["d " + parameter.name] =
        grad.defined() ? test::values_of(grad)
                       : std::vector<double>(static_cast<size_t>(parameter.variable.value().elements()), 0.0);
  }
  return outcome;
}

bool names_mf(const ModelConfig& config) { return config.blocks == kMixed; }

void check_chunks(const ModelConfig& config, HeadKind head) {
  const auto model = build(config, head);
  const data::Batch batch = batch_of(ragged_examples(), head);
  const test::Outcome whole = gradients(*model, batch, {});
  for (const auto& [name, values] : whole.tensors) {
    INFO(name);
    // An MF layer reads its SSM's state alone: what stands behind that state takes no part.
    const bool idle = name.find("layers.1.mixer.ssm.") != std::string::npos &&
                      (name.ends_with(".B") || name.ends_with(".C") || name.ends_with(".D") ||
                       name.find(".output.") != std::string::npos);
    const bool some = std::any_of(values.begin(), values.end(), [](double v) { return v != 0; });
    CHECK(some != (idle && names_mf(config)));
  }
  for (const int64_t chunk : {1, 4, 5, 8, 16, 28, 29, 64}) {
    std::string worst;
    const double off = test::distance(gradients(*model, batch, {.steps = chunk}), whole, &worst);
    INFO("chunks of " << chunk << ": worst in " << worst);
    CHECK(off <= kLaw);
  }
  if (config.dropout > 0) {  // another draw must be seen
    CHECK(test::distance(gradients(*model, batch, {.steps = 5}, 10), whole) >= 10 * kLaw);
  }
}

Tensor logits_of(const model::Model& model, const std::vector<data::Example>& examples, HeadKind head, DType dtype,
                 int64_t chunk = 0) {
  std::vector<Variable> parts;
  train::for_logits(model, train::model_input(model, batch_of(examples, head), false, 0, chunk), chunk,
                    [&](const Tensor& logits, int64_t, int64_t) { parts.emplace_back(logits); });
  return ops::concat(parts, head == HeadKind::kClassify ? 0 : 1).value();
}

}  // namespace

TEST_CASE("a model's gradients over chunks are exact, with dropout", "[model]") {
  for (const HeadKind head : {HeadKind::kLanguageModel, HeadKind::kPerPosition}) {
    ModelConfig config = small_config(kMixed);
    config.dropout = 0.25;
    CAPTURE(static_cast<int>(head));
    check_chunks(config, head);
  }
  ModelConfig config = small_config({"s4d mlp multi", "full"});
  config.dropout = 0.1;
  config.norm = nn::NormKind::kLayer;
  config.tie_embeddings = false;
  check_chunks(config, HeadKind::kLanguageModel);
}

TEST_CASE("what backward computes anew changes no bit of a gradient", "[model]") {
  ModelConfig config = small_config(kMixed);
  config.dropout = 0.25;
  const auto model = build(config, HeadKind::kLanguageModel, DType::kFloat32);
  const data::Batch batch = batch_of(ragged_examples(), HeadKind::kLanguageModel);
  for (const train::Chunking& chunking :
       {train::Chunking{}, {.steps = 1}, {.steps = 5}, {.steps = 28}, {.steps = 5, .keep = 1 << 20}}) {
    model->set_recompute(model::Recompute::kNone);
    const test::Outcome plain = gradients(*model, batch, chunking);
    for (const model::Recompute what : {model::Recompute::kCheap, model::Recompute::kAll}) {
      CAPTURE(chunking.steps, chunking.keep, static_cast<int>(what));
      model->set_recompute(what);
      CHECK(gradients(*model, batch, chunking).tensors == plain.tensors);
      // Of one kind of sublayer alone: what a chunk keeps is then taken by others in between.
      model->set_recompute(what, {model->sublayer_names()[0]});
      CHECK(gradients(*model, batch, chunking).tensors == plain.tensors);
    }
  }
  CHECK_THROWS_WITH(model->set_recompute(model::Recompute::kAll, {"mabma"}),
                    Catch::Contains("model.blocks has no \"mabma\"; did you mean \"mamba\"?"));
}

TEST_CASE("a classifier's gradients over chunks are exact for every pooling", "[model]") {
  for (const PoolingKind pooling : {PoolingKind::kMean, PoolingKind::kLast, PoolingKind::kAttention}) {
    ModelConfig config = small_config(kMixed);
    config.dropout = 0.25;
    config.pooling = pooling;
    CAPTURE(static_cast<int>(pooling));
    check_chunks(config, HeadKind::kClassify);
  }
}

TEST_CASE("logits over chunks are those of one pass", "[model]") {
  for (const HeadKind head : {HeadKind::kLanguageModel, HeadKind::kClassify}) {
    const auto model = build(small_config(kMixed), head);
    const std::vector<double> whole = test::values_of(logits_of(*model, ragged_examples(), head, DType::kFloat64));
    for (const int64_t chunk : {1, 7, 16}) {
      const Tensor found = logits_of(*model, ragged_examples(), head, DType::kFloat64, chunk);
      // Steps of padding have logits too, which nobody reads; in records they must agree.
      std::vector<double> a = test::values_of(found), b = whole;
      REQUIRE(a.size() == b.size());
      const data::Batch batch = batch_of(ragged_examples(), head);
      double error = 0;
      for (size_t i = 0; i < a.size(); ++i) {
        const auto step = static_cast<int64_t>(i) / kVocabulary;
        if (head == HeadKind::kClassify || batch.position.data<int64_t>()[step] >= 0) {
          error = std::max(error, std::abs(a[i] - b[i]));
        }
      }
      CHECK(error <= kLaw);
    }
  }
}

TEST_CASE("a record's logits do not depend on its batch mates", "[model]") {
  const DType dtype = GENERATE(DType::kFloat64, DType::kFloat32);
  const double limit = dtype == DType::kFloat64 ? 1e-12 : 1e-5;  // products round differently by the number of rows
  const std::vector<data::Example> examples = ragged_examples();
  for (const PoolingKind pooling : {PoolingKind::kMean, PoolingKind::kLast, PoolingKind::kAttention}) {
    ModelConfig config = small_config(kMixed);
    config.pooling = pooling;
    const auto model = build(config, HeadKind::kClassify, dtype);
    const std::vector<double> together = test::values_of(logits_of(*model, examples, HeadKind::kClassify, dtype));
    for (size_t r = 0; r < examples.size(); ++r) {
      const auto alone = test::values_of(logits_of(*model, {examples[r]}, HeadKind::kClassify, dtype));
      for (size_t c = 0; c < alone.size(); ++c) {
        CAPTURE(static_cast<int>(pooling), r, c);
        CHECK(std::abs(alone[c] - together[r * kClasses + c]) <= limit);
      }
    }
    // A step of the record itself does matter.
    data::Example changed = examples[1];
    changed.tokens[4] = (changed.tokens[4] + 1) % kVocabulary;
    CHECK(test::values_of(logits_of(*model, {changed}, HeadKind::kClassify, dtype)) !=
          test::values_of(logits_of(*model, {examples[1]}, HeadKind::kClassify, dtype)));
  }
}

TEST_CASE("packed records equal separate ones through a whole model", "[model]") {
  // One row: records of 6, 4 and 7 steps at multiples of the stack's stride.
  const auto model = build(small_config(kMixed), HeadKind::kPerPosition);
  REQUIRE(model->stride() == 4);
  const std::vector<int64_t> begins = {0, 8, 12}, lengths = {6, 4, 7};
  const int64_t L = 21;
  std::vector<int64_t> tokens(L, -1), position(L, -1), record(L, -1);
  for (size_t r = 0; r < lengths.size(); ++r) {
    const auto ids = test::random_ids(r + 1, lengths[r], 0, kVocabulary);
    for (int64_t t = 0; t < lengths[r]; ++t) {
      const auto at = static_cast<size_t>(begins[r] + t);
      tokens[at] = ids[static_cast<size_t>(t)];
      position[at] = t;
      record[at] = static_cast<int64_t>(r);
    }
  }
  model::ModelInput packed;
  packed.tokens = Tensor::from({1, L}, tokens);
  packed.sequence = nn::make_sequence(Tensor::from({1, L}, position), Tensor::from({1, L}, record), 3, 0);
  const std::vector<double> together = test::values_of(model->forward(packed).value());
  for (size_t r = 0; r < lengths.size(); ++r) {
    model::ModelInput alone;
    alone.tokens = packed.tokens.slice(1, begins[r], begins[r] + lengths[r]).packed();
    alone.sequence = nn::plain_sequence(1, lengths[r]);
    const std::vector<double> separate = test::values_of(model->forward(alone).value());
    double error = 0;
    for (size_t i = 0; i < separate.size(); ++i) {
      error = std::max(error, std::abs(separate[i] - together[static_cast<size_t>(begins[r] * kClasses) + i]));
    }
    CAPTURE(r);
    CHECK(error <= kLaw);
  }
}

TEST_CASE("packed batches have the loss and gradients of separate rows", "[model]") {
  for (const HeadKind head : {HeadKind::kLanguageModel, HeadKind::kPerPosition, HeadKind::kClassify}) {
    ModelConfig config = small_config(kMixed);
    config.dropout = head == HeadKind::kClassify ? 0 : 0.25;
    const auto model = build(config, head);
    const test::Outcome separate = gradients(*model, batch_of(ragged_examples(), head), {});
    const data::Batch packed = batch_of(ragged_examples(), head, 32);
    REQUIRE(packed.batch() == 2);  // 11 and 18 share a row
    std::string worst;
    CAPTURE(static_cast<int>(head), worst);
    CHECK(test::distance(gradients(*model, packed, {}), separate, &worst) <= kLaw);
    CHECK(test::distance(gradients(*model, packed, {.steps = 7}), separate, &worst) <= kLaw);
    // Had the record behind it seen the one before, the comparison would have told.
    data::Batch joined = packed;
    joined.position = packed.position.clone();
    const int64_t second = packed.length() + 12;
    REQUIRE(joined.position.data<int64_t>()[second] == 0);
    for (int64_t t = 0; t < 18; ++t) {
      joined.position.data<int64_t>()[second + t] += 12;
    }
    CHECK(test::distance(gradients(*model, joined, {}), separate) >= 10 * kLaw);
  }
}

TEST_CASE("outputs kept for the second pass change no bit, with room for all or some", "[model]") {
  for (const HeadKind head : {HeadKind::kLanguageModel, HeadKind::kClassify}) {
    ModelConfig config = small_config({"mamba block_state", "attention gated_mlp", "single s4d multi filters"});
    config.dropout = 0.25;
    const auto model = build(config, head);
    const data::Batch batch = batch_of(ragged_examples(), head);
    for (const int64_t chunk : {1, 5, 8}) {
      const test::Outcome rebuilt = gradients(*model, batch, {.steps = chunk});
      for (const int64_t room : {1 << 10, 20 << 10, 1 << 30}) {
        CAPTURE(chunk, room);
        CHECK(gradients(*model, batch, {.steps = chunk, .keep = room}).tensors == rebuilt.tensors);
      }
    }
  }
}

TEST_CASE("chunks of full attention are exact with the edges' keys in one place, padded rows or not", "[model]") {
  for (const auto& blocks : {std::vector<std::string>{"full mamba"}, {"attention full"}}) {
    const auto model = build(small_config(blocks), HeadKind::kLanguageModel);
    for (const bool padded : {true, false}) {
      std::vector<data::Example> examples = ragged_examples();
      examples.resize(padded ? 3 : 1);
      const data::Batch batch = batch_of(examples, HeadKind::kLanguageModel);
      const test::Outcome whole = gradients(*model, batch, {});
      for (const int64_t chunk : {2, 3, 5, 8}) {
        for (const bool on_host : {true, false}) {
          CAPTURE(blocks.front(), padded, chunk, on_host);
          CHECK(test::distance(gradients(*model, batch, {.steps = chunk, .on_host = on_host}), whole) <= kLaw);
        }
      }
    }
  }
}

TEST_CASE("carries on the host change nothing", "[model]") {
  const auto model = build(small_config(kMixed), HeadKind::kLanguageModel);
  const data::Batch batch = batch_of(ragged_examples(), HeadKind::kLanguageModel);
  CHECK(test::distance(gradients(*model, batch, {.steps = 5, .on_host = true}),
                       gradients(*model, batch, {.steps = 5})) == 0);
}

TEST_CASE("truncated gradients are exact where nothing is remembered, and those of separate chunks elsewhere",
          "[model]") {
  const data::Batch batch = batch_of(ragged_examples(), HeadKind::kLanguageModel);
  const auto forgetful = build(small_config({"mlp gated_mlp"}), HeadKind::kLanguageModel);
  CHECK(test::distance(gradients(*forgetful, batch, {.steps = 8, .truncate = true}),
                       gradients(*forgetful, batch, {})) <= kLaw);
  const auto model = build(small_config(kMixed), HeadKind::kLanguageModel);
  const test::Outcome whole = gradients(*model, batch, {});
  const test::Outcome truncated = gradients(*model, batch, {.steps = 8, .truncate = true});
  CHECK(std::abs(truncated.tensors.at("loss")[0] - whole.tensors.at("loss")[0]) <= kLaw);  // forward is what it was
  CHECK(test::distance(truncated, whole) >= 10 * kLaw);
  const auto classifier = build(small_config(kMixed), HeadKind::kClassify);
  CHECK_THROWS_WITH(
      gradients(*classifier, batch_of(ragged_examples(), HeadKind::kClassify), {.steps = 8, .truncate = true}),
      Contains("train.truncate needs a loss at every step"));
}

TEST_CASE("steps beyond 2^31 and 2^33 of a stream are like any others", "[model]") {
  for (const auto& blocks : {kMixed, {"s4d multi"}}) {
    ModelConfig config = small_config(blocks);
    for (auto& [name, sublayer] :
         config.sublayers) {  // rotated keys would have to be turned as far as the stream has run
      if (auto* attention = std::get_if<nn::AttentionConfig>(&sublayer.settings)) {
        attention->position = nn::PositionKind::kNone;
      } else if (auto* hybrid = std::get_if<nn::BlockStateConfig>(&sublayer.settings)) {
        hybrid->position = nn::PositionKind::kNone;
      }
    }
    const auto model = build(config, HeadKind::kLanguageModel);
    const Tensor tokens = Tensor::from({1, 39}, test::random_ids(6, 39, 0, kVocabulary));
    // 16 steps from the start leave a carry; what follows is said to come `later` in the stream.
    const auto run = [&](int64_t later) {
      GradMode off(false);
      nn::CarryMap carry;
      std::vector<Variable> parts;
      for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 16}, {16, 25}, {25, 39}}) {
        model::ModelInput input;
        input.tokens = tokens.slice(1, begin, end).packed();
        input.sequence = nn::plain_sequence(1, end - begin, begin > 0 ? later + begin : 0);
        parts.push_back(model->forward(input, &carry));
      }
      return test::values_of(ops::concat(parts, 1).value());
    };
    const std::vector<double> early = run(0);
    for (const int64_t later : {(int64_t{1} << 31) - 28, int64_t{1} << 31, int64_t{1} << 32, int64_t{1} << 33}) {
      CAPTURE(blocks.front(), later);
      CHECK(run(later) == early);
    }
    CHECK(run(2) != early);  // another phase of the windows is seen
  }
}

TEST_CASE("a model says what it holds", "[model]") {
  const auto model = build(small_config({"mamba full", "block_state"}), HeadKind::kLanguageModel);
  CHECK(model->growing_sublayers() == std::vector<std::string>{"layers.1 (full)"});
  CHECK(model->whole_sublayers().empty());
  CHECK(model->sublayer_names() == std::vector<std::string>{"mamba", "full", "block_state"});
  CHECK(model->stride() == 4);
  CHECK(model->carry_bytes(100) > model->carry_bytes(50));
  // Tied: one matrix of V rows and the start token's; the head adds nothing.
  CHECK(model->parameters()[0].name == "embedding.weight");
  CHECK(model->parameters()[0].variable.shape() == Shape{kVocabulary + 1, 8});
  int64_t heads = 0;
  for (const nn::Parameter& parameter : model->parameters()) {
    heads += parameter.name.rfind("head.", 0) == 0;
  }
  CHECK(heads == 0);
}

TEST_CASE("block patterns", "[model]") {
  using model::expand_blocks;
  using Names = std::vector<std::string>;
  CHECK(expand_blocks({"a"}) == Names{"a"});
  CHECK(expand_blocks({"(a b) * 2", " c*3 d"}) == Names{"a", "b", "a", "b", "c", "c", "c", "d"});
  CHECK(expand_blocks({"(a (b c) * 2) * 2"}) == Names{"a", "b", "c", "b", "c", "a", "b", "c", "b", "c"});
  CHECK(expand_blocks({"", "(a)"}) == Names{"a"});
  CHECK(expand_blocks({"a * 10000"}).size() == 10000);

  const auto message = [](const std::vector<std::string>& entries) -> std::string {
    try {
      expand_blocks(entries);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  CHECK_THAT(message({}), Contains("names no sublayer"));
  CHECK_THAT(message({"", " "}), Contains("names no sublayer"));
  CHECK_THAT(message({"(a b"}), Contains("\"(a b\"") && Contains("\")\" is missing"));
  CHECK_THAT(message({"a )"}), Contains("character 3") && Contains("unexpected \")\""));
  CHECK_THAT(message({"a, b"}), Contains("character 2") && Contains("\",\""));
  CHECK_THAT(message({"a *"}), Contains("count from 1"));
  CHECK_THAT(message({"a * 0"}), Contains("count from 1"));
  CHECK_THAT(message({"a * b"}), Contains("count from 1"));
  CHECK_THAT(message({"a * 10001"}), Contains("count from 1"));
  CHECK_THAT(message({"a * 99999999999999999999"}), Contains("count from 1"));
  CHECK_THAT(message({"* 2"}), Contains("character 1") && Contains("a name was wanted"));
  CHECK_THAT(message({"((a * 1000) * 1000) * 1000"}), Contains("more than 10000"));
  CHECK_THAT(message({"a * 6000", "a * 6000"}), Contains("more than 10000"));
}

TEST_CASE("a model that does not fit together is refused in a sentence", "[model]") {
  const auto message = [](const ModelConfig& config, const ModelShape& shape) -> std::string {
    try {
      model::Model model(config, shape, nn::Initialiser(1));
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  const ModelShape shape = shape_of(HeadKind::kLanguageModel);
  ModelConfig config = small_config({"attention"});
  config.d_model = 9;
  CHECK_THAT(message(config, shape), Contains("heads = 2") && Contains("d_model = 9"));
  config.d_model = 6;  // three numbers a head cannot be rotated in pairs
  CHECK_THAT(message(config, shape), Contains("rotary") && Contains("even"));
  config = small_config({"block_state"});
  config.d_model = 9;
  CHECK_THAT(message(config, shape), Contains("heads = 2") && Contains("9"));
  CHECK_THAT(message(small_config({"mambo"}), shape), Contains("mambo") && Contains("did you mean mamba"));
  CHECK_THAT(message(small_config({"zzz"}), shape), Contains("\"zzz\" is neither a system nor a [model.zzz] section"));
  config = small_config({"block_state"});
  std::get<nn::BlockStateConfig>(config.sublayers["block_state"].settings).ssm = "attention";
  CHECK_THAT(message(config, shape),
             Contains("model.block_state.ssm") && Contains("attention") && Contains("s4d or mamba"));
  std::get<nn::BlockStateConfig>(config.sublayers["block_state"].settings).ssm = "s5";
  CHECK_THAT(message(config, shape), Contains("\"s5\""));
  CHECK_THAT(message(small_config({"mamba"}), {.vocabulary = 4, .outputs = 0}), Contains("no outputs"));
  CHECK_THAT(message(small_config({"mamba"}), {.vocabulary = 0, .channels = 0, .outputs = 2}), Contains("channels"));
}

TEST_CASE("a model is not given what it does not read", "[model]") {
  const auto model = build(small_config({"gated_mlp"}), HeadKind::kClassify);
  model::ModelInput frames;
  frames.frames = Tensor::zeros({1, 4, 2}, DType::kFloat64);
  frames.sequence = nn::plain_sequence(1, 4);
  CHECK_THROWS_WITH(model->forward(frames), Contains("reads tokens"));
  const model::Model reads_frames(small_config({"gated_mlp"}),
                                  {.head = HeadKind::kClassify, .vocabulary = 0, .channels = 3, .outputs = 2},
                                  nn::Initialiser(1, DType::kFloat64));
  CHECK_THROWS_WITH(reads_frames.forward(frames), Contains("3 numbers a step") && Contains("2"));
}

TEST_CASE("generation by steps gives the logits of one pass", "[model]") {
  for (const auto& blocks : {std::vector<std::string>{"mamba s4d attention"}, kMixed, {"full multi"}}) {
    const auto model = build(small_config(blocks), HeadKind::kLanguageModel);
    const Tensor tokens = Tensor::from({2, 19}, test::random_ids(4, 38, 0, kVocabulary));
    const Tensor whole =
        model->forward({.tokens = tokens, .frames = {}, .sequence = nn::plain_sequence(2, 19)}).value();
    model::Generator generator(*model, 2);
    Tensor logits = generator.prompt(tokens.slice(1, 0, 7), 3);
    for (int64_t t = 6;; ++t) {
      INFO("step " << t);
      const Tensor expected = whole.slice(1, t, t + 1).reshape({2, kVocabulary});
      const std::vector<double> found = test::values_of(logits);
      CHECK(test::compare("logits", found, test::values_of(expected), {1e-10, 1e-12}));
      const Tensor best = generator.best();
      for (int64_t b = 0; b < 2; ++b) {
        const auto row = found.begin() + b * kVocabulary;
        CHECK(best.data<int64_t>()[b] == std::max_element(row, row + kVocabulary) - row);
      }
      if (t == 18) {
        break;
      }
      logits = generator.step({*tokens.slice(0, 0, 1).slice(1, t + 1, t + 2).data<int64_t>(),
                               *tokens.slice(0, 1, 2).slice(1, t + 1, t + 2).data<int64_t>()});
    }
    CHECK(generator.position() == 19);
    CHECK_THROWS_WITH(generator.step({1}), Contains("1 tokens for 2 rows"));
  }
}

}  // namespace blockstate
