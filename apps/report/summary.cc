// SPDX-License-Identifier: Apache-2.0
#include "apps/report/summary.h"

#include <algorithm>
#include <cmath>

#include "apps/format.h"
#include "core/base/check.h"

namespace blockstate::apps {
namespace {

constexpr int kDigits = 4;
constexpr size_t kMostNamed = 4;  // in a sentence

template <class Value>
Spread spread_of(const std::vector<const ComparisonRun*>& runs, const Value& value_of) {
  Spread spread;
  double sum = 0;
  for (const ComparisonRun* run : runs) {
    const double value = value_of(*run);
    if (std::isfinite(value)) {
      spread.least = spread.count == 0 ? value : std::min(spread.least, value);
      spread.most = spread.count == 0 ? value : std::max(spread.most, value);
      sum += value;
      ++spread.count;
    }
  }
  if (spread.count > 0) {
    spread.mean = sum / static_cast<double>(spread.count);
  }
  return spread;
}

/// A measurement of 0 (memory where the system does not tell it) is none.
double known(int64_t value) { return value > 0 ? static_cast<double>(value) : kUnknown; }

std::string count_text(double mean) { return std::isfinite(mean) ? format_count(std::llround(mean)) : "n/a"; }
std::string bytes_text(double mean) { return std::isfinite(mean) ? format_bytes(std::llround(mean)) : "n/a"; }
std::string figure_text(double mean) { return format_significant(mean, kDigits); }

std::string list_text(const std::vector<std::string>& items) {
  std::string text;
  const size_t named = items.size() <= kMostNamed ? items.size() : kMostNamed - 1;
  for (size_t i = 0; i < named; ++i) {
    text += join(i == 0 ? "" : i + 1 == items.size() ? " and " : ", ", items[i]);
  }
  text += named < items.size() ? join(" and ", items.size() - named, " more") : "";
  return text;
}

}  // namespace

std::vector<VariantSummary> summarize(const Comparison& comparison) {
  std::vector<VariantSummary> variants;
  for (const ComparisonRun& run : comparison.runs) {
    auto at = std::find_if(variants.begin(), variants.end(),
                           [&](const VariantSummary& variant) { return variant.name == run.variant; });
    if (at == variants.end()) {
      variants.emplace_back();
      at = variants.end() - 1;
      at->name = run.variant;
    }
    at->runs.push_back(&run);
  }
  for (VariantSummary& variant : variants) {
    variant.parameters = spread_of(variant.runs, [](const ComparisonRun& run) { return known(run.parameters); });
    variant.loss = spread_of(variant.runs, [](const ComparisonRun& run) { return run.loss; });
    variant.metric = spread_of(variant.runs, [](const ComparisonRun& run) { return run.metric; });
    variant.tokens_per_second = spread_of(variant.runs, [](const ComparisonRun& run) { return run.tokens_per_second; });
    variant.peak_memory =
        spread_of(variant.runs, [](const ComparisonRun& run) { return known(run.peak_memory_bytes); });
    variant.seconds = spread_of(variant.runs, [](const ComparisonRun& run) { return run.seconds; });
  }
  return variants;
}

std::vector<bool> best_of(const std::vector<VariantSummary>& variants, Spread VariantSummary::*column,
                          bool higher_is_better) {
  std::vector<double> finite;
  for (const VariantSummary& variant : variants) {
    if ((variant.*column).count > 0) {
      finite.push_back((variant.*column).mean);
    }
  }
  std::vector<bool> best(variants.size(), false);
  if (finite.size() < 2) {
    return best;
  }
  const auto [least, most] = std::minmax_element(finite.begin(), finite.end());
  const double wanted = higher_is_better ? *most : *least;
  for (size_t i = 0; i < variants.size(); ++i) {
    best[i] = *least < *most && (variants[i].*column).mean == wanted;
  }
  return best;
}

std::array<Column, 6> columns_of(const Comparison& comparison) {
  using Order = Column::Order;
  return {{{"parameters", &VariantSummary::parameters, Order::kNone, count_text},
           {"loss", &VariantSummary::loss, Order::kLess, figure_text},
           {comparison.metric.empty() ? "metric" : comparison.metric, &VariantSummary::metric,
            comparison.higher_is_better ? Order::kMore : Order::kLess, figure_text},
           {"tokens/s", &VariantSummary::tokens_per_second, Order::kMore, count_text},
           {"peak memory", &VariantSummary::peak_memory, Order::kLess, bytes_text},
           {"time", &VariantSummary::seconds, Order::kLess, format_duration}}};
}

std::vector<std::vector<bool>> marks_of(const Comparison& comparison, const std::vector<VariantSummary>& variants) {
  std::vector<std::vector<bool>> marks;
  for (const Column& column : columns_of(comparison)) {
    marks.push_back(column.better == Column::Order::kNone
                        ? std::vector<bool>(variants.size(), false)
                        : best_of(variants, column.values, column.better == Column::Order::kMore));
  }
  return marks;
}

std::string range_text(const Spread& spread) {
  const int decimals = decimals_for(spread.mean, kDigits);
  return spread.count < 2 ? "" : join(format_fixed(spread.least, decimals), "..", format_fixed(spread.most, decimals));
}

int64_t most_runs(const std::vector<VariantSummary>& variants) {
  size_t most = 0;
  for (const VariantSummary& variant : variants) {
    most = std::max(most, variant.runs.size());
  }
  return static_cast<int64_t>(most);
}

std::string headline(const Comparison& comparison) {
  const std::vector<VariantSummary> variants = summarize(comparison);
  std::vector<const VariantSummary*> order;
  for (const VariantSummary& variant : variants) {
    if (variant.metric.count > 0) {
      order.push_back(&variant);
    }
  }
  if (order.empty()) {
    return "";
  }
  const auto better = [&](double a, double b) { return comparison.higher_is_better ? a > b : a < b; };
  std::stable_sort(order.begin(), order.end(), [&](const VariantSummary* a, const VariantSummary* b) {
    return better(a->metric.mean, b->metric.mean);
  });
  const std::string metric = columns_of(comparison)[2].title;
  const VariantSummary& winner = *order.front();
  const std::string range = range_text(winner.metric);
  const std::string figure = join(figure_text(winner.metric.mean),
                                  range.empty() ? "" : join(" (", range, " over ", winner.metric.count, " seeds)"));
  if (order.size() == 1) {
    return join(winner.name, " reaches ", metric, " ", figure, ".");
  }
  std::vector<std::string> others;
  std::vector<std::string> in_doubt;
  for (size_t i = 1; i < order.size(); ++i) {
    const Spread& other = order[i]->metric;
    others.push_back(join(order[i]->name, " ", figure_text(other.mean)));
    const bool overlaps =
        comparison.higher_is_better ? other.most >= winner.metric.least : other.least <= winner.metric.most;
    if (overlaps) {
      in_doubt.push_back(order[i]->name);
    }
  }
  std::string text = join(winner.name, " has the best ", metric, ", ", figure, "; ", list_text(others), ".");
  if (!in_doubt.empty()) {
    text += range.empty() ? join(" It is level with ", list_text(in_doubt), ".")
                          : join(" Its range over seeds overlaps that of ", list_text(in_doubt), ".");
  } else if (range.empty()) {
    text += " One seed each: the differences may be chance.";
  }
  return text;
}

}  // namespace blockstate::apps
