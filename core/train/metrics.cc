// SPDX-License-Identifier: Apache-2.0
#include "core/train/metrics.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <string_view>

#include "core/base/check.h"

namespace blockstate::train {
namespace {

using config::Value;

/// Calls body(positives, negatives) for each group of equal scores, from the highest on.
template <class Body>
void for_each_tie(const std::vector<double>& scores, const std::vector<uint8_t>& positive, const Body& body) {
  require(scores.size() == positive.size(), scores.size(), " scores for ", positive.size(), " labels");
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  for (size_t begin = 0; begin < order.size();) {
    int64_t hits = 0;
    size_t end = begin;
    for (; end < order.size() && scores[order[end]] == scores[order[begin]]; ++end) {
      hits += positive[order[end]];
    }
    body(hits, static_cast<int64_t>(end - begin) - hits);
    begin = end;
  }
}

void set_if_finite(Value& table, std::string_view key, const std::optional<double>& number) {
  if (number && std::isfinite(*number)) {
    table.set(key, Value(*number));
  }
}

}  // namespace

std::optional<double> area_under_roc(const std::vector<double>& scores, const std::vector<uint8_t>& positive) {
  double pairs_won = 0;
  int64_t positives = 0;
  int64_t negatives = 0;
  for_each_tie(scores, positive, [&](int64_t hits, int64_t misses) {
    // Each negative here loses against all positives above it, and draws with those of its own score.
    pairs_won += static_cast<double>(misses) * (static_cast<double>(positives) + 0.5 * static_cast<double>(hits));
    positives += hits;
    negatives += misses;
  });
  if (positives == 0 || negatives == 0) {
    return std::nullopt;
  }
  return pairs_won / (static_cast<double>(positives) * static_cast<double>(negatives));
}

std::optional<double> average_precision(const std::vector<double>& scores, const std::vector<uint8_t>& positive) {
  double sum = 0;
  int64_t positives = 0;
  int64_t seen = 0;
  for_each_tie(scores, positive, [&](int64_t hits, int64_t misses) {
    positives += hits;
    seen += hits + misses;
    sum += static_cast<double>(hits) * static_cast<double>(positives) / static_cast<double>(seen);
  });
  return positives == 0 ? std::nullopt : std::optional(sum / static_cast<double>(positives));
}

ClassificationMetrics::ClassificationMetrics(int64_t classes)
    : classes_(classes), confusion_(static_cast<size_t>(classes * classes), 0) {}

template <class T>
void ClassificationMetrics::add_rows(const Tensor& logits, const Tensor& targets) {
  const Tensor packed = logits.packed();
  const Tensor labels = targets.packed();
  for (int64_t row = 0; row < labels.elements(); ++row) {
    const int64_t truth = labels.data<int64_t>()[row];
    if (truth == -1) {
      continue;
    }
    require(truth >= 0 && truth < classes_, "target ", truth, " of row ", row, ", wanted a class below ", classes_);
    const T* values = packed.data<T>() + row * classes_;
    require(std::all_of(values, values + classes_, [](T value) { return std::isfinite(value); }), "the logits of row ",
            row, " are not finite: the model has diverged");
    const int64_t predicted = std::max_element(values, values + classes_) - values;
    ++confusion_[truth * classes_ + predicted];
    ++count_;
    if (classes_ == 2) {
      scores_.push_back(static_cast<double>(values[1]) - static_cast<double>(values[0]));
      positive_.push_back(static_cast<uint8_t>(truth));
    }
  }
}

void ClassificationMetrics::add(const Tensor& logits, const Tensor& targets) {
  Shape wanted = targets.shape();
  wanted.push_back(classes_);
  require(logits.shape() == wanted, "logits of shape ", shape_text(logits.shape()), " for targets of shape ",
          shape_text(targets.shape()), ", wanted ", shape_text(wanted));
  dispatch_float(logits.dtype(), "metrics", [&](auto type) { add_rows<decltype(type)>(logits, targets); });
}

int64_t ClassificationMetrics::of_class(int64_t label) const {
  int64_t sum = 0;
  for (int64_t other = 0; other < classes_; ++other) {
    sum += confusion(label, other);
  }
  return sum;
}

int64_t ClassificationMetrics::predicted_as(int64_t label) const {
  int64_t sum = 0;
  for (int64_t other = 0; other < classes_; ++other) {
    sum += confusion(other, label);
  }
  return sum;
}

std::optional<double> ClassificationMetrics::accuracy() const {
  if (count_ == 0) {
    return std::nullopt;
  }
  int64_t right = 0;
  for (int64_t label = 0; label < classes_; ++label) {
    right += confusion(label, label);
  }
  return static_cast<double>(right) / static_cast<double>(count_);
}

std::optional<double> ClassificationMetrics::f1(int64_t label) const {
  const int64_t both = of_class(label) + predicted_as(label);
  return both == 0 ? std::nullopt
                   : std::optional(2 * static_cast<double>(confusion(label, label)) / static_cast<double>(both));
}

std::optional<double> ClassificationMetrics::macro_f1() const {
  double sum = 0;
  int64_t classes = 0;
  for (int64_t label = 0; label < classes_; ++label) {
    if (const std::optional<double> one = f1(label)) {
      sum += *one;
      ++classes;
    }
  }
  return classes == 0 ? std::nullopt : std::optional(sum / static_cast<double>(classes));
}

std::optional<double> ClassificationMetrics::mcc() const {
  if (count_ == 0) {
    return std::nullopt;
  }
  const auto n = static_cast<double>(count_);
  double right = 0;
  double products = 0;
  double truths = 0;
  double predictions = 0;
  for (int64_t label = 0; label < classes_; ++label) {
    const auto t = static_cast<double>(of_class(label));
    const auto p = static_cast<double>(predicted_as(label));
    right += static_cast<double>(confusion(label, label));
    products += t * p;
    truths += t * t;
    predictions += p * p;
  }
  const double spread = (n * n - truths) * (n * n - predictions);
  return spread > 0 ? (right * n - products) / std::sqrt(spread) : 0;
}

std::optional<double> ClassificationMetrics::auroc() const {
  return classes_ == 2 ? area_under_roc(scores_, positive_) : std::nullopt;
}

std::optional<double> ClassificationMetrics::auprc() const {
  return classes_ == 2 ? average_precision(scores_, positive_) : std::nullopt;
}

Value ClassificationMetrics::to_value() const {
  Value table;
  table.set("count", Value(count_));
  set_if_finite(table, "accuracy", accuracy());
  set_if_finite(table, "macro_f1", macro_f1());
  set_if_finite(table, "mcc", mcc());
  set_if_finite(table, "auroc", auroc());
  set_if_finite(table, "auprc", auprc());
  Value::Array scores;
  Value::Array rows;
  for (int64_t truth = 0; truth < classes_; ++truth) {
    scores.push_back(Value(f1(truth).value_or(0)));
    Value::Array row;
    for (int64_t predicted = 0; predicted < classes_; ++predicted) {
      row.push_back(Value(confusion(truth, predicted)));
    }
    rows.push_back(Value(std::move(row)));
  }
  table.set("f1", Value(std::move(scores)));
  table.set("confusion", Value(std::move(rows)));
  return table;
}

void LanguageModelMetrics::add(double nll_sum, int64_t count) {
  nll_sum_ += nll_sum;
  count_ += count;
}

std::optional<double> LanguageModelMetrics::nll() const {
  return count_ == 0 ? std::nullopt : std::optional(nll_sum_ / static_cast<double>(count_));
}

std::optional<double> LanguageModelMetrics::perplexity() const {
  const std::optional<double> mean = nll();
  return mean ? std::optional(std::exp(*mean)) : std::nullopt;
}

std::optional<double> LanguageModelMetrics::bits() const {
  const std::optional<double> mean = nll();
  return mean ? std::optional(*mean / std::numbers::ln2) : std::nullopt;
}

Value LanguageModelMetrics::to_value() const {
  Value table;
  table.set("count", Value(count_));
  set_if_finite(table, "nll", nll());
  set_if_finite(table, "perplexity", perplexity());
  set_if_finite(table, "bits_per_symbol", bits());
  return table;
}

}  // namespace blockstate::train
