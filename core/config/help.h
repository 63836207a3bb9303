// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/config/visitor.h"

namespace blockstate::config {

/// Describes the visited struct as a commented TOML file.
class Help : public Visitor {
 public:
  Help();
  std::string text() const;

  void tables(std::string_view name, Value::Table& value, std::string_view doc) override;

 protected:
  void on_field(const Field& field) override;
  bool open_section(std::string_view name, std::string_view doc, SectionState state) override;
  void close_section() override { open_.pop_back(); }
  std::vector<NamedSection> list_sections(const std::vector<std::string>& present,
                                          const std::vector<std::string>& examples) override;

 private:
  struct Line {
    std::string setting;  ///< `steps = 1000`
    std::string comment;
  };
  /// Keys come before sections in a TOML table, in whatever order they were visited; so the text is written at the end.
  struct Section {
    std::string path;
    std::string doc;
    bool commented = false;
    std::vector<Line> lines;
    std::vector<std::unique_ptr<Section>> children;
  };

  static void print(const Section& section, bool with_doc, std::string& out);

  Section root_;
  std::vector<Section*> open_;
};

}  // namespace blockstate::config
