// SPDX-License-Identifier: Apache-2.0
#include <functional>
#include <map>

#include "apps/report/compare_report.h"
#include "apps/report/curves.h"
#include "apps/report/html_table.h"
#include "apps/report/page_text.h"
#include "apps/report/summary.h"
#include "apps/report/write_file.h"
#include "core/base/check.h"

namespace blockstate::apps {
namespace {

/// Replaces each {{name}} of `page`. What is put in is not looked at again, so no text of the user's can name a place.
std::string fill(std::string_view page, const std::map<std::string, std::string, std::less<>>& parts) {
  std::string filled;
  while (true) {
    const size_t begin = page.find("{{");
    const size_t end = page.find("}}", begin);
    if (begin == std::string_view::npos || end == std::string_view::npos) {
      return filled.append(page);
    }
    const std::string_view name = page.substr(begin + 2, end - begin - 2);
    const auto part = parts.find(name);
    require(part != parts.end(), "the page names a part {{", name, "}} that nobody provides");
    filled.append(page.substr(0, begin)).append(part->second);
    page.remove_prefix(end + 2);
  }
}

std::string facts(const Comparison& comparison) {
  std::string text;
  const auto add = [&](const char* name, const std::string& value) {
    text += value.empty() ? "" : join("<div><dt>", name, "</dt><dd>", escape_html(value), "</dd></div>");
  };
  add("Task", comparison.task);
  add("Metric",
      comparison.metric.empty()
          ? ""
          : join(comparison.metric, comparison.higher_is_better ? " (higher is better)" : " (lower is better)"));
  add("Data", comparison.data);
  add("Budget", comparison.budget);
  return text;
}

std::string note(const Comparison& comparison) {
  const std::vector<VariantSummary> variants = summarize(comparison);
  return join("Final values on held-out data", most_runs(variants) > 1 ? "; means over seeds" : "",
              variants.size() > 1 ? "; &#9733; marks the best of a column" : "", ".");
}

std::string settings(const Comparison& comparison) {
  return comparison.settings.empty() ? ""
                                     : join("<details><summary>Run settings</summary><pre><code>",
                                            escape_html(comparison.settings), "</code></pre></details>");
}

}  // namespace

std::string html_text(const Comparison& comparison) {
  const std::string title = comparison.title.empty() ? "Comparison" : comparison.title;
  const std::string summary = headline(comparison);
  return fill(kPageHtml,
              {{"title", escape_html(title)},
               {"css", std::string(kPageCss)},
               {"headline", summary.empty() ? "" : join("<p class=\"headline\">", escape_html(summary), "</p>")},
               {"facts", facts(comparison)},
               {"variants", html_variants(comparison)},
               {"note", note(comparison)},
               {"runs", comparison.runs.empty() ? ""
                                                : join("<details><summary>Every run</summary><div class=\"scroll\">",
                                                       html_runs(comparison), "</div></details>")},
               {"settings", settings(comparison)},
               {"data", page_data(comparison)},
               {"chart_js_license", std::string(kChartJsLicense)},
               {"chart_js", std::string(kChartJs)},
               {"js", std::string(kPageJs)}});
}

void write_html(const Comparison& comparison, const std::string& path) { write_file(path, html_text(comparison)); }

}  // namespace blockstate::apps
