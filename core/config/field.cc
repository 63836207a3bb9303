// SPDX-License-Identifier: Apache-2.0
#include "core/config/field.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"
#include "core/config/nearest.h"

namespace blockstate::config {
namespace {

std::string number_text(double value) {
  // Limits are mostly whole numbers, of integer keys as well.
  return value == std::floor(value) && std::fabs(value) < 1e15 ? join(static_cast<int64_t>(value))
                                                               : format_double(value);
}

std::string list_text(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) {
    text += join(text.empty() ? "" : ", ", word.empty() ? "\"\"" : word);
  }
  return text;
}

bool within(const Constraint& limits, double value) {
  return (!limits.least || value >= *limits.least) && (!limits.more_than || value > *limits.more_than) &&
         (!limits.most || value <= *limits.most) && (!limits.less_than || value < *limits.less_than);
}

std::string word_text(const Constraint& limits) {
  std::string text;
  for (const std::string& word : limits.words) {
    text += join(text.empty() ? "" : " or ", quote(word));
  }
  return text;
}

bool is_word(const Constraint& limits, const Value& value) {
  return (value.is(Value::Kind::kString) || !value.typed.empty()) &&
         std::find(limits.words.begin(), limits.words.end(), FieldTraits<std::string>::from_value(value)) !=
             limits.words.end();
}

/// What is wrong with one value of `kind`, which is a scalar kind; empty: fine.
std::string check_scalar(FieldKind kind, const Constraint& limits, const Value& value) {
  switch (kind) {
    case FieldKind::kInteger:
      if (is_word(limits, value)) {
        return "";
      }
      if (value.is(Value::Kind::kNumber) && value.number() == std::floor(value.number()) &&
          std::fabs(value.number()) < 1e15) {
        return join("must be an integer, found ", value.describe(), "; write ", number_text(value.number()));
      }
      if (!value.is(Value::Kind::kInteger)) {
        return join("must be an integer", limits.words.empty() ? "" : " or " + word_text(limits), ", found ",
                    value.describe());
      }
      break;
    case FieldKind::kNumber:
      if (!value.is(Value::Kind::kNumber) && !value.is(Value::Kind::kInteger)) {
        return join("must be a number, found ", value.describe());
      }
      if (!std::isfinite(value.number())) {
        return join("must be a finite number, found ", format_double(value.number()));
      }
      break;
    case FieldKind::kBool:
      return value.is(Value::Kind::kBool) ? "" : join("must be true or false, found ", value.describe());
    default: {
      if (!value.is(Value::Kind::kString) && value.typed.empty()) {
        return join("must be a string, found ", value.describe());
      }
      const std::string text = FieldTraits<std::string>::from_value(value);
      if (limits.choices.empty() ||
          std::find(limits.choices.begin(), limits.choices.end(), text) != limits.choices.end()) {
        return "";
      }
      const std::string likely = nearest(text, limits.choices);
      return join("must be one of ", list_text(limits.choices), ", found ", quote(text),
                  likely.empty() ? "" : join("; did you mean ", likely, "?"));
    }
  }
  return within(limits, value.number())
             ? ""
             : join("must be ", limits.text(), ", found ",
                    value.is(Value::Kind::kInteger) ? join(value.integer()) : format_double(value.number()));
}

FieldKind element_kind(FieldKind kind) {
  return kind == FieldKind::kIntegers  ? FieldKind::kInteger
         : kind == FieldKind::kNumbers ? FieldKind::kNumber
                                       : FieldKind::kString;
}

}  // namespace

Constraint Constraint::at_most(double limit) const {
  Constraint result = *this;
  result.most = limit;
  return result;
}

Constraint Constraint::below(double limit) const {
  Constraint result = *this;
  result.less_than = limit;
  return result;
}

Constraint Constraint::needed() const {
  Constraint result = *this;
  result.required = true;
  return result;
}

std::string Constraint::text() const {
  if (!choices.empty()) {
    return join("one of ", list_text(choices));
  }
  std::string low = least       ? join("at least ", number_text(*least))
                    : more_than ? join("above ", number_text(*more_than))
                                : "";
  std::string high = most        ? join("at most ", number_text(*most))
                     : less_than ? join("below ", number_text(*less_than))
                                 : "";
  const std::string range = join(low, low.empty() || high.empty() ? "" : " and ", high);
  return words.empty() ? range : join(range, range.empty() ? "" : ", or ", word_text(*this));
}

Constraint at_least(double limit) {
  Constraint result;
  result.least = limit;
  return result;
}

Constraint above(double limit) {
  Constraint result;
  result.more_than = limit;
  return result;
}

Constraint at_most(double limit) { return Constraint().at_most(limit); }
Constraint below(double limit) { return Constraint().below(limit); }
Constraint needed() { return Constraint().needed(); }

Constraint one_of(std::vector<std::string> choices) {
  Constraint result;
  result.choices = std::move(choices);
  return result;
}

Field make_word_field(std::string_view name, int64_t& value, std::string_view doc, const Constraint& constraint,
                      const EnumNames<int64_t>& words) {
  Field field = make_field(name, value, doc, constraint);
  for (const auto& [word, meaning] : words) {
    field.constraint.words.push_back(word);
  }
  field.get = [&value, words]() -> std::optional<Value> {
    for (const auto& [word, meaning] : words) {
      if (meaning == value) {
        return Value(word);
      }
    }
    return Value(value);
  };
  field.set = [&value, words](const Value& read) {
    if (read.is(Value::Kind::kInteger)) {
      value = read.integer();
      return;
    }
    for (const auto& [word, meaning] : words) {
      if (word == FieldTraits<std::string>::from_value(read)) {
        value = meaning;
      }
    }
  };
  return field;
}

std::string kind_text(FieldKind kind) {
  switch (kind) {
    case FieldKind::kInteger:
      return "an integer";
    case FieldKind::kNumber:
      return "a number";
    case FieldKind::kBool:
      return "true or false";
    case FieldKind::kString:
      return "a string";
    case FieldKind::kIntegers:
      return "a list of integers";
    case FieldKind::kNumbers:
      return "a list of numbers";
    case FieldKind::kStrings:
      return "a list of strings";
    default:
      return "a table of strings";
  }
}

std::string check_field(const Field& field, const Value& value) {
  switch (field.kind) {
    case FieldKind::kIntegers:
    case FieldKind::kNumbers:
    case FieldKind::kStrings: {
      if (!value.is(Value::Kind::kArray)) {
        return join("must be ", kind_text(field.kind), ", found ", value.describe());
      }
      for (size_t i = 0; i < value.array().size(); ++i) {
        const std::string problem = check_scalar(element_kind(field.kind), field.constraint, value.array()[i]);
        if (!problem.empty()) {
          return join("must be ", kind_text(field.kind), "; element ", i + 1, " ", problem);
        }
      }
      return "";
    }
    case FieldKind::kStringMap: {
      if (!value.is(Value::Kind::kTable)) {
        return join("must be a table of strings, found ", value.describe());
      }
      for (const Value::Entry& entry : value.table()) {
        const std::string problem = check_scalar(FieldKind::kString, field.constraint, entry.value);
        if (!problem.empty()) {
          return join("must be a table of strings; its key ", entry.key, " ", problem);
        }
      }
      return "";
    }
    default:
      return check_scalar(field.kind, field.constraint, value);
  }
}

}  // namespace blockstate::config
