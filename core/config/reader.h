// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "core/config/visitor.h"

namespace blockstate::config {

/// Fills the visited struct from a table and collects every mistake on the way.
class Reader : public Visitor {
 public:
  explicit Reader(const Value& table);
  /// Throws one Error with a line for each mistake, in the order of the file; nothing if there were none.
  void finish();

  void tables(std::string_view name, Value::Table& value, std::string_view doc) override;
  void check(std::string_view name, bool holds, std::string_view problem) override;

 protected:
  void on_field(const Field& field) override;
  bool wants_section(std::string_view name, bool present) override;
  bool open_section(std::string_view name, std::string_view doc, SectionState state) override;
  void close_section() override;
  std::vector<NamedSection> list_sections(const std::vector<std::string>& present,
                                          const std::vector<std::string>& examples) override;
  void guarded(const std::string& name, const std::function<void()>& body) override;

 private:
  struct Level {
    const Value* table = nullptr;  ///< null where the file has none
    std::string path;              ///< "train."; "" at the top
    bool example = false;          ///< visited only to learn which keys there are
    bool failed = false;           ///< a key of this level, or below it, could not be read
    std::vector<std::string> known;
  };
  struct Mistake {
    Location where;
    std::string text;
  };
  struct Unknown {
    Location where;
    std::string path;
    std::string key;
    std::vector<std::string> known;  ///< keys of its level
  };

  Level& level() { return levels_.back(); }
  /// Marks `name` as known here and finds it in the file; null if absent.
  const Value* find(std::string_view name);
  Location location_of(std::string_view name);
  void report(const Location& where, std::string text);
  void list_unknown();
  std::string suggestion(const Unknown& unknown) const;

  const Value& root_;
  std::vector<Level> levels_;
  std::vector<Mistake> mistakes_;
  std::vector<Unknown> unknown_;
  std::vector<std::string> all_keys_;  ///< full names of all keys there are
};

}  // namespace blockstate::config
