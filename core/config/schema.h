// SPDX-License-Identifier: Apache-2.0
// Config structs in and out of files. A struct describes itself by a member `void visit(Visitor&)` (visitor.h).
#pragma once

#include <string>

#include "core/config/help.h"
#include "core/config/reader.h"
#include "core/config/value.h"
#include "core/config/writer.h"

namespace blockstate::config {

/// Reads `config` from `table`; keys that are absent keep the values `config` has. All mistakes are reported in one
/// Error, a line each: a wrong type, a value out of its limits, an unknown key (with the nearest known one), a required
/// key that is missing, a rule between keys that is broken. `config` is only changed if there are none.
template <class T>
void read(const Value& table, T& config) {
  T result = config;
  Reader reader(table);
  result.visit(reader);
  reader.finish();
  config = std::move(result);
}

/// The whole of `config`, defaults included, as read() takes it; optional keys and sections without a value are left
/// out.
template <class T>
Value write(const T& config) {
  T copy = config;
  Value table;
  Writer writer(table);
  copy.visit(writer);
  return table;
}

/// Every key with its default, limits and meaning, as a TOML file: what is optional stands in comments, and reading the
/// rest gives `defaults` again.
template <class T>
std::string help(const T& defaults = {}) {
  T copy = defaults;
  Help visitor;
  copy.visit(visitor);
  return visitor.text();
}

}  // namespace blockstate::config
