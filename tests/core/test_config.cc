// SPDX-License-Identifier: Apache-2.0
// The tree of a run file: TOML, JSON, overrides.
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "core/base/check.h"
#include "core/config/value.h"

namespace blockstate::config {
namespace {

template <class Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

Value parse(const std::string& text) { return parse_toml_text(text, "run.toml"); }

std::string override_error(const std::string& file, const std::string& assignment) {
  return error_of([&] {
    Value root = parse(file);
    apply_override(root, assignment);
  });
}

TEST_CASE("a run file gives every kind of value, in its order, with its lines", "[cpu]") {
  const Value root = parse(
      "zeta = 1\n"
      "lr = 1e-3   # a comment\n"
      "on = true\n"
      "\n"
      "[model]\n"
      "d_model = 64\n"
      "blocks = [\"a\",\n"
      "  \"b\"]\n"
      "[alpha]\n"
      "x = -inf\n");
  REQUIRE(root.table().size() == 5);
  CHECK(root.table()[0].key == "zeta");
  CHECK(root.table()[4].key == "alpha");
  CHECK(root.find("zeta")->integer() == 1);
  CHECK(root.find("lr")->number() == 1e-3);
  CHECK(root.find("on")->truth());
  CHECK(root.find("model")->find("d_model")->where.line == 6);
  CHECK(root.find("model")->find("blocks")->where.prefix() == "run.toml:7: ");
  CHECK(root.find("model")->find("blocks")->array()[1].text() == "b");
  CHECK(root.find("alpha")->where.line == 9);
  CHECK(std::isinf(root.find("alpha")->find("x")->number()));
  CHECK(root.find("absent") == nullptr);
  CHECK(error_of([&] { root.find("lr")->text(); }) == "run.toml:2: wanted a string, found the number 0.001");
}

TEST_CASE("dotted keys inside inline tables make nested tables", "[cpu]") {
  const Value root = parse("[compare]\nvariants.mamba = { model.blocks = [\"m\"], train.lr = 0.1 }\n");
  const Value* variant = root.find("compare")->find("variants")->find("mamba");
  REQUIRE(variant != nullptr);
  CHECK(variant->find("model")->find("blocks")->array()[0].text() == "m");
  CHECK(variant->find("train")->find("lr")->where.line == 2);
}

TEST_CASE("what is written reads back equal, as TOML and as JSON", "[cpu]") {
  Value root = parse(
      "text = \"a \\\"quote\\\", \\\\ and a\\ttab, \\u0001, Grüße, 音\"\n"
      "empty = \"\"\n"
      "whole = 3.0\nsmall = 1e-300\ntenth = 0.1\nbig = 9223372036854775807\nlow = -9223372036854775808\n"
      "list = [[1, 2], [], [\"x\", \"y\"]]\n"
      "tables = [{ a = 1 }, { b.c = 2 }]\n"
      "nothing = {}\n"
      "[a.\"odd key.\".b]\nx = 1\n"
      "[a.z]\ny = false\n");
  root.set("long", Value(Value::Array(40, Value("element"))));
  const std::string text = to_toml(root);
  INFO(text);
  CHECK(parse(text) == root);
  CHECK(to_toml(parse(text)) == text);
  CHECK(parse_json(to_json(root), "config.json") == root);
  CHECK(to_json(parse_json(to_json(root), "config.json")) == to_json(root));
  // The comparison must be able to fail: an integer is not a double, nor one digit another.
  CHECK_FALSE(parse("a = 1") == parse("a = 1.0"));
  CHECK_FALSE(parse("a = 0.1") == parse("a = 0.10000000000000002"));
  CHECK_FALSE(parse("a = 1\nb = 2") == parse("a = 1"));
  CHECK(parse("a = 1\nb = 2") == parse("b = 2\na = 1"));
}

TEST_CASE("doubles keep their digits and their kind", "[cpu]") {
  CHECK(format_double(0.001) == "0.001");
  CHECK(format_double(3.0) == "3.0");
  CHECK(format_double(1e-5) == "1e-05");
  CHECK(format_double(-0.0) == "-0.0");
  CHECK(format_double(INFINITY) == "inf");
  for (const double value : {1.0 / 3, 1e22, 5e-324, std::numeric_limits<double>::max(), 123456789.125}) {
    const Value back = parse("x = " + format_double(value));
    CHECK(back.find("x")->is(Value::Kind::kNumber));
    CHECK(back.find("x")->number() == value);
  }
  CHECK(to_toml(parse("x = nan")) == "x = nan\n");
  CHECK(error_of([] { to_json(parse("x = nan")); }) == "run.toml:1: JSON cannot hold the number nan");
}

TEST_CASE("the written TOML puts keys before sections and leaves out empty headers", "[cpu]") {
  CHECK(to_toml(parse("[b.c]\nx = 1\n[b]\ny = [1]\n[d.e]\nz = \"s\"")) ==
        "[b]\ny = [1]\n\n[b.c]\nx = 1\n\n[d.e]\nz = \"s\"\n");
}

TEST_CASE("TOML mistakes name file and line", "[cpu]") {
  CHECK_THAT(error_of([] { parse("a = 1\nb = \n"); }), Catch::StartsWith("run.toml:2: not valid TOML: "));
  CHECK_THAT(error_of([] { parse("a = 1\n[x]\nb = 1\nb = 2\n"); }), Catch::StartsWith("run.toml:4: not valid TOML: "));
  CHECK_THAT(error_of([] { parse("a = 9223372036854775808\n"); }), Catch::StartsWith("run.toml:1: not valid TOML: "));
  CHECK_THAT(error_of([] { parse("a = \"\xff\"\n"); }), Catch::StartsWith("run.toml:1: not valid TOML: "));
  CHECK(error_of([] { parse("\na = 2024-01-02\n"); }) ==
        "run.toml:2: found a date or time, which no setting takes; put it in quotes to make it a string");
}

TEST_CASE("files that are none are named", "[cpu]") {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "blockstate_test_config";
  std::filesystem::create_directories(folder);
  const std::string file = (folder / "run größe.toml").string();
  std::ofstream(file) << "\xef\xbb\xbf# with a byte order mark\r\nseed = 3\r\n";
  CHECK(parse_toml_file(file).find("seed")->where.prefix() == file + ":2: ");
  CHECK(error_of([&] { parse_toml_file(folder.string()); }) == folder.string() + " is a directory, wanted a TOML file");
  std::filesystem::remove_all(folder);
  CHECK(error_of([&] { parse_toml_file(file); }) == file + ": no such file, wanted a TOML file");
}

TEST_CASE("JSON: null members are absent, mistakes are named", "[cpu]") {
  const Value root = parse_json("{\"a\": null, \"b\": [1, 2.5, true], \"c\": {\"d\": \"\\u00e9\"}}", "config.json");
  CHECK(root.find("a") == nullptr);
  CHECK(root.find("b")->array()[1].number() == 2.5);
  CHECK(root.find("c")->find("d")->text() == "é");
  const auto json_error = [](const std::string& text) { return error_of([&] { parse_json(text, "config.json"); }); };
  CHECK(json_error("{\"a\": 1, \"a\": 2}") == "config.json: the key \"a\" is given twice");
  CHECK(json_error("{\"a\": [null]}") == "config.json: found null under the key \"a\", wanted a value");
  CHECK(json_error("{\"a\": 9223372036854775808}") ==
        "config.json: the integer 9223372036854775808 does not fit in 64 bits");
  CHECK(json_error("{\"a\": 99999999999999999999999}") ==
        "config.json: the integer 99999999999999999999999 does not fit in 64 bits");
  CHECK_THAT(json_error("{\"a\": 1"), Catch::StartsWith("config.json: not valid JSON at byte 8: "));
  CHECK_THAT(json_error(""), Catch::StartsWith("config.json: not valid JSON at byte "));
  CHECK(json_error(std::string(100000, '[')) == "config.json: nested deeper than 256 levels");
}

TEST_CASE("an override takes a TOML value or else a bare string", "[cpu]") {
  Value root = parse("[train]\nsteps = 5\n[model]\nmamba = { state = 16, conv = 4 }\n");
  for (const char* assignment :
       {"train.steps = 7", "train.lr=1e-3", "train.dir=runs/a b", "data.train=a.tsv", "data.on=true",
        "data.day=2024-01-02", "data.note=3 # not a comment", "data.empty=", "model.blocks=[\"(a b) * 2\", 'c']",
        "model.mamba={state=8}", "compare.variants.\"odd name\"={ model.blocks = [\"x\"] }", "data.quoted=\"=\""}) {
    apply_override(root, assignment);
  }
  CHECK(root == parse("[train]\nsteps = 7\nlr = 1e-3\ndir = \"runs/a b\"\n"
                      "[data]\ntrain = \"a.tsv\"\non = true\nday = \"2024-01-02\"\nnote = \"3 # not a comment\"\n"
                      "empty = \"\"\nquoted = \"=\"\n"
                      "[model]\nblocks = [\"(a b) * 2\", \"c\"]\nmamba = { state = 8, conv = 4 }\n"
                      "[compare.variants.\"odd name\".model]\nblocks = [\"x\"]\n"));
  CHECK(root.find("train")->find("steps")->where.prefix() == "--set train.steps = 7: ");
  CHECK(root.find("train")->find("steps")->typed == "7");
}

TEST_CASE("an override that makes no sense says why", "[cpu]") {
  CHECK(override_error("", "train.steps") == "--set train.steps: wanted dotted.key=value, found no =");
  CHECK(override_error("", "=3") == "--set =3: \"\" is not a dotted key such as train.steps");
  CHECK(override_error("", "a..b=3") == "--set a..b=3: \"a..b\" is not a dotted key such as train.steps");
  CHECK(override_error("", "[a]\nb=3") == "--set [a]\nb=3: \"[a]\\nb\" is not a dotted key such as train.steps");
  CHECK(override_error("seed = 1", "seed.x=3") ==
        "--set seed.x=3: seed is the integer 1 (set at run.toml:1), wanted a table");
  CHECK_THAT(override_error("", "a=[1, x]"), Catch::StartsWith("--set a=[1, x]: not valid TOML: "));
  CHECK_THAT(override_error("", "a=\"x"), Catch::StartsWith("--set a=\"x: not valid TOML: "));
  CHECK(override_error("", "a=[1]\nb=2") == "--set a=[1]\nb=2: wanted one value after the =");
}

TEST_CASE("merge goes into tables and replaces everything else", "[cpu]") {
  Value base = parse("a = 1\nlist = [1, 2]\n[t]\nx = 1\ny = 2\n[t.u]\nz = 3\n");
  merge(base, parse("a = \"s\"\nlist = [3]\nnew = true\n[t]\nx = 9\n[t.u]\nw = 4\n"));
  CHECK(base == parse("a = \"s\"\nlist = [3]\nnew = true\n[t]\nx = 9\ny = 2\n[t.u]\nz = 3\nw = 4\n"));
  merge(base, parse("t = 5"));
  CHECK(base.find("t")->integer() == 5);
}

}  // namespace
}  // namespace blockstate::config
