// SPDX-License-Identifier: Apache-2.0
#include "apps/report/curves.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/report/summary.h"

namespace blockstate::apps {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMostPoints = 400;  // about a point every two pixels of a chart

int64_t stretch_of(const Comparison& comparison) {
  int64_t last = 0;
  for (const ComparisonRun& run : comparison.runs) {
    if (!run.curve.empty()) {
      last = std::max(last, run.curve.back().step);
    }
  }
  return std::max<int64_t>(1, (last + kMostPoints - 1) / kMostPoints);
}

Json run_json(const ComparisonRun& run, int64_t stretch) {
  // Numbers that are not finite become null.
  Json training = {
      {"step", Json::array()}, {"tokens", Json::array()}, {"seconds", Json::array()}, {"loss", Json::array()}};
  for (const CurvePoint& point : thin_out(run.curve, stretch)) {
    training["step"].push_back(point.step);
    training["tokens"].push_back(point.tokens);
    training["seconds"].push_back(point.seconds);
    training["loss"].push_back(point.train_loss);
  }
  Json validation = training;
  for (auto& [name, list] : validation.items()) {
    list = Json::array();
  }
  validation["metric"] = Json::array();
  for (const ValidationPoint& point : run.validation) {
    validation["step"].push_back(point.step);
    validation["tokens"].push_back(point.tokens);
    validation["seconds"].push_back(point.seconds);
    validation["loss"].push_back(point.loss);
    validation["metric"].push_back(point.metric);
  }
  Json memory = run.peak_memory_bytes > 0 ? Json(run.peak_memory_bytes) : Json();
  return {{"seed", run.seed},       {"parameters", run.parameters},   {"loss", run.loss},
          {"metric", run.metric},   {"speed", run.tokens_per_second}, {"memory", memory},
          {"seconds", run.seconds}, {"training", training},           {"validation", validation}};
}

}  // namespace

std::vector<CurvePoint> thin_out(const std::vector<CurvePoint>& curve, int64_t width) {
  std::vector<CurvePoint> thin;
  int64_t open_stretch = -1;
  double sum = 0;
  int64_t count = 0;
  for (const CurvePoint& point : curve) {
    const int64_t stretch = std::max<int64_t>(0, point.step - 1) / width;
    if (stretch != open_stretch) {
      thin.emplace_back();
      open_stretch = stretch;
      sum = 0;
      count = 0;
    }
    sum += point.train_loss;
    ++count;
    thin.back() = point;
    thin.back().train_loss = sum / static_cast<double>(count);
  }
  return thin;
}

std::string page_data(const Comparison& comparison) {
  Json page = {{"metric", columns_of(comparison)[2].title},
               {"higherIsBetter", comparison.higher_is_better},
               {"variants", Json::array()}};
  const int64_t stretch = stretch_of(comparison);
  for (const VariantSummary& variant : summarize(comparison)) {
    Json runs = Json::array();
    for (const ComparisonRun* run : variant.runs) {
      runs.push_back(run_json(*run, stretch));
    }
    page["variants"].push_back({{"name", variant.name}, {"runs", runs}});
  }
  const std::string text = page.dump(-1, ' ', false, Json::error_handler_t::replace);
  // Only strings can hold a '<'; escaped, no string can end the element.
  std::string safe;
  for (const char c : text) {
    safe += c == '<' ? "\\u003c" : std::string(1, c);
  }
  return safe;
}

}  // namespace blockstate::apps
