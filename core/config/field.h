// SPDX-License-Identifier: Apache-2.0
// One key of a config struct: its type, its limits, and the way to its value.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/config/value.h"

namespace blockstate::config {

/// Limits of a key. For a list they hold for each element.
struct Constraint {
  std::optional<double> least;      ///< value >= least
  std::optional<double> more_than;  ///< value > more_than
  std::optional<double> most;       ///< value <= most
  std::optional<double> less_than;  ///< value < less_than
  std::vector<std::string> choices;
  std::vector<std::string> words;  ///< that an integer key takes instead of a number
  bool required = false;           ///< the file must give it: there is no sensible default

  Constraint at_most(double limit) const;
  Constraint below(double limit) const;
  Constraint needed() const;
  /// "at least 1 and below 2", "one of a, b", or "".
  std::string text() const;
};

Constraint at_least(double limit);
Constraint above(double limit);
Constraint at_most(double limit);
Constraint below(double limit);
Constraint one_of(std::vector<std::string> choices);
Constraint needed();

/// The names of an enum's values as the file writes them.
template <class E>
using EnumNames = std::vector<std::pair<std::string, E>>;

enum class FieldKind { kInteger, kNumber, kBool, kString, kIntegers, kNumbers, kStrings, kStringMap };

struct Field {
  std::string name;
  std::string doc;
  FieldKind kind = FieldKind::kString;
  bool optional = false;
  Constraint constraint;
  std::function<std::optional<Value>()> get;
  /// Takes a value that check_field has passed.
  std::function<void(const Value&)> set;
};

/// "an integer", "a list of strings", ...
std::string kind_text(FieldKind kind);
/// What is wrong with `value` for this field, to follow the key's name ("must be an integer, found ..."); empty: fine.
std::string check_field(const Field& field, const Value& value);

/// Conversion between a C++ type and Value, one specialisation a type. from_value relies on check_field.
template <class T>
struct FieldTraits;

template <class T, FieldKind K>
struct ScalarTraits {
  static constexpr FieldKind kKind = K;
  static constexpr bool kOptional = false;
  static std::optional<Value> to_value(const T& value) { return Value(value); }
};
template <>
struct FieldTraits<int64_t> : ScalarTraits<int64_t, FieldKind::kInteger> {
  static int64_t from_value(const Value& value) { return value.integer(); }
};
template <>
struct FieldTraits<double> : ScalarTraits<double, FieldKind::kNumber> {
  static double from_value(const Value& value) { return value.number(); }
};
template <>
struct FieldTraits<bool> : ScalarTraits<bool, FieldKind::kBool> {
  static bool from_value(const Value& value) { return value.truth(); }
};
template <>
struct FieldTraits<std::string> : ScalarTraits<std::string, FieldKind::kString> {
  static std::string from_value(const Value& value) { return value.typed.empty() ? value.text() : value.typed; }
};

template <class T, FieldKind K>
struct ListTraits {
  static constexpr FieldKind kKind = K;
  static constexpr bool kOptional = false;
  static std::optional<Value> to_value(const std::vector<T>& list) {
    Value::Array array;
    for (const T& element : list) {
      array.push_back(Value(element));
    }
    return Value(std::move(array));
  }
  static std::vector<T> from_value(const Value& value) {
    std::vector<T> list;
    for (const Value& element : value.array()) {
      list.push_back(FieldTraits<T>::from_value(element));
    }
    return list;
  }
};
template <>
struct FieldTraits<std::vector<int64_t>> : ListTraits<int64_t, FieldKind::kIntegers> {};
template <>
struct FieldTraits<std::vector<double>> : ListTraits<double, FieldKind::kNumbers> {};
template <>
struct FieldTraits<std::vector<std::string>> : ListTraits<std::string, FieldKind::kStrings> {};

template <>
struct FieldTraits<std::map<std::string, std::string>> {
  static constexpr FieldKind kKind = FieldKind::kStringMap;
  static constexpr bool kOptional = false;
  static std::optional<Value> to_value(const std::map<std::string, std::string>& map) {
    Value table;
    for (const auto& [key, text] : map) {
      table.set(key, Value(text));
    }
    return table;
  }
  static std::map<std::string, std::string> from_value(const Value& value) {
    std::map<std::string, std::string> map;
    for (const Value::Entry& entry : value.table()) {
      map[entry.key] = FieldTraits<std::string>::from_value(entry.value);
    }
    return map;
  }
};

template <class T>
struct FieldTraits<std::optional<T>> {
  static constexpr FieldKind kKind = FieldTraits<T>::kKind;
  static constexpr bool kOptional = true;
  static std::optional<Value> to_value(const std::optional<T>& value) {
    return value ? FieldTraits<T>::to_value(*value) : std::nullopt;
  }
  static std::optional<T> from_value(const Value& value) { return FieldTraits<T>::from_value(value); }
};

template <class T>
Field make_field(std::string_view name, T& value, std::string_view doc, const Constraint& constraint) {
  using Traits = FieldTraits<T>;
  return {std::string(name),
          std::string(doc),
          Traits::kKind,
          Traits::kOptional,
          constraint,
          [&value] { return Traits::to_value(value); },
          [&value](const Value& read) { value = Traits::from_value(read); }};
}

/// An integer for which a word may stand.
Field make_word_field(std::string_view name, int64_t& value, std::string_view doc, const Constraint& constraint,
                      const EnumNames<int64_t>& words);

template <class E>
Field make_enum_field(std::string_view name, E& value, std::string_view doc, const EnumNames<E>& names) {
  std::vector<std::string> choices;
  for (const auto& [text, meaning] : names) {
    choices.push_back(text);
  }
  return {std::string(name),
          std::string(doc),
          FieldKind::kString,
          false,
          one_of(std::move(choices)),
          [&value, names]() -> std::optional<Value> {
            for (const auto& [text, meaning] : names) {
              if (meaning == value) {
                return Value(text);
              }
            }
            return std::nullopt;
          },
          [&value, names](const Value& read) {
            for (const auto& [text, meaning] : names) {
              if (text == FieldTraits<std::string>::from_value(read)) {
                value = meaning;
              }
            }
          }};
}

}  // namespace blockstate::config
