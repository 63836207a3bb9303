// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "core/base/check.h"
#include "core/config/value.h"

namespace blockstate::config {
namespace {

constexpr size_t kLineWidth = 100;

std::string key_text(std::string_view key) {
  const auto is_bare = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  };
  return !key.empty() && std::all_of(key.begin(), key.end(), is_bare) ? std::string(key) : quote(key);
}

}  // namespace

std::string to_inline_toml(const Value& value) {
  std::string text;
  switch (value.kind()) {
    case Value::Kind::kTable:
      for (const Value::Entry& entry : value.table()) {
        text += join(text.empty() ? "" : ", ", key_text(entry.key), " = ", to_inline_toml(entry.value));
      }
      return text.empty() ? "{}" : join("{ ", text, " }");
    case Value::Kind::kArray:
      for (const Value& element : value.array()) {
        text += join(text.empty() ? "" : ", ", to_inline_toml(element));
      }
      return join("[", text, "]");
    case Value::Kind::kString:
      return quote(value.text());
    case Value::Kind::kInteger:
      return std::to_string(value.integer());
    case Value::Kind::kNumber:
      return format_double(value.number());
    default:
      return value.truth() ? "true" : "false";
  }
}

namespace {

void write_assignment(const Value::Entry& entry, std::string& out) {
  const std::string key = key_text(entry.key);
  const std::string whole = to_inline_toml(entry.value);
  if (!entry.value.is(Value::Kind::kArray) || key.size() + 3 + whole.size() <= kLineWidth) {
    out += join(key, " = ", whole, "\n");
    return;
  }
  out += join(key, " = [\n");
  for (const Value& element : entry.value.array()) {
    out += join("  ", to_inline_toml(element), ",\n");
  }
  out += "]\n";
}

void write_table(const Value& value, const std::string& path, std::string& out) {
  const Value::Table& entries = value.table();
  const auto is_section = [](const Value::Entry& entry) {
    return entry.value.is(Value::Kind::kTable) && !entry.value.table().empty();
  };
  // A header that would hold nothing but sections is implied by theirs.
  if (!path.empty() && !std::all_of(entries.begin(), entries.end(), is_section)) {
    out += join(out.empty() ? "" : "\n", "[", path, "]\n");
  }
  for (const Value::Entry& entry : entries) {
    if (!is_section(entry)) {
      write_assignment(entry, out);
    }
  }
  for (const Value::Entry& entry : entries) {
    if (is_section(entry)) {
      write_table(entry.value, join(path, path.empty() ? "" : ".", key_text(entry.key)), out);
    }
  }
}

}  // namespace

std::string to_toml(const Value& value) {
  std::string out;
  write_table(value, "", out);
  return out;
}

}  // namespace blockstate::config
