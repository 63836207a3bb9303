// SPDX-License-Identifier: Apache-2.0
#include "core/base/check.h"
#include "core/config/value.h"

namespace blockstate::config {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n";
  const size_t begin = text.find_first_not_of(kBlank);
  return begin == std::string_view::npos ? std::string_view()
                                         : text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

/// Position of the first '=' outside quotes.
size_t find_equals(std::string_view text) {
  char quoted = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (quoted != 0) {
      quoted = text[i] == quoted ? 0 : quoted;
    } else if (text[i] == '"' || text[i] == '\'') {
      quoted = text[i];
    } else if (text[i] == '=') {
      return i;
    }
  }
  return std::string_view::npos;
}

/// The parts of a dotted key, as TOML reads them.
std::vector<std::string> split_key(std::string_view key, const std::string& name) {
  std::vector<std::string> parts;
  const std::string problem = join(name, ": ", quote(key), " is not a dotted key such as train.steps");
  require(key.find_first_of("\r\n#") == std::string_view::npos, problem);
  Value chain;
  try {
    chain = parse_toml_text(join(key, " = 0"), name);
  } catch (const Error&) {
    fail(problem);
  }
  const Value* at = &chain;
  while (at->is(Value::Kind::kTable)) {
    require(at->table().size() == 1, problem);
    parts.push_back(at->table().front().key);
    at = &at->table().front().value;
  }
  return parts;
}

void relocate(Value& value, const std::string& name) {
  value.where = {name, 0};
  if (value.is(Value::Kind::kTable)) {
    for (Value::Entry& entry : value.table()) {
      relocate(entry.value, name);
    }
  } else if (value.is(Value::Kind::kArray)) {
    for (Value& element : value.array()) {
      relocate(element, name);
    }
  }
}

/// `text` as a TOML value; a TOML Error speaks of the made-up line 1, which is taken out.
Value parse_toml_value(std::string_view text, const std::string& name) {
  Value document;
  try {
    document = parse_toml_text(join("value = ", text), name);
  } catch (const Error& error) {
    const std::string message = error.what();
    const std::string start = join(name, ":1: ");
    fail(name, ": ", message.compare(0, start.size(), start) == 0 ? message.substr(start.size()) : message);
  }
  require(document.table().size() == 1, name, ": wanted one value after the =");
  return document.table().front().value;
}

Value parse_value(std::string_view text, const std::string& name) {
  const bool bracketed = !text.empty() && std::string_view("[{\"'").find(text.front()) != std::string_view::npos;
  Value value{std::string(text)};
  if (bracketed) {
    value = parse_toml_value(text, name);
  } else if (text.find_first_of("#\n\r") == std::string_view::npos) {
    // A bare '#' would start a comment and a line end a second key: such text is a string as it stands.
    try {
      value = parse_toml_value(text, name);
    } catch (const Error&) {
      value = Value(std::string(text));
    }
  }
  relocate(value, name);
  value.typed = bracketed ? "" : text;
  return value;
}

}  // namespace

void apply_override(Value& root, std::string_view assignment) {
  const std::string name = join("--set ", assignment);
  const size_t equals = find_equals(assignment);
  require(equals != std::string_view::npos, name, ": wanted dotted.key=value, found no =");
  const std::vector<std::string> parts = split_key(trimmed(assignment.substr(0, equals)), name);
  Value value = parse_value(trimmed(assignment.substr(equals + 1)), name);
  Value* at = &root;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    Value* next = at->find(parts[i]);
    if (next == nullptr) {
      next = &at->set(parts[i], Value());
      next->where = {name, 0};
    }
    require(next->is(Value::Kind::kTable), name, ": ", parts[i], " is ", next->describe(), " (",
            next->where.prefix().empty() ? "set before" : join("set at ", next->where.file, ":", next->where.line),
            "), wanted a table");
    at = next;
  }
  Value* present = at->find(parts.back());
  if (present != nullptr && present->is(Value::Kind::kTable) && value.is(Value::Kind::kTable)) {
    merge(*present, value);
  } else {
    at->set(parts.back(), std::move(value));
  }
}

}  // namespace blockstate::config
