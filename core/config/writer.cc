// SPDX-License-Identifier: Apache-2.0
#include "core/config/writer.h"

namespace blockstate::config {

void Writer::on_field(const Field& field) {
  if (std::optional<Value> value = field.get()) {
    open_.back()->set(field.name, std::move(*value));
  }
}

void Writer::tables(std::string_view name, Value::Table& value, std::string_view doc) {
  open_.back()->set(name, Value(value));
}

bool Writer::open_section(std::string_view name, std::string_view doc, SectionState state) {
  if (state == SectionState::kAbsent) {
    return false;
  }
  open_.push_back(&open_.back()->set(name, Value()));
  return true;
}

std::vector<Visitor::NamedSection> Writer::list_sections(const std::vector<std::string>& present,
                                                         const std::vector<std::string>& examples) {
  std::vector<NamedSection> sections;
  for (const std::string& name : present) {
    sections.push_back({name, SectionState::kPresent});
  }
  return sections;
}

}  // namespace blockstate::config
