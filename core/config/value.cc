// SPDX-License-Identifier: Apache-2.0
#include "core/config/value.h"

#include <charconv>
#include <cmath>
#include <utility>

#include "core/base/check.h"

namespace blockstate::config {
namespace {

constexpr const char* kKindNames[] = {"a table", "an array", "a string", "an integer", "a number", "a boolean"};

template <class T>
const T& get_as(const Value& value,
                const std::variant<Value::Table, Value::Array, std::string, int64_t, double, bool>& data,
                Value::Kind wanted) {
  const T* found = std::get_if<T>(&data);
  if (found == nullptr) {
    fail(value.where.prefix(), "wanted ", kKindNames[static_cast<int>(wanted)], ", found ", value.describe());
  }
  return *found;
}

}  // namespace

std::string Location::prefix() const {
  if (file.empty()) {
    return "";
  }
  return line > 0 ? join(file, ":", line, ": ") : join(file, ": ");
}

Value::Value() = default;
Value::Value(Table table) : data_(std::move(table)) {}
Value::Value(Array array) : data_(std::move(array)) {}
Value::Value(std::string text) : data_(std::move(text)) {}
Value::Value(const char* text) : data_(std::string(text)) {}
Value::Value(int64_t integer) : data_(integer) {}
Value::Value(int integer) : data_(int64_t{integer}) {}
Value::Value(double number) : data_(number) {}
Value::Value(bool truth) : data_(truth) {}

const Value::Table& Value::table() const { return get_as<Table>(*this, data_, Kind::kTable); }
Value::Table& Value::table() { return const_cast<Table&>(std::as_const(*this).table()); }
const Value::Array& Value::array() const { return get_as<Array>(*this, data_, Kind::kArray); }
Value::Array& Value::array() { return const_cast<Array&>(std::as_const(*this).array()); }
const std::string& Value::text() const { return get_as<std::string>(*this, data_, Kind::kString); }
int64_t Value::integer() const { return get_as<int64_t>(*this, data_, Kind::kInteger); }
bool Value::truth() const { return get_as<bool>(*this, data_, Kind::kBool); }

double Value::number() const {
  if (const int64_t* exact = std::get_if<int64_t>(&data_)) {
    return static_cast<double>(*exact);
  }
  return get_as<double>(*this, data_, Kind::kNumber);
}

const Value* Value::find(std::string_view key) const {
  if (const Table* entries = std::get_if<Table>(&data_)) {
    for (const Entry& entry : *entries) {
      if (entry.key == key) {
        return &entry.value;
      }
    }
  }
  return nullptr;
}

Value* Value::find(std::string_view key) { return const_cast<Value*>(std::as_const(*this).find(key)); }

Value& Value::set(std::string_view key, Value value) {
  if (Value* present = find(key)) {
    *present = std::move(value);
    return *present;
  }
  table().push_back({std::string(key), std::move(value)});
  return table().back().value;
}

std::string Value::describe() const {
  switch (kind()) {
    case Kind::kString:
      return join("the string ", quote(text()));
    case Kind::kInteger:
      return join("the integer ", integer());
    case Kind::kNumber:
      return join("the number ", format_double(number()));
    case Kind::kBool:
      return join("the boolean ", truth());
    default:
      return kKindNames[static_cast<int>(kind())];
  }
}

bool Value::operator==(const Value& other) const {
  if (kind() != other.kind()) {
    return false;
  }
  switch (kind()) {
    case Kind::kArray:
      return array() == other.array();
    case Kind::kString:
      return text() == other.text();
    case Kind::kInteger:
      return integer() == other.integer();
    case Kind::kNumber:
      return number() == other.number() || (std::isnan(number()) && std::isnan(other.number()));
    case Kind::kBool:
      return truth() == other.truth();
    default:
      break;
  }
  if (table().size() != other.table().size()) {
    return false;
  }
  for (const Entry& entry : table()) {
    const Value* twin = other.find(entry.key);
    if (twin == nullptr || !(*twin == entry.value)) {
      return false;
    }
  }
  return true;
}

void merge(Value& base, const Value& overrides) {
  for (const Value::Entry& entry : overrides.table()) {
    Value* present = base.find(entry.key);
    if (present != nullptr && present->is(Value::Kind::kTable) && entry.value.is(Value::Kind::kTable)) {
      merge(*present, entry.value);
    } else {
      base.set(entry.key, entry.value);
    }
  }
}

std::string format_double(double value) {
  if (!std::isfinite(value)) {
    return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
  }
  char digits[40];
  const auto [end, status] = std::to_chars(digits, digits + sizeof digits, value);
  std::string text(digits, end);
  if (text.find_first_of(".e") == std::string::npos) {
    text += ".0";
  }
  return text;
}

std::string quote(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (c == '\t') {
      quoted += "\\t";
    } else if (c == '\r') {
      quoted += "\\r";
    } else if (byte < 0x20 || byte == 0x7F) {
      quoted += "\\u00";
      quoted += kHex[byte >> 4];
      quoted += kHex[byte & 15];
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

}  // namespace blockstate::config
