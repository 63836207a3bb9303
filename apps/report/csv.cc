// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <charconv>
#include <cmath>

#include "apps/report/compare_report.h"
#include "apps/report/write_file.h"
#include "core/base/check.h"

namespace blockstate::apps {
namespace {

std::string field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) {
    return text;
  }
  std::string quoted = "\"";
  for (const char c : text) {
    quoted += c == '"' ? "\"\"" : std::string(1, c);
  }
  return quoted + '"';
}

std::string field(double value) {
  if (!std::isfinite(value)) {
    return "";
  }
  std::array<char, 40> text{};
  const auto [end, status] = std::to_chars(text.data(), text.data() + text.size(), value);
  return {text.data(), end};
}

}  // namespace

std::string csv_text(const Comparison& comparison) {
  std::string text =
      join("variant,seed,parameters,loss,", field(comparison.metric.empty() ? "metric" : comparison.metric),
           ",tokens_per_second,peak_memory_bytes,seconds\n");
  for (const ComparisonRun& run : comparison.runs) {
    text += join(field(run.variant), ",", run.seed, ",", run.parameters, ",", field(run.loss), ",", field(run.metric),
                 ",", field(run.tokens_per_second), ",", run.peak_memory_bytes, ",", field(run.seconds), "\n");
  }
  return text;
}

void write_csv(const Comparison& comparison, const std::string& path) { write_file(path, csv_text(comparison)); }

}  // namespace blockstate::apps
