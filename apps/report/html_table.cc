// SPDX-License-Identifier: Apache-2.0
#include "apps/report/html_table.h"

#include <algorithm>
#include <cmath>

#include "apps/format.h"
#include "apps/report/summary.h"
#include "core/base/check.h"

namespace blockstate::apps {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

/// Length of the UTF-8 character at the start of `text`; 0 if there is none.
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  const size_t length = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
  if (length == 0 || length > text.size()) {
    return 0;
  }
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) {
      return 0;
    }
  }
  // Overlong forms, surrogates and what lies beyond U+10FFFF.
  if (length > 2) {
    const unsigned char second = byte(1);
    if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) || (lead == 0xF0 && second < 0x90) ||
        (lead == 0xF4 && second > 0x8F)) {
      return 0;
    }
  }
  return length;
}

/// Where `value` lies between the least and the most of all variants, in per cent.
double place(double value, double least, double most) {
  return most > least ? 100 * (value - least) / (most - least) : 50;
}

/// A bar from least to most with a dot at the mean, on the scale of all variants.
std::string range_bar(const Spread& spread, double least, double most) {
  if (spread.count == 0) {
    return "";
  }
  const auto percent = [&](double value) { return join(format_fixed(place(value, least, most), 1), "%"); };
  const double width = place(spread.most, least, most) - place(spread.least, least, most);
  return join("<span class=\"range\" aria-hidden=\"true\"><i style=\"left:", percent(spread.least),
              ";width:", format_fixed(width, 1), "%\"></i><b style=\"left:", percent(spread.mean), "\"></b></span>");
}

std::string cell(const std::string& label, const std::string& content, bool best) {
  return join("<td data-label=\"", escape_html(label), "\"", best ? " class=\"best\"" : "", "><span>", content,
              best ? "<span class=\"star\" title=\"best of its column\">&#9733;</span>" : "", "</span></td>");
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string escaped;
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    const char c = text.front();
    const bool is_control = (c >= 0 && c < 0x20 && c != '\n' && c != '\t') || c == 0x7F;
    if (length == 0 || is_control) {
      escaped += c == '\r' ? "" : kReplacement;
    } else if (length > 1) {
      escaped += text.substr(0, length);
    } else if (c == '&') {
      escaped += "&amp;";
    } else if (c == '<') {
      escaped += "&lt;";
    } else if (c == '>') {
      escaped += "&gt;";
    } else if (c == '"') {
      escaped += "&quot;";
    } else if (c == '\'') {
      escaped += "&#39;";
    } else {
      escaped += c;
    }
    text.remove_prefix(std::max<size_t>(1, length));
  }
  return escaped;
}

std::string html_variants(const Comparison& comparison) {
  const std::vector<VariantSummary> variants = summarize(comparison);
  if (variants.empty()) {
    return "<p>No runs to compare.</p>";
  }
  const auto columns = columns_of(comparison);
  const auto marks = marks_of(comparison, variants);
  const bool has_seeds = most_runs(variants) > 1;
  double least = INFINITY;
  double most = -INFINITY;
  for (const VariantSummary& variant : variants) {
    if (variant.metric.count > 0) {
      least = std::min(least, variant.metric.least);
      most = std::max(most, variant.metric.most);
    }
  }
  std::string text = "<table class=\"variants\"><thead><tr><th scope=\"col\">variant</th>";
  for (const Column& column : columns) {
    text += join("<th scope=\"col\">", escape_html(column.title), "</th>");
    text +=
        has_seeds && column.values == &VariantSummary::metric ? "<th scope=\"col\" class=\"wide\">over seeds</th>" : "";
  }
  text += "</tr></thead>\n<tbody>\n";
  for (size_t v = 0; v < variants.size(); ++v) {
    const VariantSummary& variant = variants[v];
    text += join("<tr class=\"v", v % 8, "\"><th scope=\"row\"><span class=\"swatch\"></span>",
                 escape_html(variant.name), "</th>");
    for (size_t c = 0; c < columns.size(); ++c) {
      text += cell(columns[c].title, columns[c].format((variant.*columns[c].values).mean), marks[c][v]);
      if (has_seeds && columns[c].values == &VariantSummary::metric) {
        const std::string range = range_text(variant.metric);
        text += join("<td class=\"wide\" data-label=\"over seeds\"><span>", range_bar(variant.metric, least, most),
                     "<small>", variant.metric.count == 1 ? "one run" : range, "</small></span></td>");
      }
    }
    text += "</tr>\n";
  }
  return text + "</tbody></table>";
}

std::string html_runs(const Comparison& comparison) {
  const auto columns = columns_of(comparison);
  std::string text = "<table class=\"runs\"><thead><tr><th scope=\"col\">variant</th><th scope=\"col\">seed</th>";
  for (const Column& column : columns) {
    text += join("<th scope=\"col\">", escape_html(column.title), "</th>");
  }
  text += "</tr></thead>\n<tbody>\n";
  for (const ComparisonRun& run : comparison.runs) {
    Comparison alone;
    alone.runs.push_back(run);
    const VariantSummary summary = summarize(alone).front();
    text += join("<tr><th scope=\"row\">", escape_html(run.variant), "</th>", cell("seed", join(run.seed), false));
    for (const Column& column : columns) {
      text += cell(column.title, column.format((summary.*column.values).mean), false);
    }
    text += "</tr>\n";
  }
  return text + "</tbody></table>";
}

}  // namespace blockstate::apps
