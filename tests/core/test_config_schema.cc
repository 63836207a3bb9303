// SPDX-License-Identifier: Apache-2.0
// Config structs that describe themselves: reading, its messages, writing, help.
#include <catch2/catch.hpp>

#include "core/base/check.h"
#include "core/config/nearest.h"
#include "core/config/schema.h"

namespace blockstate::config {
namespace {

enum class Variant { kSingle, kMulti };

struct LayerConfig {
  std::string type;
  int64_t state = 16;
  Variant variant = Variant::kSingle;

  void visit(Visitor& v) {
    v.field("type", type, "which system", one_of({"mamba", "s4d", "block_state"}));
    v.field("state", state, "states of a channel", at_least(1));
    v.field("variant", variant, "where the context comes from",
            EnumNames<Variant>{{"SH", Variant::kSingle}, {"MH", Variant::kMulti}});
  }
};

LayerConfig make_layer(const std::string& name) {
  LayerConfig layer;
  layer.type = name == "mamba" || name == "s4d" ? name : "block_state";
  require(name != "train", "the name is taken");
  return layer;
}

struct ModelConfig {
  int64_t d_model = 64;
  std::vector<std::string> blocks = {"mamba"};
  std::map<std::string, LayerConfig> layers;

  void visit(Visitor& v) {
    v.field("d_model", d_model, "width of the residual stream", at_least(1).at_most(65536));
    v.field("blocks", blocks, "pre-norm residual sublayers, in order");
    v.named_sections(layers, {"settings of every sublayer of that name", make_layer, {"mamba", "s4d"}});
  }
};

struct TrainConfig {
  int64_t steps = 1000;
  int64_t warmup = 10;
  double lr = 1e-3;
  double decay = 0.1;
  std::string schedule = "cosine";
  std::optional<double> clip;
  std::vector<double> betas = {0.9, 0.999};
  std::vector<int64_t> milestones;
  bool shuffle = true;
  std::map<std::string, std::string> columns;

  void visit(Visitor& v) {
    v.field("steps", steps, "optimiser steps to take", at_least(1));
    v.field("warmup", warmup, "steps of linear warm-up", at_least(0));
    v.field("lr", lr, "learning rate", above(0));
    v.field("decay", decay, "weight decay", at_least(0).below(1));
    v.field("schedule", schedule, "learning rate after the warm-up", one_of({"constant", "cosine"}));
    v.field("clip", clip, "largest norm of the gradient", above(0));
    v.field("betas", betas, "decay rates of the moments", at_least(0).below(1));
    v.field("milestones", milestones, "steps to save at");
    v.field("shuffle", shuffle, "draw the examples in random order");
    v.field("columns", columns, "other names of columns");
    v.check("warmup", warmup <= steps, join("must be at most train.steps = ", steps, ", found ", warmup));
  }
};

struct CompareConfig {
  std::string match = "none";
  Value::Table variants;

  void visit(Visitor& v) {
    v.field("match", match, "what to keep equal", one_of({"none", "parameters"}));
    v.tables("variants", variants, "each a set of overrides");
  }
};

struct DataConfig {
  std::string train;
  void visit(Visitor& v) { v.field("train", train, "manifest to learn from", needed()); }
};

struct RunConfig {
  int64_t seed = 1;
  DataConfig data;
  ModelConfig model;
  TrainConfig train;
  std::optional<CompareConfig> compare;

  void visit(Visitor& v) {
    v.section("data", data, "what to learn from");
    v.section("model", model, "the network");
    v.section("train", train, "how to learn");
    v.section("compare", compare, "variants to set side by side");
    v.field("seed", seed, "of every random number");
  }
};

RunConfig read_text(const std::string& text, const std::vector<std::string>& overrides = {}) {
  Value root = parse_toml_text(text, "run.toml");
  for (const std::string& assignment : overrides) {
    apply_override(root, assignment);
  }
  RunConfig config;
  read(root, config);
  return config;
}

std::string read_error(const std::string& text, const std::vector<std::string>& overrides = {"data.train=x"}) {
  try {
    read_text(text, overrides);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST_CASE("keys are read, the others keep their defaults", "[cpu]") {
  const RunConfig config = read_text(
      "seed = 7\n[data]\ntrain = \"größe.tsv\"\n"
      "[model]\nd_model = 128\nblocks = [\"(mamba hybrid) * 2\"]\n[model.hybrid]\nvariant = \"MH\"\nstate = 4\n"
      "[model.s4d]\n"
      "[train]\nlr = 2\nclip = 1\nbetas = [0, 0.5]\nmilestones = [1, 2]\nshuffle = false\ncolumns = { label = "
      "\"class\" }\n"
      "[compare]\nvariants.b = { model.blocks = [\"x\"] }\nvariants.a = {}\n");
  CHECK(config.seed == 7);
  CHECK(config.data.train == "größe.tsv");
  CHECK(config.model.d_model == 128);
  CHECK(config.model.blocks == std::vector<std::string>{"(mamba hybrid) * 2"});
  REQUIRE(config.model.layers.size() == 2);
  CHECK(config.model.layers.at("hybrid").type == "block_state");
  CHECK(config.model.layers.at("hybrid").variant == Variant::kMulti);
  CHECK(config.model.layers.at("hybrid").state == 4);
  CHECK(config.model.layers.at("s4d").type == "s4d");
  CHECK(config.train.lr == 2.0);
  CHECK(config.train.clip == 1.0);
  CHECK(config.train.betas == std::vector<double>{0, 0.5});
  CHECK(config.train.milestones == std::vector<int64_t>{1, 2});
  CHECK_FALSE(config.train.shuffle);
  CHECK(config.train.columns.at("label") == "class");
  CHECK(config.train.steps == 1000);
  REQUIRE(config.compare.has_value());
  CHECK(config.compare->match == "none");
  REQUIRE(config.compare->variants.size() == 2);
  CHECK(config.compare->variants[0].key == "b");
  CHECK_FALSE(read_text("data.train = \"x\"").compare.has_value());
}

TEST_CASE("a wrong type names place, key, wanted and found", "[cpu]") {
  CHECK(read_error("\n[train]\nsteps = \"many\"") ==
        "run.toml:3: train.steps must be an integer, found the string \"many\"");
  CHECK(read_error("train.steps = 1.5") == "run.toml:1: train.steps must be an integer, found the number 1.5");
  CHECK(read_error("train.steps = 1e6") ==
        "run.toml:1: train.steps must be an integer, found the number 1e+06; write 1000000");
  CHECK(read_error("train.lr = true") == "run.toml:1: train.lr must be a number, found the boolean true");
  CHECK(read_error("train.lr = nan") == "run.toml:1: train.lr must be a finite number, found nan");
  CHECK(read_error("train.shuffle = 1") == "run.toml:1: train.shuffle must be true or false, found the integer 1");
  CHECK(read_error("train.schedule = []") == "run.toml:1: train.schedule must be a string, found an array");
  CHECK(read_error("model.blocks = \"mamba\"") ==
        "run.toml:1: model.blocks must be a list of strings, found the string \"mamba\"");
  CHECK(read_error("model.blocks = [\"a\", 3]") ==
        "run.toml:1: model.blocks must be a list of strings; element 2 must be a string, found the integer 3");
  CHECK(read_error("train.columns = { label = 3 }") ==
        "run.toml:1: train.columns must be a table of strings; its key label must be a string, found the integer 3");
  CHECK(read_error("train = 3") == "run.toml:1: train must be a table, found the integer 3");
  CHECK(read_error("model.mamba = 3") == "run.toml:1: model.mamba must be a table, found the integer 3");
  CHECK(read_error("model.other = 3") ==
        "run.toml:1: unknown key model.other; the keys of model are d_model, blocks, mamba, s4d");
  CHECK(read_error("compare.variants.a = 3") == "run.toml:1: compare.variants.a must be a table, found the integer 3");
}

TEST_CASE("a value out of its limits is told them", "[cpu]") {
  CHECK(read_error("train.steps = 0\ntrain.warmup = 0") == "run.toml:1: train.steps must be at least 1, found 0");
  CHECK(read_error("train.lr = 0") == "run.toml:1: train.lr must be above 0, found 0");
  CHECK(read_error("train.decay = 1.0") == "run.toml:1: train.decay must be at least 0 and below 1, found 1.0");
  CHECK(read_error("model.d_model = 65537") ==
        "run.toml:1: model.d_model must be at least 1 and at most 65536, found 65537");
  CHECK(read_error("train.betas = [0.9, 1]") ==
        "run.toml:1: train.betas must be a list of numbers; element 2 must be at least 0 and below 1, found 1");
  CHECK(read_error("train.schedule = \"cosin\"") ==
        "run.toml:1: train.schedule must be one of constant, cosine, found \"cosin\"; did you mean cosine?");
  CHECK(read_error("model.x.variant = \"ZZ\"") == "run.toml:1: model.x.variant must be one of SH, MH, found \"ZZ\"");
}

TEST_CASE("an unknown key is answered with the nearest known one", "[cpu]") {
  CHECK(read_error("\n\ntrain.stpes = 3") == "run.toml:3: unknown key train.stpes; did you mean train.steps?");
  CHECK(read_error("[trian]\nsteps = 3\n") == "run.toml:1: unknown key trian; did you mean train?");
  CHECK(read_error("steps = 3") == "run.toml:1: unknown key steps; did you mean train.steps?");
  CHECK(read_error("train.learning_rate = 3") == "run.toml:1: unknown key train.learning_rate; did you mean train.lr?");
  CHECK(read_error("train.warmup_steps = 3") ==
        "run.toml:1: unknown key train.warmup_steps; did you mean train.warmup?");
  CHECK(read_error("model.mamba.stat = 3") ==
        "run.toml:1: unknown key model.mamba.stat; did you mean model.mamba.state?");
  CHECK(read_error("train.statte = 3") == "run.toml:1: unknown key train.statte; did you mean model.mamba.state?");
  CHECK(read_error("data.qqq = 3") == "run.toml:1: unknown key data.qqq; the keys of data are train");
  CHECK(read_error("compare.mtch = \"none\"") == "run.toml:1: unknown key compare.mtch; did you mean compare.match?");
}

TEST_CASE("all mistakes are told at once, in the order of the file", "[cpu]") {
  CHECK(read_error("sed = 1\n[train]\nsteps = 0\nlrr = 1\nlr = \"x\"\n[model]\nd_model = 0\n",
                   {"data.train=x", "train.decay=2", "train.nosuchthing=1"}) ==
        "run.toml:1: unknown key sed; did you mean seed?\n"
        "run.toml:3: train.steps must be at least 1, found 0\n"
        "run.toml:4: unknown key train.lrr; did you mean train.lr?\n"
        "run.toml:5: train.lr must be a number, found the string \"x\"\n"
        "run.toml:7: model.d_model must be at least 1 and at most 65536, found 0\n"
        "--set train.decay=2: train.decay must be at least 0 and below 1, found 2\n"
        "--set train.nosuchthing=1: unknown key train.nosuchthing; the keys of train are steps, warmup, lr, decay, "
        "schedule, clip, betas, milestones, shuffle, columns");
}

TEST_CASE("required keys, rules between keys and refused names", "[cpu]") {
  CHECK(read_error("seed = 1", {}) == "run.toml: data.train is missing: manifest to learn from, a string");
  CHECK(read_error("[data]\n", {}) == "run.toml:1: data.train is missing: manifest to learn from, a string");
  CHECK(read_error("[train]\nsteps = 5") == "run.toml:1: train.warmup must be at most train.steps = 5, found 10");
  CHECK(read_error("[train]\nsteps = 5\nwarmup = 6") ==
        "run.toml:3: train.warmup must be at most train.steps = 5, found 6");
  // A rule is not judged on what could not be read.
  CHECK(read_error("[train]\nsteps = \"5\"\nwarmup = 1001") ==
        "run.toml:2: train.steps must be an integer, found the string \"5\"");
  CHECK(read_error("\nmodel.train.state = 3") == "run.toml:2: model.train: the name is taken");
}

TEST_CASE("a failed reading leaves the config alone", "[cpu]") {
  RunConfig config;
  CHECK_THROWS_AS(read(parse_toml_text("seed = 5\nx = 1\ndata.train = \"a\"", "run.toml"), config), Error);
  CHECK(config.seed == 1);
}

TEST_CASE("an override means the text where text is wanted", "[cpu]") {
  CHECK(read_text("", {"data.train=2024"}).data.train == "2024");
  CHECK(read_text("", {"data.train=1e-3"}).data.train == "1e-3");
  CHECK(read_text("", {"data.train=x", "train.steps=12"}).train.steps == 12);
}

TEST_CASE("the resolved config reads back as itself", "[cpu]") {
  const RunConfig config = read_text("train.lr = 3e-4\nmodel.hybrid.state = 2\ncompare.variants.a = { seed = 2 }",
                                     {"data.train=x", "train.clip=0.5"});
  const Value written = write(config);
  CHECK(written.find("train")->find("steps")->integer() == 1000);
  CHECK(written.find("model")->find("hybrid")->find("variant")->text() == "SH");
  RunConfig again;
  read(parse_toml_text(to_toml(written), "config.toml"), again);
  CHECK(write(again) == written);
  CHECK(again.train.clip == 0.5);
  CHECK_FALSE(write(again) == write(RunConfig{}));
  CHECK(write(RunConfig{}).find("compare") == nullptr);
  CHECK(write(RunConfig{}).find("train")->find("clip") == nullptr);
}

TEST_CASE("the help is a run file of the defaults", "[cpu]") {
  const std::string text = help<RunConfig>();
  INFO(text);
  RunConfig config;
  read(parse_toml_text(text, "help"), config);
  CHECK(write(config) == write(RunConfig{}));
  for (const char* part : {"seed = 1  # of every random number (integer)", "[train]", "# how to learn",
                           "constant | cosine", "(number, at least 0 and below 1)", "# clip =", "not set",
                           "# [compare]", "# [model.mamba]", "# [model.s4d]", "required", "SH | MH", "# state = 16"}) {
    CHECK_THAT(text, Catch::Contains(part));
  }
  for (size_t begin = 0; begin < text.size(); begin = text.find('\n', begin) + 1) {
    CHECK(text.find('\n', begin) - begin <= 110);
  }
}

TEST_CASE("edit distance and likeness", "[cpu]") {
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("stpes", "steps") == 1);
  CHECK(edit_distance("Steps", "steps") == 0);
  CHECK(nearest("x", {"lr", "b"}).empty());
  CHECK(nearest("batch_size", {"base", "batch"}) == "batch");
  CHECK(nearest("lenght", {"length", "length_max"}) == "length");
  CHECK(nearest("", {"a"}).empty());
}

}  // namespace
}  // namespace blockstate::config
