// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <functional>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "core/data/batch.h"

namespace blockstate::data {
namespace {

using Ids = std::vector<int64_t>;

Ids ids(const Tensor& tensor) { return Ids(tensor.data<int64_t>(), tensor.data<int64_t>() + tensor.elements()); }

Example tokens(const std::string& name, const Ids& values, int64_t label = -1) {
  Example example;
  example.name = name;
  example.tokens = values;
  example.label = label;
  return example;
}

Example frames(const std::string& name, int64_t channels, const std::vector<float>& values) {
  Example example;
  example.name = name;
  example.channels = channels;
  example.frames = values;
  return example;
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::string collate_error(const std::vector<Example>& examples, const BatchOptions& options) {
  return error_of([&] { collate(examples, options); });
}

TEST_CASE("labels: rows are padded at the end", "[cpu]") {
  const Batch batch =
      collate({tokens("a", {5, 6, 7}, 2), tokens("b", {8}), tokens("c", {0, 1}, 0)}, {.targets = TargetKind::kLabel});
  CHECK(batch.tokens.shape() == Shape{3, 3});
  CHECK(ids(batch.tokens) == Ids{5, 6, 7, 8, -1, -1, 0, 1, -1});
  CHECK(ids(batch.position) == Ids{0, 1, 2, 0, -1, -1, 0, 1, -1});
  CHECK(ids(batch.record) == Ids{0, 0, 0, 1, -1, -1, 2, 2, -1});
  CHECK(batch.targets.shape() == Shape{3});
  CHECK(ids(batch.targets) == Ids{2, -1, 0});
  CHECK(batch.target_count == 2);
  CHECK(batch.token_count == 6);
  CHECK(batch.records == 3);
  CHECK(batch.lengths == Ids{3, 1, 2});
  CHECK(batch.names == std::vector<std::string>{"a", "b", "c"});
  CHECK_FALSE(batch.frames.defined());
}

TEST_CASE("next token: targets follow the inputs by one step", "[cpu]") {
  const Batch batch = collate({tokens("a", {5, 6, 7}), tokens("b", {8, 9})}, {.targets = TargetKind::kNextToken});
  CHECK(ids(batch.tokens) == Ids{5, 6, 8, -1});
  CHECK(ids(batch.targets) == Ids{6, 7, 9, -1});
  CHECK(batch.lengths == Ids{2, 1});
  CHECK(batch.target_count == 3);
  CHECK(batch.token_count == 3);
}

TEST_CASE("next token with a start token: the first token is a target too", "[cpu]") {
  const Batch batch =
      collate({tokens("a", {5, 6, 7}), tokens("b", {8})}, {.targets = TargetKind::kNextToken, .start_token = 10});
  CHECK(ids(batch.tokens) == Ids{10, 5, 6, 10, -1, -1});
  CHECK(ids(batch.targets) == Ids{5, 6, 7, 8, -1, -1});
  CHECK(ids(batch.position) == Ids{0, 1, 2, 0, -1, -1});
  CHECK(batch.target_count == 4);
}

TEST_CASE("frames are padded with zeros and carry labels a step", "[cpu]") {
  Example a = frames("a", 2, {1, 2, 3, 4});
  Example b = frames("b", 2, {5, 6});
  a.position_labels = {3, -7};
  b.position_labels = {1};
  const Batch batch = collate({a, b}, {.targets = TargetKind::kPerPosition});
  REQUIRE(batch.frames.shape() == Shape{2, 2, 2});
  const float* values = batch.frames.data<float>();
  CHECK(std::vector<float>(values, values + 8) == std::vector<float>{1, 2, 3, 4, 5, 6, 0, 0});
  CHECK(ids(batch.position) == Ids{0, 1, 0, -1});
  CHECK(ids(batch.targets) == Ids{3, -1, 1, -1});
  CHECK(batch.target_count == 2);
  CHECK_FALSE(batch.tokens.defined());
  CHECK_FALSE(collate({b}, {}).targets.defined());
}

TEST_CASE("packing: short records share rows, at multiples of the stride", "[cpu]") {
  const std::vector<Example> examples = {tokens("a", {1, 2, 3}, 0), tokens("b", {4, 5, 6, 7, 8, 9, 1, 2, 3}, 1),
                                         tokens("c", {5}, 2), tokens("d", {6, 7}), tokens("e", {8, 9, 1}, 0)};
  const Batch batch = collate(examples, {.targets = TargetKind::kLabel, .pack = 8, .stride = 2});
  // a, c and d share a row (d at 6, for c ends at 5); b is longer than a row and has its own; e has no room beside d.
  CHECK(batch.tokens.shape() == Shape{3, 9});
  CHECK(ids(batch.tokens) == Ids{1, 2, 3, -1, 5,  -1, 6,  7,  -1,  //
                                 4, 5, 6, 7,  8,  9,  1,  2,  3,   //
                                 8, 9, 1, -1, -1, -1, -1, -1, -1});
  CHECK(ids(batch.record) == Ids{0, 0, 0, -1, 2,  -1, 3,  3,  -1,  //
                                 1, 1, 1, 1,  1,  1,  1,  1,  1,   //
                                 4, 4, 4, -1, -1, -1, -1, -1, -1});
  CHECK(ids(batch.position) == Ids{0, 1, 2, -1, 0,  -1, 0,  1,  -1,  //
                                   0, 1, 2, 3,  4,  5,  6,  7,  8,   //
                                   0, 1, 2, -1, -1, -1, -1, -1, -1});
  CHECK(batch.records == 5);
  CHECK(ids(batch.targets) == Ids{0, 1, 2, -1, 0});
  CHECK(batch.target_count == 4);
  CHECK(batch.token_count == 18);
  CHECK(batch.lengths == Ids{3, 9, 1, 2, 3});
  CHECK(batch.names == std::vector<std::string>{"a", "b", "c", "d", "e"});

  const Batch next =
      collate({tokens("a", {1, 2, 3}), tokens("b", {4, 5})}, {.targets = TargetKind::kNextToken, .pack = 8});
  CHECK(ids(next.tokens) == Ids{1, 2, 4});
  CHECK(ids(next.targets) == Ids{2, 3, 5});
  CHECK(ids(next.position) == Ids{0, 1, 0});
}

TEST_CASE("cutting: every piece is a record of its own, no target is lost", "[cpu]") {
  const Batch batch = collate({tokens("a", {1, 2, 3, 4, 5, 6}), tokens("b", {7, 8}), tokens("c", {9, 1})},
                              {.targets = TargetKind::kNextToken, .pack = 7});
  REQUIRE(ids(batch.tokens) == Ids{1, 2, 3, 4, 5, 7, 9});
  const Batch cut = cut_records(batch, 3);
  CHECK(ids(cut.tokens) == Ids{1, 2, 3, 4, 5, 7, 9, -1, -1});
  CHECK(ids(cut.targets) == Ids{2, 3, 4, 5, 6, 8, 1, -1, -1});
  CHECK(ids(cut.position) == Ids{0, 1, 2, 0, 1, 0, 0, -1, -1});
  CHECK(ids(cut.record) == Ids{0, 0, 0, 1, 1, 2, 3, -1, -1});
  CHECK(cut.records == 4);
  CHECK(cut.lengths == Ids{3, 2, 1, 1});
  CHECK(cut.names == std::vector<std::string>{"a", "a", "b", "c"});
  CHECK(cut.token_count == batch.token_count);
  CHECK(cut.target_count == batch.target_count);
  const Batch rows = slice_rows(cut, 1, 3);
  CHECK(ids(rows.tokens) == Ids{4, 5, 7, 9, -1, -1});
  CHECK(ids(rows.targets) == Ids{5, 6, 8, 1, -1, -1});
  CHECK(ids(rows.record) == Ids{1, 1, 2, 3, -1, -1});
  CHECK(rows.target_count == batch.target_count);
  CHECK(cut_records(batch, 7).tokens.bytes() == batch.tokens.bytes());
  const Batch labels = collate({tokens("a", {1, 2, 3}, 0)}, {.targets = TargetKind::kLabel});
  CHECK(error_of([&] { cut_records(labels, 2); }).find("target at every step") != std::string::npos);
}

TEST_CASE("an example that does not fit is named", "[cpu]") {
  const BatchOptions next{.targets = TargetKind::kNextToken};
  CHECK(collate_error({}, {}) == "a batch needs at least one example");
  CHECK(collate_error({tokens("a", {1}), tokens("b.wav", {})}, {}) == "b.wav: has 0 steps, wanted at least 1");
  CHECK(collate_error({tokens("a", {1})}, next) == "a: has 1 steps, wanted at least 2");
  CHECK(collate_error({tokens("a", {})}, {.targets = TargetKind::kNextToken, .start_token = 4}) ==
        "a: has 0 steps, wanted at least 1");
  CHECK(collate_error({tokens("a", {1, -1})}, {}) == "a: token -1 at step 1, wanted at least 0");
  CHECK(collate_error({tokens("a", {1}), frames("b", 1, {1})}, {}) ==
        "b: has frames, but a in the same batch has tokens");
  CHECK(collate_error({frames("a", 2, {1, 2}), frames("b", 1, {1})}, {}) ==
        "b: frames of 1 channels, but a in the same batch has 2");
  CHECK(collate_error({frames("a", 2, {1, 2, 3})}, {}) ==
        "a: 3 feature values are no whole number of frames of 2 channels");
  CHECK(collate_error({frames("a", 0, {1})}, {}) == "a: 1 feature values without a width");
  CHECK(collate_error({frames("a", 1, {1, 2})}, next) ==
        "a: predicting the next token needs tokens, found frames of 1 channels");
  CHECK(collate_error({tokens("a", {1, 2})}, {.targets = TargetKind::kPerPosition}) ==
        "a: 0 labels for 2 steps, wanted one a step");
  Example both = frames("a", 1, {1});
  both.tokens = {1};
  CHECK(collate_error({both}, {}) == "a: has both tokens and frames, wanted one of them");
}

}  // namespace
}  // namespace blockstate::data
