// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "core/base/check.h"
#include "core/base/random.h"
#include "core/train/metrics.h"

namespace blockstate::train {
namespace {

using Labels = std::vector<int64_t>;

/// Logits whose largest is the wanted class.
ClassificationMetrics metrics_of(int64_t classes, const Labels& truth, const Labels& predicted) {
  const auto rows = static_cast<int64_t>(truth.size());
  std::vector<float> logits(static_cast<size_t>(rows * classes), -1);
  for (int64_t row = 0; row < rows; ++row) {
    logits[row * classes + predicted[row]] = 2;
  }
  ClassificationMetrics metrics(classes);
  metrics.add(Tensor::from<float>({rows, classes}, logits), Tensor::from<int64_t>({rows}, truth));
  return metrics;
}

TEST_CASE("three classes by hand", "[cpu]") {
  // Confusion, rows truth: {2 0 0}, {1 0 1}, {0 2 0}.
  const ClassificationMetrics metrics = metrics_of(3, {0, 1, 2, 0, 1, 2}, {0, 2, 1, 0, 0, 1});
  CHECK(metrics.count() == 6);
  CHECK(metrics.confusion(0, 0) == 2);
  CHECK(metrics.confusion(1, 0) == 1);
  CHECK(metrics.confusion(1, 2) == 1);
  CHECK(metrics.confusion(2, 1) == 2);
  CHECK(metrics.confusion(2, 2) == 0);
  CHECK(*metrics.accuracy() == Approx(1.0 / 3));
  CHECK(*metrics.f1(0) == Approx(0.8));
  CHECK(*metrics.f1(1) == 0);
  CHECK(*metrics.macro_f1() == Approx(0.8 / 3));
  // right * n - sum t p = 2 * 6 - (2*3 + 2*2 + 2*1) = 0.
  CHECK(*metrics.mcc() == Approx(0).margin(1e-15));
  CHECK_FALSE(metrics.auroc());
}

TEST_CASE("two classes: MCC is the correlation of truth and prediction", "[cpu]") {
  // TP 3, TN 1, FP 2, FN 1: (3*1 - 2*1) / sqrt(5 * 4 * 3 * 2).
  const ClassificationMetrics metrics = metrics_of(2, {1, 1, 1, 1, 0, 0, 0}, {1, 1, 1, 0, 1, 1, 0});
  CHECK(*metrics.mcc() == Approx(1 / std::sqrt(120.0)));
  CHECK(*metrics.accuracy() == Approx(4.0 / 7));
  CHECK(*metrics.f1(1) == Approx(6.0 / 9));
  CHECK(*metrics.macro_f1() == Approx((6.0 / 9 + 2.0 / 5) / 2));
  CHECK(*metrics_of(2, {0, 1, 0}, {0, 1, 0}).mcc() == Approx(1));
  CHECK(*metrics_of(2, {0, 1, 0}, {1, 0, 1}).mcc() == Approx(-1));
}

TEST_CASE("degenerate classifications", "[cpu]") {
  const ClassificationMetrics none(3);
  CHECK_FALSE(none.accuracy());
  CHECK_FALSE(none.macro_f1());
  CHECK_FALSE(none.mcc());
  const ClassificationMetrics one_prediction = metrics_of(3, {0, 1, 2, 2}, {2, 2, 2, 2});
  CHECK(*one_prediction.mcc() == 0);
  CHECK(*one_prediction.macro_f1() == Approx(2.0 / 3 / 3));
  const ClassificationMetrics one_class = metrics_of(2, {1, 1}, {1, 1});
  CHECK(*one_class.mcc() == 0);
  CHECK(*one_class.macro_f1() == 1);  // class 0 neither occurs nor is predicted
  CHECK_FALSE(one_class.f1(0));
  CHECK_FALSE(one_class.auroc());
  CHECK(*one_class.auprc() == 1);
  CHECK_FALSE(metrics_of(2, {0, 0}, {1, 0}).auprc());
}

TEST_CASE("a step a label, some not scored, in several calls", "[cpu]") {
  ClassificationMetrics metrics(2);
  metrics.add(Tensor::from<double>({2, 2, 2}, {1, 0, 0, 1, 5, 5, 0, 1}), Tensor::from<int64_t>({2, 2}, {0, -1, 0, 0}));
  metrics.add(Tensor::from<double>({1, 2}, {0, 1}), Tensor::from<int64_t>({1}, {1}));
  CHECK(metrics.count() == 4);
  CHECK(*metrics.accuracy() == Approx(0.75));  // equal logits: the first class
  CHECK(*metrics.auroc() == Approx(2.5 / 3));
}

TEST_CASE("logits that do not fit are named", "[cpu]") {
  ClassificationMetrics metrics(2);
  const Tensor logits = Tensor::from<float>({1, 2}, {0, std::numeric_limits<float>::quiet_NaN()});
  CHECK_THROWS_WITH(metrics.add(logits, Tensor::from<int64_t>({1}, {0})),
                    "the logits of row 0 are not finite: the model has diverged");
  CHECK_NOTHROW(metrics.add(logits, Tensor::from<int64_t>({1}, {-1})));
  CHECK_THROWS_WITH(metrics.add(logits, Tensor::from<int64_t>({1}, {2})), "target 2 of row 0, wanted a class below 2");
  CHECK_THROWS_WITH(metrics.add(logits, Tensor::from<int64_t>({2}, {0, 0})),
                    "logits of shape (1, 2) for targets of shape (2), wanted (2, 2)");
  CHECK(metrics.count() == 0);
}

TEST_CASE("areas by hand, with ties", "[cpu]") {
  CHECK(*area_under_roc({0.1, 0.4, 0.35, 0.8}, {0, 0, 1, 1}) == Approx(0.75));
  CHECK(*average_precision({0.1, 0.4, 0.35, 0.8}, {0, 0, 1, 1}) == Approx(0.5 * 1 + 0.5 * 2 / 3));
  CHECK(*area_under_roc({1, 1, 1, 1}, {0, 1, 0, 0}) == Approx(0.5));
  CHECK(*average_precision({1, 1, 1, 1}, {0, 1, 0, 0}) == Approx(0.25));
  CHECK(*area_under_roc({3, 2, 2, 1}, {1, 1, 0, 0}) == Approx(3.5 / 4));
  CHECK(*average_precision({3, 2, 2, 1}, {1, 1, 0, 0}) == Approx(0.5 + 0.5 * 2 / 3));
  CHECK(*area_under_roc({2, 1}, {0, 1}) == 0);
  CHECK_FALSE(area_under_roc({}, {}));
  CHECK_FALSE(average_precision({}, {}));
  CHECK_THROWS_AS(area_under_roc({1}, {}), Error);
}

TEST_CASE("AUROC is the share of pairs in order", "[cpu]") {
  RandomStream random(4);
  std::vector<double> scores;
  std::vector<uint8_t> positive;
  for (int i = 0; i < 300; ++i) {
    positive.push_back(random.uniform() < 0.3 ? 1 : 0);
    scores.push_back(static_cast<double>(random.below(20) + 3 * positive.back()));  // many ties
  }
  double won = 0;
  double pairs = 0;
  double precision = 0;
  double positives = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    double above = 0;
    double hits = 0;
    for (size_t j = 0; j < scores.size(); ++j) {
      if (positive[i] == 1 && positive[j] == 0) {
        won += scores[i] > scores[j] ? 1 : scores[i] == scores[j] ? 0.5 : 0;
        ++pairs;
      }
      above += scores[j] >= scores[i] ? 1 : 0;
      hits += scores[j] >= scores[i] ? positive[j] : 0;
    }
    positives += positive[i];
    precision += positive[i] * hits / above;
  }
  CHECK(*area_under_roc(scores, positive) == Approx(won / pairs).epsilon(1e-13));
  CHECK(*average_precision(scores, positive) == Approx(precision / positives).epsilon(1e-13));
}

TEST_CASE("metrics as values for JSON leave out what is undefined", "[cpu]") {
  const config::Value table = metrics_of(2, {1, 1, 0}, {1, 0, 0}).to_value();
  CHECK(table.find("count")->integer() == 3);
  CHECK(table.find("accuracy")->number() == Approx(2.0 / 3));
  CHECK(table.find("auroc")->number() == Approx(0.75));
  CHECK(table.find("confusion")->array()[1].array()[0].integer() == 1);
  CHECK(table.find("f1")->array().size() == 2);
  CHECK_NOTHROW(config::to_json(table));
  const config::Value empty = ClassificationMetrics(3).to_value();
  CHECK(empty.find("accuracy") == nullptr);
  CHECK(empty.find("count")->integer() == 0);
}

TEST_CASE("language models: nats, perplexity and bits", "[cpu]") {
  LanguageModelMetrics metrics;
  CHECK_FALSE(metrics.nll());
  CHECK(metrics.to_value().find("nll") == nullptr);
  metrics.add(3 * std::log(4.0), 3);
  metrics.add(std::log(4.0), 1);
  CHECK(*metrics.nll() == Approx(std::log(4.0)));
  CHECK(*metrics.perplexity() == Approx(4));
  CHECK(*metrics.bits() == Approx(2));
  CHECK(metrics.to_value().find("bits_per_symbol")->number() == Approx(2));
  metrics.add(1e6, 1);
  CHECK(std::isinf(*metrics.perplexity()));
  CHECK(metrics.to_value().find("perplexity") == nullptr);  // JSON has no infinity
  CHECK_NOTHROW(config::to_json(metrics.to_value()));
}

}  // namespace
}  // namespace blockstate::train
