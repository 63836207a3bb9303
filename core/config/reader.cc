// SPDX-License-Identifier: Apache-2.0
#include "core/config/reader.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/config/nearest.h"

namespace blockstate::config {
namespace {

bool contains(const std::vector<std::string>& list, std::string_view text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

}  // namespace

Reader::Reader(const Value& table) : root_(table) {
  require(table.is(Value::Kind::kTable), table.where.prefix(), "wanted a table of settings, found ", table.describe());
  levels_.push_back({&table, "", false, false, {}});
}

void Reader::finish() {
  list_unknown();
  for (const Unknown& unknown : unknown_) {
    report(unknown.where, join("unknown key ", unknown.path, unknown.key, suggestion(unknown)));
  }
  if (mistakes_.empty()) {
    return;
  }
  // What stands in the file first, line by line; then overrides, which have no line.
  const auto rank = [&](const Mistake& mistake) {
    return mistake.where.file == root_.where.file ? mistake.where.line : INT64_MAX;
  };
  std::stable_sort(mistakes_.begin(), mistakes_.end(),
                   [&](const Mistake& a, const Mistake& b) { return rank(a) < rank(b); });
  std::string text;
  for (const Mistake& mistake : mistakes_) {
    text += join(text.empty() ? "" : "\n", mistake.where.prefix(), mistake.text);
  }
  throw Error(text);
}

void Reader::on_field(const Field& field) {
  const Value* value = find(field.name);
  if (value == nullptr) {
    if (field.constraint.required && !level().example) {
      report(location_of(field.name),
             join(level().path, field.name, " is missing: ", field.doc, ", ", kind_text(field.kind)));
    }
    return;
  }
  const std::string problem = check_field(field, *value);
  if (problem.empty()) {
    field.set(*value);
  } else {
    report(value->where, join(level().path, field.name, " ", problem));
  }
}

void Reader::tables(std::string_view name, Value::Table& value, std::string_view doc) {
  const Value* found = find(name);
  if (found == nullptr) {
    return;
  }
  if (!found->is(Value::Kind::kTable)) {
    report(found->where, join(level().path, name, " must be a table of tables, found ", found->describe()));
    return;
  }
  for (const Value::Entry& entry : found->table()) {
    if (!entry.value.is(Value::Kind::kTable)) {
      report(entry.value.where,
             join(level().path, name, ".", entry.key, " must be a table, found ", entry.value.describe()));
    }
  }
  value = found->table();
}

void Reader::check(std::string_view name, bool holds, std::string_view problem) {
  if (!holds && !level().failed && !level().example) {
    report(location_of(name), join(level().path, name, " ", problem));
  }
}

bool Reader::wants_section(std::string_view name, bool present) {
  return present || (level().table != nullptr && level().table->find(name) != nullptr);
}

bool Reader::open_section(std::string_view name, std::string_view doc, SectionState state) {
  const Value* table = find(name);
  const bool example = level().example || state == SectionState::kAbsent;
  bool failed = false;
  if (table != nullptr && !table->is(Value::Kind::kTable)) {
    report(table->where, join(level().path, name, " must be a table, found ", table->describe()));
    table = nullptr;
    failed = true;
  }
  levels_.push_back({table, join(level().path, name, "."), example || failed, failed, {}});
  return true;
}

void Reader::close_section() {
  list_unknown();
  const bool failed = level().failed;
  levels_.pop_back();
  level().failed = level().failed || failed;
}

std::vector<Visitor::NamedSection> Reader::list_sections(const std::vector<std::string>& present,
                                                         const std::vector<std::string>& examples) {
  std::vector<NamedSection> sections;
  std::vector<std::string> listed;
  const auto add = [&](const std::string& name, SectionState state) {
    if (!contains(level().known, name) && !contains(listed, name)) {
      sections.push_back({name, state});
      listed.push_back(name);
    }
  };
  if (level().table != nullptr) {
    for (const Value::Entry& entry : level().table->table()) {
      if (entry.value.is(Value::Kind::kTable)) {
        add(entry.key, SectionState::kPresent);
      }
    }
  }
  for (const std::string& name : present) {
    add(name, SectionState::kPresent);
  }
  for (const std::string& name : examples) {
    add(name, SectionState::kAbsent);
  }
  return sections;
}

void Reader::guarded(const std::string& name, const std::function<void()>& body) {
  const size_t depth = levels_.size();
  try {
    body();
  } catch (const Error& error) {
    levels_.resize(depth);
    report(location_of(name), join(level().path, name, ": ", error.what()));
    level().known.push_back(name);
  }
}

const Value* Reader::find(std::string_view name) {
  level().known.emplace_back(name);
  all_keys_.push_back(join(level().path, name));
  return level().table != nullptr ? level().table->find(name) : nullptr;
}

Location Reader::location_of(std::string_view name) {
  for (auto at = levels_.rbegin(); at != levels_.rend(); ++at) {
    if (at->table != nullptr) {
      const Value* value = at == levels_.rbegin() ? at->table->find(name) : nullptr;
      return value != nullptr ? value->where : at->table->where;
    }
  }
  return root_.where;
}

void Reader::report(const Location& where, std::string text) {
  level().failed = true;
  mistakes_.push_back({where, std::move(text)});
}

void Reader::list_unknown() {
  if (level().table == nullptr) {
    return;
  }
  for (const Value::Entry& entry : level().table->table()) {
    if (!contains(level().known, entry.key)) {
      unknown_.push_back({entry.value.where, level().path, entry.key, level().known});
      level().failed = true;
    }
  }
}

std::string Reader::suggestion(const Unknown& unknown) const {
  const std::string here = nearest(unknown.key, unknown.known);
  if (!here.empty()) {
    return join("; did you mean ", unknown.path, here, "?");
  }
  std::vector<std::string> last_parts;
  for (const std::string& key : all_keys_) {
    last_parts.push_back(key.substr(key.rfind('.') + 1));
  }
  const std::string anywhere = nearest(unknown.key, last_parts);
  if (!anywhere.empty()) {
    const auto at = std::find(last_parts.begin(), last_parts.end(), anywhere) - last_parts.begin();
    return join("; did you mean ", all_keys_[static_cast<size_t>(at)], "?");
  }
  std::string list;
  for (const std::string& key : unknown.known) {
    list += join(list.empty() ? "" : ", ", key);
  }
  const std::string place = unknown.path.empty() ? "" : unknown.path.substr(0, unknown.path.size() - 1);
  return list.empty() ? "" : join("; the keys of ", place.empty() ? "the top level" : place, " are ", list);
}

}  // namespace blockstate::config
