// SPDX-License-Identifier: Apache-2.0
// How a config struct describes itself, once. From that one description come reading with defaults and checks
// (config::read), the resolved config (config::write) and the help text (config::help).
//
//   struct TrainConfig {
//     int64_t steps = 1000;
//     std::string schedule = "cosine";
//     void visit(config::Visitor& v) {
//       v.field("steps", steps, "optimiser steps to take", config::at_least(1));
//       v.field("schedule", schedule, "learning rate after the warm-up", config::one_of({"constant", "cosine"}));
//     }
//   };
//
// The values the members have before `visit` are the defaults.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/config/field.h"
#include "core/config/value.h"

namespace blockstate::config {

/// Tables of the user's own names, such as [model.NAME].
template <class T>
struct NamedSections {
  std::string doc;
  /// Defaults of the section of that name. May throw Error if the name cannot be used; the Reader adds file and line.
  std::function<T(const std::string& name)> make = [](const std::string&) { return T{}; };
  /// Names shown by the help, each with its defaults.
  std::vector<std::string> examples = {"NAME"};
};

class Visitor {
 public:
  virtual ~Visitor() = default;

  /// A key. T: int64_t, double, bool, std::string, std::vector of the first, second and fourth, std::optional of any of
  /// these (absent key: no value), std::map<std::string, std::string> (a table of strings).
  template <class T>
  void field(std::string_view name, T& value, std::string_view doc, const Constraint& constraint = {}) {
    on_field(make_field(name, value, doc, constraint));
  }

  /// An integer key that also takes words, each of which stands for an integer of its own.
  void field(std::string_view name, int64_t& value, std::string_view doc, const Constraint& constraint,
             const EnumNames<int64_t>& words) {
    on_field(make_word_field(name, value, doc, constraint, words));
  }

  /// A key whose values are the names of an enum.
  template <class E>
  void field(std::string_view name, E& value, std::string_view doc, const EnumNames<E>& names) {
    on_field(make_enum_field(name, value, doc, names));
  }

  /// A table with keys of its own: [name]. T has a member `void visit(Visitor&)`.
  template <class T>
  void section(std::string_view name, T& value, std::string_view doc) {
    if (open_section(name, doc, SectionState::kPresent)) {
      value.visit(*this);
      close_section();
    }
  }

  /// A table that may be left out; `value` then stays empty.
  template <class T>
  void section(std::string_view name, std::optional<T>& value, std::string_view doc) {
    const bool wanted = wants_section(name, value.has_value());
    T contents = value.value_or(T{});
    if (open_section(name, doc, wanted ? SectionState::kPresent : SectionState::kAbsent)) {
      contents.visit(*this);
      close_section();
    }
    if (wanted) {
      value = std::move(contents);
    }
  }

  /// Every further table at this level: [this.NAME], NAME chosen by the user. To be called after the level's fields
  /// and sections, whose names are taken. Sections already in `sections` are defaults.
  template <class T>
  void named_sections(std::map<std::string, T>& sections, const NamedSections<T>& options) {
    std::vector<std::string> present;
    for (const auto& [name, section] : sections) {
      present.push_back(name);
    }
    for (const NamedSection& found : list_sections(present, options.examples)) {
      guarded(found.name, [&] {
        const auto at = sections.find(found.name);
        T contents = at != sections.end() ? at->second : options.make(found.name);
        if (open_section(found.name, options.doc, found.state)) {
          contents.visit(*this);
          close_section();
        }
        if (found.state == SectionState::kPresent) {
          sections.insert_or_assign(found.name, std::move(contents));
        }
      });
    }
  }

  /// A table of tables whose contents are not looked at: [name.NAME] holds overrides, say. In the order of the file.
  virtual void tables(std::string_view name, Value::Table& value, std::string_view doc) = 0;

  /// A rule between keys, e.g. v.check("warmup", warmup <= steps, "must be at most train.steps"). `problem` follows the
  /// key's full name. Not judged where a key of the level could not be read.
  virtual void check(std::string_view name, bool holds, std::string_view problem) {}

 protected:
  enum class SectionState { kPresent, kAbsent };
  struct NamedSection {
    std::string name;
    SectionState state;
  };

  virtual void on_field(const Field& field) = 0;
  /// Whether an optional section's contents count, given whether it has any so far.
  virtual bool wants_section(std::string_view name, bool present) { return present; }
  /// Whether to visit the contents; if so, close_section follows. kAbsent: the contents are a mere example.
  virtual bool open_section(std::string_view name, std::string_view doc, SectionState state) = 0;
  virtual void close_section() = 0;
  virtual std::vector<NamedSection> list_sections(const std::vector<std::string>& present,
                                                  const std::vector<std::string>& examples) = 0;
  /// Runs `body`, which deals with the section `name` and may throw Error.
  virtual void guarded(const std::string& name, const std::function<void()>& body) { body(); }
};

}  // namespace blockstate::config
