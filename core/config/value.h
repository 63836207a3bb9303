// SPDX-License-Identifier: Apache-2.0
// What a run file says, as a tree that knows where each of its values was written. Independent of any library.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace blockstate::config {

/// Where a value was written. `line` counts from 1; 0 where no line is known.
struct Location {
  std::string file;
  int64_t line = 0;
  /// "run.toml:12: ", "config.json: " or "", to stand before a message.
  std::string prefix() const;
};

/// A table (keys in the order of the file), array, string, 64-bit integer, double or bool.
class Value {
 public:
  struct Entry;
  using Table = std::vector<Entry>;
  using Array = std::vector<Value>;
  enum class Kind { kTable, kArray, kString, kInteger, kNumber, kBool };

  /// An empty table.
  Value();
  explicit Value(Table table);
  explicit Value(Array array);
  explicit Value(std::string text);
  explicit Value(const char* text);
  explicit Value(int64_t integer);
  explicit Value(int integer);
  explicit Value(double number);
  explicit Value(bool truth);

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is(Kind wanted) const { return kind() == wanted; }

  /// The contents. Asking for another kind than the value has is an Error that names the place and both kinds.
  const Table& table() const;
  Table& table();
  const Array& array() const;
  Array& array();
  const std::string& text() const;
  int64_t integer() const;
  /// Of a double, or of an integer.
  double number() const;
  bool truth() const;

  /// The member `key` of a table; null if there is none or this is no table.
  const Value* find(std::string_view key) const;
  Value* find(std::string_view key);
  /// Adds or replaces a member of a table and returns it.
  Value& set(std::string_view key, Value value);

  /// For messages: `the string "many"`, `the integer 3`, `the number 1.5`, `the boolean true`, `an array`, `a table`.
  std::string describe() const;

  /// Same kind and contents; the order of a table's keys and the locations do not count. NaN equals NaN here.
  bool operator==(const Value& other) const;

  Location where;
  /// What the user typed, for a scalar given by an override: `--set run.dir=2024` means the text where text is wanted.
  std::string typed;

 private:
  std::variant<Table, Array, std::string, int64_t, double, bool> data_;
};

struct Value::Entry {
  std::string key;
  Value value;
};

/// Reads a TOML 1.0 file. Error names file and line: no such file, a directory, a mistake in the syntax, a key given
/// twice, an integer beyond 64 bits, a date (which no setting takes).
Value parse_toml_file(const std::string& path);
/// The same from text; `name` stands for the file in messages.
Value parse_toml_text(std::string_view text, const std::string& name);
/// TOML that parse_toml_text reads back as an equal value: plain keys of a table first, then its sections. Doubles are
/// written with the digits they need and always read back as doubles. Error unless `value` is a table.
std::string to_toml(const Value& value);
/// Any value as it may stand behind `key = ` on one line.
std::string to_inline_toml(const Value& value);

/// Reads JSON. A member of an object that is null counts as absent; null elsewhere, an integer beyond 64 bits, a key
/// given twice and nesting deeper than 256 are Errors.
Value parse_json(std::string_view text, const std::string& name);
/// JSON indented by two spaces, with a final newline. Error on a double that is not finite.
std::string to_json(const Value& value);
/// The same on one line without its end, for files of one object a line.
std::string to_json_line(const Value& value);

/// Applies `dotted.key=value`, as given to --set. The value is read as a TOML value; what is none is taken as a bare
/// string, except behind an opening bracket, brace or quote, where it is a mistake. Missing tables on the way are
/// made; a table is merged into a table, anything else replaces. Keys may be quoted as in TOML.
void apply_override(Value& root, std::string_view assignment);

/// Lays `overrides` over `base`: tables are merged key by key, anything else replaces what was there.
void merge(Value& base, const Value& overrides);

/// The shortest text that reads back as the same double and cannot be taken for an integer: 0.001, 1e-05, 3.0, inf.
std::string format_double(double value);

/// A TOML basic string in double quotes, with what must be escaped escaped.
std::string quote(std::string_view text);

}  // namespace blockstate::config
