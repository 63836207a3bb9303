// SPDX-License-Identifier: Apache-2.0
// Running sums of evaluation. Undefined numbers (AUROC of one class only, a mean over nothing) are absent, never 0 or
// NaN.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/config/value.h"
#include "core/tensor/tensor.h"

namespace blockstate::train {

/// Area under the ROC curve: the chance that a random positive scores above a random negative, ties counting one half
/// (Mann-Whitney U). Absent unless both classes occur. `positive[i]` is 0 or 1.
std::optional<double> area_under_roc(const std::vector<double>& scores, const std::vector<uint8_t>& positive);
/// Average precision: sum over distinct scores, descending, of (recall gained) * (precision there). Absent without a
/// positive.
std::optional<double> average_precision(const std::vector<double>& scores, const std::vector<uint8_t>& positive);

/// Of one label a record, or one a step.
class ClassificationMetrics {
 public:
  explicit ClassificationMetrics(int64_t classes);

  /// logits (..., C) float32 or float64, targets (...) int64; -1 is passed over. The predicted class is the first of
  /// the largest. Error where shapes differ, a target is not below C, or a scored row's logits are not finite.
  void add(const Tensor& logits, const Tensor& targets);

  int64_t count() const { return count_; }
  int64_t classes() const { return classes_; }
  /// Rows are true classes, columns predicted ones.
  int64_t confusion(int64_t truth, int64_t predicted) const { return confusion_[truth * classes_ + predicted]; }

  std::optional<double> accuracy() const;
  /// F1 of one class; absent where it neither occurs nor is predicted.
  std::optional<double> f1(int64_t label) const;
  /// Mean of f1 over the classes that have one.
  std::optional<double> macro_f1() const;
  /// Matthews correlation for C classes (Gorodkin 2004); 0 where all truths or all predictions are one class.
  std::optional<double> mcc() const;
  /// Two classes only, with logit(1) - logit(0) as the score.
  std::optional<double> auroc() const;
  std::optional<double> auprc() const;

  /// {count, accuracy, macro_f1, mcc, auroc, auprc, f1: [..], confusion: [[..]]}; what is absent is left out (null is
  /// not written), except in the list f1, where it counts as 0.
  config::Value to_value() const;

 private:
  template <class T>
  void add_rows(const Tensor& logits, const Tensor& targets);
  int64_t of_class(int64_t label) const;      ///< targets that are `label`
  int64_t predicted_as(int64_t label) const;  ///< predictions that are `label`

  int64_t classes_;
  int64_t count_ = 0;
  std::vector<int64_t> confusion_;  ///< (C, C)
  std::vector<double> scores_;      ///< kept where C = 2
  std::vector<uint8_t> positive_;
};

/// Of a language model, over scored targets.
class LanguageModelMetrics {
 public:
  /// Sum of -log p in nats over `count` targets.
  void add(double nll_sum, int64_t count);

  int64_t count() const { return count_; }
  double nll_sum() const { return nll_sum_; }
  std::optional<double> nll() const;         ///< mean, nats
  std::optional<double> perplexity() const;  ///< exp(nll)
  std::optional<double> bits() const;        ///< nll / ln 2: bits per base, sample or byte

  /// {count, nll, perplexity, bits_per_symbol}
  config::Value to_value() const;

 private:
  double nll_sum_ = 0;
  int64_t count_ = 0;
};

}  // namespace blockstate::train
