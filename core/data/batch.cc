// SPDX-License-Identifier: Apache-2.0
#include "core/data/batch.h"

#include <algorithm>

#include "core/base/check.h"

namespace blockstate::data {
namespace {

Tensor filled(const Shape& shape, int64_t value) {
  Tensor tensor = Tensor::empty(shape, DType::kInt64);
  std::fill_n(tensor.data<int64_t>(), tensor.elements(), value);
  return tensor;
}

/// Steps that the model reads of an example.
int64_t input_length(const Example& example, const BatchOptions& options) {
  const bool drops_last = options.targets == TargetKind::kNextToken && options.start_token < 0;
  return example.length() - (drops_last ? 1 : 0);
}

void check(const Example& example, const Example& first, const BatchOptions& options) {
  const std::string& name = example.name;
  const bool framed = example.channels > 0;
  require(framed || example.frames.empty(), name, ": ", example.frames.size(), " feature values without a width");
  require(!framed || example.tokens.empty(), name, ": has both tokens and frames, wanted one of them");
  require(framed == (first.channels > 0), name, ": has ", framed ? "frames" : "tokens", ", but ", first.name,
          " in the same batch has ", framed ? "tokens" : "frames");
  require(example.channels == first.channels, name, ": frames of ", example.channels, " channels, but ", first.name,
          " in the same batch has ", first.channels);
  if (framed) {
    require(example.frames.size() % static_cast<size_t>(example.channels) == 0, name, ": ", example.frames.size(),
            " feature values are no whole number of frames of ", example.channels, " channels");
    require(options.targets != TargetKind::kNextToken, name,
            ": predicting the next token needs tokens, found frames of ", example.channels, " channels");
  }
  require(input_length(example, options) > 0, name, ": has ", example.length(), " steps, wanted at least ",
          options.targets == TargetKind::kNextToken && options.start_token < 0 ? 2 : 1);
  for (size_t i = 0; i < example.tokens.size(); ++i) {
    require(example.tokens[i] >= 0, name, ": token ", example.tokens[i], " at step ", i, ", wanted at least 0");
  }
  if (options.targets == TargetKind::kPerPosition) {
    require(static_cast<int64_t>(example.position_labels.size()) == example.length(), name, ": ",
            example.position_labels.size(), " labels for ", example.length(), " steps, wanted one a step");
  }
}

void fill_input(Batch& batch, int64_t row, const Example& example, const BatchOptions& options) {
  const int64_t width = batch.length();
  const int64_t steps = batch.lengths[row];
  for (int64_t i = 0; i < steps; ++i) {
    batch.position.data<int64_t>()[row * width + i] = i;
    batch.record.data<int64_t>()[row * width + i] = row;
  }
  if (example.channels > 0) {
    std::copy(example.frames.begin(), example.frames.end(),
              batch.frames.data<float>() + row * width * example.channels);
    return;
  }
  int64_t* to = batch.tokens.data<int64_t>() + row * width;
  if (options.targets == TargetKind::kNextToken && options.start_token >= 0) {
    to[0] = options.start_token;
    std::copy_n(example.tokens.begin(), steps - 1, to + 1);
  } else {
    std::copy_n(example.tokens.begin(), steps, to);
  }
}

void fill_targets(Batch& batch, int64_t row, const Example& example, const BatchOptions& options) {
  if (options.targets == TargetKind::kNone) {
    return;
  }
  int64_t* targets = batch.targets.data<int64_t>();
  if (options.targets == TargetKind::kLabel) {
    targets[row] = std::max<int64_t>(example.label, -1);
    batch.target_count += targets[row] >= 0 ? 1 : 0;
    return;
  }
  int64_t* to = targets + row * batch.length();
  const int64_t steps = batch.lengths[row];
  if (options.targets == TargetKind::kPerPosition) {
    std::transform(example.position_labels.begin(), example.position_labels.end(), to,
                   [](int64_t label) { return std::max<int64_t>(label, -1); });
  } else {
    std::copy_n(example.tokens.begin() + (options.start_token >= 0 ? 0 : 1), steps, to);
  }
  batch.target_count += std::count_if(to, to + steps, [](int64_t target) { return target >= 0; });
}

}  // namespace

Batch collate(const std::vector<Example>& examples, const BatchOptions& options) {
  require(!examples.empty(), "a batch needs at least one example");
  Batch batch;
  const auto rows = static_cast<int64_t>(examples.size());
  int64_t width = 0;
  for (const Example& example : examples) {
    check(example, examples.front(), options);
    batch.names.push_back(example.name);
    batch.lengths.push_back(input_length(example, options));
    batch.token_count += batch.lengths.back();
    width = std::max(width, batch.lengths.back());
  }
  batch.records = rows;
  batch.position = filled({rows, width}, -1);
  batch.record = filled({rows, width}, -1);
  const int64_t channels = examples.front().channels;
  if (channels > 0) {
    batch.frames = Tensor::zeros({rows, width, channels}, DType::kFloat32);
  } else {
    batch.tokens = filled({rows, width}, -1);
  }
  if (options.targets == TargetKind::kLabel) {
    batch.targets = filled({rows}, -1);
  } else if (options.targets != TargetKind::kNone) {
    batch.targets = filled({rows, width}, -1);
  }
  for (int64_t row = 0; row < rows; ++row) {
    fill_input(batch, row, examples[row], options);
    fill_targets(batch, row, examples[row], options);
  }
  return batch;
}

}  // namespace blockstate::data
