// SPDX-License-Identifier: Apache-2.0
// The runs of a comparison, gathered by variant.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "apps/report/compare_report.h"

namespace blockstate::apps {

/// Over the finite ones of a variant's values.
struct Spread {
  double mean = kUnknown;
  double least = kUnknown;
  double most = kUnknown;
  int64_t count = 0;
};

struct VariantSummary {
  std::string name;
  std::vector<const ComparisonRun*> runs;
  Spread parameters;
  Spread loss;
  Spread metric;
  Spread tokens_per_second;
  Spread peak_memory;
  Spread seconds;
};

/// In order of first appearance. Points into `comparison`.
std::vector<VariantSummary> summarize(const Comparison& comparison);

/// For each variant whether its mean is the best; nowhere true if fewer than two are finite or all are equal.
std::vector<bool> best_of(const std::vector<VariantSummary>& variants, Spread VariantSummary::*column,
                          bool higher_is_better);

/// A column of the table.
struct Column {
  std::string title;
  Spread VariantSummary::*values;
  enum class Order { kNone, kLess, kMore } better;  ///< which values are best, if any are
  std::string (*format)(double mean);
};

/// parameters, loss, the metric, tokens/s, peak memory, time
std::array<Column, 6> columns_of(const Comparison& comparison);

/// Which cells to mark, [column][variant].
std::vector<std::vector<bool>> marks_of(const Comparison& comparison, const std::vector<VariantSummary>& variants);

/// "0.951..0.970" with the decimals of `mean`; "" for fewer than two runs.
std::string range_text(const Spread& spread);
/// The largest number of runs a variant has.
int64_t most_runs(const std::vector<VariantSummary>& variants);

}  // namespace blockstate::apps
