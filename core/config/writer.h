// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "core/config/visitor.h"

namespace blockstate::config {

/// Writes the visited struct into a table.
class Writer : public Visitor {
 public:
  explicit Writer(Value& table) : open_{&table} {}

  void tables(std::string_view name, Value::Table& value, std::string_view doc) override;

 protected:
  void on_field(const Field& field) override;
  bool open_section(std::string_view name, std::string_view doc, SectionState state) override;
  void close_section() override { open_.pop_back(); }
  std::vector<NamedSection> list_sections(const std::vector<std::string>& present,
                                          const std::vector<std::string>& examples) override;

 private:
  std::vector<Value*> open_;  ///< the table and the sections open in it; a parent does not grow while its child is open
};

}  // namespace blockstate::config
