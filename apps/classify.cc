// SPDX-License-Identifier: Apache-2.0
// TSV: name, start, end, label, probability, then one column p_CLASS a class. start and end are in seconds for audio,
// 0-based half-open bases for DNA. Inputs are streamed through the model's carry, so their length does not matter.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "apps/format.h"
#include "apps/input_stream.h"
#include "apps/session.h"
#include "apps/verbs.h"
#include "core/base/check.h"
#include "core/train/evaluate.h"

namespace blockstate::apps {
namespace {

constexpr int64_t kDefaultChunk = 65536;

Windows parse_windows(const std::string& text) {
  Windows windows;
  if (text.empty()) {
    return windows;
  }
  const char* end = text.data() + text.size();
  const auto [slash, problem] = std::from_chars(text.data(), end, windows.length);
  bool good = problem == std::errc() && windows.length > 0;
  windows.hop = windows.length;
  if (good && slash != end) {
    good = *slash == '/';
    const auto [rest, hop_problem] = std::from_chars(slash + 1, end, windows.hop);
    good = good && hop_problem == std::errc() && rest == end && windows.hop > 0;
  }
  require(good, "--windows ", text, ": LENGTH or LENGTH/HOP in samples or bases was wanted, such as 16000/8000");
  return windows;
}

void print_header(const std::vector<std::string>& classes) {
  std::printf("name\tstart\tend\tlabel\tprobability");
  for (const std::string& label : classes) {
    std::printf("\tp_%s", label.c_str());
  }
  std::printf("\n");
}

void print_row(const Piece& piece, const std::vector<double>& probability, const std::vector<std::string>& classes) {
  const size_t best =
      static_cast<size_t>(std::max_element(probability.begin(), probability.end()) - probability.begin());
  std::printf("%s\t%s\t%s\t%s\t%.6f", piece.name.c_str(), piece.start.c_str(), piece.end.c_str(), classes[best].c_str(),
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
  const RawFormat raw{arguments.raw_format, arguments.raw_rate};
  const int64_t chunk = arguments.chunk > 0 ? arguments.chunk : kDefaultChunk;
  GradMode off(false);
  print_header(loaded.task.classes);
  const int reports = for_each_piece(loaded.run, loaded.task, arguments.inputs, windows, raw, [&](InputStream& stream) {
    nn::CarryMap carry;
    int64_t offset = 0;
    Tensor logits;
    while (const std::optional<StepRun> steps = stream.read(chunk)) {
      logits = loaded.model->forward(steps->input(*loaded.model, offset), &carry).value();
      offset += steps->length;
    }
    require(logits.defined(), stream.piece().name, " has nothing to classify");
    print_row(stream.piece(), softmax(logits), loaded.task.classes);
  });
  return stop_requested() ? kInterrupted : reports > 0 ? 1 : 0;
}

}  // namespace blockstate::apps
