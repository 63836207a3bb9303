// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "apps/format.h"
#include "apps/report/compare_report.h"
#include "apps/report/summary.h"
#include "core/base/check.h"

namespace blockstate::apps {
namespace {

/// Rows of cells; the first column is set flush left, the others flush right.
std::string aligned(const std::vector<std::vector<std::string>>& rows) {
  std::vector<int64_t> widths(rows.front().size(), 0);
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], display_width(row[i]));
    }
  }
  std::string text;
  for (size_t r = 0; r < rows.size(); ++r) {
    std::string line;
    std::string rule;
    for (size_t i = 0; i < widths.size(); ++i) {
      line += i == 0 ? pad_right(rows[r][i], widths[i]) : join("  ", pad_left(rows[r][i], widths[i]));
      rule += join(i == 0 ? "" : "  ", std::string(static_cast<size_t>(widths[i]), '-'));
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += join(line, "\n", r == 0 ? join(rule, "\n") : "");
  }
  return text;
}

std::string facts(const Comparison& comparison) {
  std::string text;
  const auto add = [&](const char* name, const std::string& value) {
    text += value.empty() ? "" : join("  ", pad_right(name, 8), value, "\n");
  };
  add("task", comparison.task);
  add("data", comparison.data);
  add("budget", comparison.budget);
  return text;
}

}  // namespace

std::string terminal_table(const Comparison& comparison) {
  const std::vector<VariantSummary> variants = summarize(comparison);
  std::string text = comparison.title.empty() ? "" : join(comparison.title, "\n");
  text += facts(comparison);
  text += text.empty() ? "" : "\n";
  if (variants.empty()) {
    return text + "No runs to compare.\n";
  }
  const auto columns = columns_of(comparison);
  const auto marks = marks_of(comparison, variants);
  const bool has_seeds = most_runs(variants) > 1;
  std::vector<std::vector<std::string>> rows(variants.size() + 1);
  rows[0].push_back("variant");
  for (size_t v = 0; v < variants.size(); ++v) {
    rows[v + 1].push_back(variants[v].name);
  }
  bool any_mark = false;
  for (size_t c = 0; c < columns.size(); ++c) {
    const bool marked = std::find(marks[c].begin(), marks[c].end(), true) != marks[c].end();
    any_mark = any_mark || marked;
    // A blank where others have their mark keeps the digits below each other.
    rows[0].push_back(join(columns[c].title, marked ? " " : ""));
    for (size_t v = 0; v < variants.size(); ++v) {
      const std::string cell = columns[c].format((variants[v].*columns[c].values).mean);
      rows[v + 1].push_back(join(cell, !marked ? "" : marks[c][v] ? "*" : " "));
    }
    if (has_seeds && columns[c].values == &VariantSummary::metric) {
      rows[0].push_back("over seeds");
      for (size_t v = 0; v < variants.size(); ++v) {
        rows[v + 1].push_back(range_text(variants[v].metric));
      }
    }
  }
  text += aligned(rows);
  text += any_mark ? "* best of its column\n" : "";
  for (const VariantSummary& variant : variants) {
    const auto lost = static_cast<int64_t>(variant.runs.size()) - variant.metric.count;
    if (lost > 0 && variant.metric.count > 0) {
      text += join(variant.name, ": ", lost, " of ", variant.runs.size(), " seeds gave no finite ", columns[2].title,
                   "; the mean leaves them out\n");
    }
  }
  const std::string summary = headline(comparison);
  return text + (summary.empty() ? "" : join("\n", summary, "\n"));
}

}  // namespace blockstate::apps
