// SPDX-License-Identifier: Apache-2.0
// TSV: name, start, end, label, probability, then one column p_CLASS a class. start and end are in seconds for audio,
// 0-based half-open bases for DNA. Inputs are streamed through the model's carry, so their length does not matter.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "apps/each_stream.h"
#include "apps/format.h"
#include "apps/session.h"
#include "apps/verbs.h"
#include "core/base/check.h"
#include "core/train/evaluate.h"

namespace blockstate::apps {
namespace {

constexpr int64_t kDefaultChunk = 65536;

void print_header(const std::vector<std::string>& classes) {
  std::printf("name\tstart\tend\tlabel\tprobability");
  for (const std::string& label : classes) {
    std::printf("\tp_%s", label.c_str());
  }
  std::printf("\n");
}

void print_row(const Piece& piece, const std::string& start, const std::vector<double>& probability,
               const std::vector<std::string>& classes) {
  const size_t best =
      static_cast<size_t>(std::max_element(probability.begin(), probability.end()) - probability.begin());
  std::printf("%s\t%s\t%s\t%s\t%.6f", piece.name.c_str(), start.c_str(), piece.end.c_str(), classes[best].c_str(),
              probability[best]);
  for (const double p : probability) {
    std::printf("\t%.6f", p);
  }
  std::printf("\n");
}

std::vector<double> softmax(const Tensor& logits) {
  const Tensor row = logits.to(Device{}).to(DType::kFloat64).packed();
  std::vector<double> values(row.data<double>(), row.data<double>() + row.elements());
  const double peak = *std::max_element(values.begin(), values.end());
  double sum = 0;
  for (double& value : values) {
    value = std::exp(value - peak);
    sum += value;
  }
  for (double& value : values) {
    value /= sum;
  }
  return values;
}

}  // namespace

int run_classify(const ClassifyArguments& arguments) {
  const Windows windows = parse_windows(arguments.windows);
  const LoadedModel loaded = load_model(arguments.model, arguments.overrides);
  require(loaded.task.shape.head == model::HeadKind::kClassify, arguments.model, " is no classifier; a model trained ",
          "with task.kind = \"classify\" was wanted");
  const StreamInputs inputs{arguments.inputs, windows, {arguments.raw_format, arguments.raw_rate}};
  const int64_t chunk = arguments.chunk > 0 ? arguments.chunk : kDefaultChunk;
  GradMode off(false);
  print_header(loaded.task.classes);
  const auto classify = [&](InputStream& stream, StreamState& state) {
    Tensor logits;
    while (const std::optional<StepRun> steps = stream.read(chunk)) {
      if (state.position > 0) {
        note_growing(*loaded.model, state.position + steps->length);
      }
      nn::CarryMap after = state.carry;
      logits = loaded.model->forward(steps->input(*loaded.model, state.position), &after).value();
      if (!steps->filled) {
        state.carry = std::move(after);
        state.position += steps->length;
      }
    }
    require(logits.defined(), stream.piece().name, " has nothing to classify");
    print_row(stream.piece(), state.place.start, softmax(logits), loaded.task.classes);
  };
  const int reports = for_each_stream(loaded, "classify", inputs, arguments.state, classify);
  return stop_requested() ? kInterrupted : reports > 0 ? 1 : 0;
}

}  // namespace blockstate::apps
