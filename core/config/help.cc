// SPDX-License-Identifier: Apache-2.0
#include "core/config/help.h"

#include <algorithm>

#include "core/base/check.h"

namespace blockstate::config {
namespace {

constexpr size_t kPageWidth = 110;
constexpr size_t kWidestSetting = 36;  // longer ones have their comment on the lines above

std::vector<std::string> wrap(const std::string& text, size_t width) {
  std::vector<std::string> lines = {""};
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    if (!lines.back().empty() && lines.back().size() + 1 + word.size() > width) {
      lines.emplace_back();
    }
    lines.back() += join(lines.back().empty() ? "" : " ", word);
    at = end + 1;
  }
  return lines;
}

std::string without_article(const std::string& text) {
  return text.rfind("an ", 0) == 0 ? text.substr(3) : text.rfind("a ", 0) == 0 ? text.substr(2) : text;
}

std::string facts(const Field& field, bool has_value) {
  std::string text;
  if (field.constraint.choices.empty()) {
    const std::string limits = field.constraint.text();
    text = join(without_article(kind_text(field.kind)), limits.empty() ? "" : ", ", limits);
  } else {
    for (const std::string& choice : field.constraint.choices) {
      text += join(text.empty() ? "" : " | ", choice.empty() ? "\"\"" : choice);
    }
  }
  return join(text, field.constraint.required ? "; required" : has_value ? "" : "; not set");
}

}  // namespace

Help::Help() : open_{&root_} {}

std::string Help::text() const {
  std::string out;
  print(root_, false, out);
  return out;
}

void Help::on_field(const Field& field) {
  const std::optional<Value> value = field.get();
  Line line;
  line.setting = value ? join(field.name, " = ", to_inline_toml(*value)) : join("# ", field.name, " =");
  line.comment = join(field.doc, " (", facts(field, value.has_value()), ")");
  open_.back()->lines.push_back(std::move(line));
}

void Help::tables(std::string_view name, Value::Table& value, std::string_view doc) {
  open_.back()->lines.push_back(
      {join(name, " = ", to_inline_toml(Value(value))), join(doc, " (", name, ".NAME = table)")});
}

bool Help::open_section(std::string_view name, std::string_view doc, SectionState state) {
  auto section = std::make_unique<Section>();
  section->path = join(open_.back()->path, open_.back()->path.empty() ? "" : ".", name);
  section->doc = doc;
  section->commented = open_.back()->commented || state == SectionState::kAbsent;
  open_.back()->children.push_back(std::move(section));
  open_.push_back(open_.back()->children.back().get());
  return true;
}

std::vector<Visitor::NamedSection> Help::list_sections(const std::vector<std::string>& present,
                                                       const std::vector<std::string>& examples) {
  std::vector<NamedSection> sections;
  for (const std::string& name : present) {
    sections.push_back({name, SectionState::kPresent});
  }
  for (const std::string& name : examples) {
    if (std::find(present.begin(), present.end(), name) == present.end()) {
      sections.push_back({name, SectionState::kAbsent});
    }
  }
  return sections;
}

void Help::print(const Section& section, bool with_doc, std::string& out) {
  const std::string mark = section.commented ? "# " : "";
  if (!section.path.empty()) {
    out += out.empty() ? "" : "\n";
    for (const std::string& line : wrap(with_doc ? section.doc : "", kPageWidth - 2)) {
      out += line.empty() ? "" : join("# ", line, "\n");
    }
    out += join(mark, "[", section.path, "]\n");
  }
  size_t column = 0;
  for (const Line& line : section.lines) {
    if (line.setting.size() <= kWidestSetting) {
      column = std::max(column, line.setting.size());
    }
  }
  for (const Line& line : section.lines) {
    // A setting that is a comment already needs no second mark.
    const std::string setting = line.setting.front() == '#' ? line.setting : mark + line.setting;
    const size_t indent = mark.size() + column + 2;
    if (line.setting.size() > kWidestSetting) {
      for (const std::string& text : wrap(line.comment, kPageWidth - 2)) {
        out += join("# ", text, "\n");
      }
      out += join(setting, "\n");
      continue;
    }
    std::string start = setting;
    for (const std::string& text : wrap(line.comment, kPageWidth - indent - 2)) {
      start.resize(indent, ' ');
      out += join(start, "# ", text, "\n");
      start = std::string(section.commented ? 1 : 0, '#');
    }
  }
  for (size_t i = 0; i < section.children.size(); ++i) {
    const Section& child = *section.children[i];
    print(child, i == 0 || child.doc != section.children[i - 1]->doc, out);
  }
}

}  // namespace blockstate::config
