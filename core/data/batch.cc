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

/// Where a record lies.
struct Place {
  int64_t row = 0, begin = 0;
};

/// Each record in the first row that has room for it; `width` is what the fullest row holds.
std::vector<Place> places_of(const std::vector<int64_t>& lengths, const BatchOptions& options, int64_t& rows,
                             int64_t& width) {
  std::vector<Place> places;
  std::vector<int64_t> next;  // where a row's next record may start
  for (const int64_t length : lengths) {
    const auto has_room = [&](int64_t begin) { return begin + length <= options.pack; };
    const auto row = std::find_if(next.begin(), next.end(), has_room);
    const int64_t begin = row == next.end() ? 0 : *row;
    places.push_back({row - next.begin(), begin});
    if (row == next.end()) {
      next.push_back(0);
    }
    const int64_t end = begin + length;
    next[static_cast<size_t>(places.back().row)] = (end + options.stride - 1) / options.stride * options.stride;
    width = std::max(width, end);
  }
  rows = static_cast<int64_t>(next.size());
  return places;
}

void fill_input(Batch& batch, int64_t record, Place place, const Example& example, const BatchOptions& options) {
  const int64_t first = place.row * batch.length() + place.begin;
  const int64_t steps = batch.lengths[record];
  for (int64_t i = 0; i < steps; ++i) {
    batch.position.data<int64_t>()[first + i] = i;
    batch.record.data<int64_t>()[first + i] = record;
  }
  if (example.channels > 0) {
    std::copy(example.frames.begin(), example.frames.end(), batch.frames.data<float>() + first * example.channels);
    return;
  }
  int64_t* to = batch.tokens.data<int64_t>() + first;
  if (options.targets == TargetKind::kNextToken && options.start_token >= 0) {
    to[0] = options.start_token;
    std::copy_n(example.tokens.begin(), steps - 1, to + 1);
  } else {
    std::copy_n(example.tokens.begin(), steps, to);
  }
}

void fill_targets(Batch& batch, int64_t record, Place place, const Example& example, const BatchOptions& options) {
  if (options.targets == TargetKind::kNone) {
    return;
  }
  int64_t* targets = batch.targets.data<int64_t>();
  if (options.targets == TargetKind::kLabel) {
    targets[record] = std::max<int64_t>(example.label, -1);
    batch.target_count += targets[record] >= 0 ? 1 : 0;
    return;
  }
  int64_t* to = targets + place.row * batch.length() + place.begin;
  const int64_t steps = batch.lengths[record];
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
  batch.records = static_cast<int64_t>(examples.size());
  for (const Example& example : examples) {
    check(example, examples.front(), options);
    batch.names.push_back(example.name);
    batch.lengths.push_back(input_length(example, options));
    batch.token_count += batch.lengths.back();
  }
  int64_t rows = 0, width = 0;
  const std::vector<Place> places = places_of(batch.lengths, options, rows, width);
  batch.position = filled({rows, width}, -1);
  batch.record = filled({rows, width}, -1);
  const int64_t channels = examples.front().channels;
  if (channels > 0) {
    batch.frames = Tensor::zeros({rows, width, channels}, DType::kFloat32);
  } else {
    batch.tokens = filled({rows, width}, -1);
  }
  if (options.targets == TargetKind::kLabel) {
    batch.targets = filled({batch.records}, -1);
  } else if (options.targets != TargetKind::kNone) {
    batch.targets = filled({rows, width}, -1);
  }
  for (size_t i = 0; i < examples.size(); ++i) {
    fill_input(batch, static_cast<int64_t>(i), places[i], examples[i], options);
    fill_targets(batch, static_cast<int64_t>(i), places[i], examples[i], options);
  }
  return batch;
}

namespace {

/// Rows of `length` steps: what each row was cut into. The last piece of a row is padded with `padding`.
template <class T>
Tensor cut_rows(const Tensor& whole, int64_t length, T padding) {
  if (!whole.defined()) {
    return {};
  }
  const int64_t rows = whole.size(0), steps = whole.size(1), pieces = (steps + length - 1) / length;
  Shape shape = whole.shape();
  shape[0] = rows * pieces;
  shape[1] = length;
  const int64_t width = whole.elements() / std::max<int64_t>(1, rows * steps);  // of a step
  Tensor cut = Tensor::empty(shape, whole.dtype());
  std::fill_n(cut.data<T>(), cut.elements(), padding);
  for (int64_t row = 0; row < rows; ++row) {
    std::copy_n(whole.data<T>() + row * steps * width, steps * width, cut.data<T>() + row * pieces * length * width);
  }
  return cut;
}

}  // namespace

Batch cut_records(const Batch& batch, int64_t length) {
  if (length >= batch.length()) {
    return batch;
  }
  require(batch.targets.defined() && batch.targets.rank() == 2, "only records with a target at every step can be cut");
  Batch cut;
  cut.tokens = cut_rows<int64_t>(batch.tokens, length, -1);
  cut.frames = cut_rows<float>(batch.frames, length, 0);
  cut.position = cut_rows<int64_t>(batch.position, length, -1);
  cut.record = cut_rows<int64_t>(batch.record, length, -1);
  cut.targets = cut_rows<int64_t>(batch.targets, length, -1);
  cut.target_count = batch.target_count;
  cut.token_count = batch.token_count;
  for (int64_t row = 0; row < cut.batch(); ++row) {
    int64_t* position = cut.position.data<int64_t>() + row * length;
    int64_t* record = cut.record.data<int64_t>() + row * length;
    int64_t whole = -1;  // the record this step was of
    for (int64_t t = 0; t < length; ++t) {
      if (record[t] < 0) {
        continue;
      }
      if (record[t] != whole) {
        whole = record[t];
        cut.names.push_back(batch.names[static_cast<size_t>(whole)]);
        cut.lengths.push_back(0);
      }
      record[t] = static_cast<int64_t>(cut.lengths.size()) - 1;
      position[t] = cut.lengths.back()++;
    }
  }
  cut.records = static_cast<int64_t>(cut.lengths.size());
  return cut;
}

Batch slice_rows(const Batch& batch, int64_t begin, int64_t end) {
  require(batch.targets.defined() && batch.targets.rank() == 2,
          "only a batch with a target at every step has rows of its own");
  Batch rows = batch;
  for (Tensor* tensor : {&rows.tokens, &rows.frames, &rows.position, &rows.record, &rows.targets}) {
    *tensor = tensor->defined() ? tensor->slice(0, begin, end).packed() : Tensor();
  }
  return rows;
}

}  // namespace blockstate::data
