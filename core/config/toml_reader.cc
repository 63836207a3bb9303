// SPDX-License-Identifier: Apache-2.0
#include <toml++/toml.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/base/check.h"
#include "core/config/value.h"

namespace blockstate::config {
namespace {

Value convert(const toml::node& node, const std::string& name);

Value convert_table(const toml::table& table, const std::string& name) {
  // toml++ keeps keys sorted by name; their places in the text give back the order in which they were written.
  struct Placed {
    const toml::key* key;
    const toml::node* node;
  };
  std::vector<Placed> placed;
  for (const auto& [key, node] : table) {
    placed.push_back({&key, &node});
  }
  std::stable_sort(placed.begin(), placed.end(),
                   [](const Placed& a, const Placed& b) { return a.key->source().begin < b.key->source().begin; });
  Value::Table entries;
  for (const Placed& item : placed) {
    entries.push_back({std::string(item.key->str()), convert(*item.node, name)});
    entries.back().value.where.line = item.key->source().begin.line;
  }
  return Value(std::move(entries));
}

Value convert_array(const toml::array& array, const std::string& name) {
  Value::Array elements;
  for (const toml::node& node : array) {
    elements.push_back(convert(node, name));
  }
  return Value(std::move(elements));
}

Value convert(const toml::node& node, const std::string& name) {
  const int64_t line = node.source().begin.line;
  Value value;
  if (const toml::table* table = node.as_table()) {
    value = convert_table(*table, name);
  } else if (const toml::array* array = node.as_array()) {
    value = convert_array(*array, name);
  } else if (const auto* text = node.as_string()) {
    value = Value(text->get());
  } else if (const auto* integer = node.as_integer()) {
    value = Value(integer->get());
  } else if (const auto* number = node.as_floating_point()) {
    value = Value(number->get());
  } else if (const auto* truth = node.as_boolean()) {
    value = Value(truth->get());
  } else {
    fail(name, ":", line, ": found a date or time, which no setting takes; put it in quotes to make it a string");
  }
  value.where = {name, line};
  return value;
}

}  // namespace

Value parse_toml_text(std::string_view text, const std::string& name) {
  try {
    Value value = convert(toml::parse(text, name), name);
    value.where.line = 0;
    return value;
  } catch (const toml::parse_error& error) {
    fail(name, ":", static_cast<int64_t>(error.source().begin.line), ": not valid TOML: ", error.description());
  }
}

Value parse_toml_file(const std::string& path) {
  std::error_code ignored;
  require(!std::filesystem::is_directory(path, ignored), path, " is a directory, wanted a TOML file");
  require(std::filesystem::exists(path, ignored), path, ": no such file, wanted a TOML file");
  std::ifstream stream(path, std::ios::binary);
  require(stream.is_open(), path, " cannot be opened for reading");
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  require(!stream.bad(), path, " cannot be read");
  return parse_toml_text(text, path);
}

}  // namespace blockstate::config
