// SPDX-License-Identifier: Apache-2.0
// Features of records: the residual stream after the model's last norm, a row a record (their mean, or the last) or a
// row a step, as .npy; which rows are whose stands in a TSV beside it: name, start, end, row, rows.
#include <cstdio>
#include <fstream>
#include <stdexcept>

#include "apps/each_stream.h"
#include "core/autograd/ops.h"
#include "core/base/check.h"
#include "core/data/npy_rows.h"

namespace blockstate::apps {
namespace {

constexpr int64_t kDefaultChunk = 16384;

/// float32 or float64, on the CPU.
Tensor on_host(const Tensor& tensor, DType dtype) {
  const Tensor here = tensor.to(Device{});
  return (here.dtype() == DType::kBFloat16 ? here.to(DType::kFloat32) : here).to(dtype).packed();
}

/// What a record's one row is made of: the sum of the features so far in double, and the latest.
struct Pooled {
  std::vector<double> sum;
  std::vector<double> last;

  explicit Pooled(int64_t width) : sum(static_cast<size_t>(width)), last(static_cast<size_t>(width)) {}

  static Pooled from(const StreamState& state, int64_t width) {
    Pooled pooled(width);
    for (auto [name, values] : {std::pair{"sum", &pooled.sum}, {"last", &pooled.last}}) {
      if (const auto found = state.sums.find(name); found != state.sums.end()) {
        const Tensor tensor = on_host(found->second, DType::kFloat64);
        require(tensor.elements() == width, "the state's ", name, " has ", tensor.elements(), " numbers, the model ",
                width, " features; save the state again");
        values->assign(tensor.data<double>(), tensor.data<double>() + width);
      }
    }
    return pooled;
  }
  void leave_in(StreamState& state) const {
    state.sums["sum"] = Tensor::from({static_cast<int64_t>(sum.size())}, sum);
    state.sums["last"] = Tensor::from({static_cast<int64_t>(last.size())}, last);
  }
  /// Features (1, L, D) of the steps that follow.
  void add(const Variable& features, const nn::Sequence& sequence) {
    const Tensor ones = [&] {
      Tensor tensor = Tensor::empty({1, features.size(1)}, DType::kFloat64);
      tensor.fill(1);
      const DType dtype = features.dtype() == DType::kBFloat16 ? DType::kFloat32 : features.dtype();
      return tensor.to(dtype).to(features.value().device());
    }();
    const Tensor part = on_host(ops::pool(features, Variable(ones), sequence.record, 1).value(), DType::kFloat64);
    const int64_t L = features.size(1);
    const Tensor latest = on_host(features.value().slice(1, L - 1, L), DType::kFloat64);
    for (size_t i = 0; i < sum.size(); ++i) {
      sum[i] += part.data<double>()[i];
      last[i] = latest.data<double>()[i];
    }
  }
  std::vector<float> row(bool mean, int64_t steps) const {
    std::vector<float> values(sum.size());
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(mean ? sum[i] / static_cast<double>(steps) : last[i]);
    }
    return values;
  }
};

/// What cannot be written ends the program; an Error would count as an input that cannot be read.
template <class Writes>
void writing(const Writes& writes) {
  try {
    writes();
  } catch (const Error& problem) {
    throw std::runtime_error(problem.what());
  }
}

/// The .npy file and its table.
class Embedder {
 public:
  Embedder(const EmbedArguments& arguments, const LoadedModel& loaded)
      : arguments_(arguments),
        model_(*loaded.model),
        chunk_(arguments.chunk > 0 ? arguments.chunk : kDefaultChunk),
        width_(loaded.run.model.d_model),
        table_file_(arguments.out + ".tsv") {}

  void embed(InputStream& stream, StreamState& state) {
    require(arguments_.per_position || state.text("rows", "per record") == "per record", arguments_.state.resume,
            ": was saved by embed --per-position and holds no sum; go on with --per-position");
    writing([&] { open(); });
    const int64_t first = rows_->rows();
    try {
      arguments_.per_position ? every_step(stream, state) : one_row(stream, state);
    } catch (...) {
      rows_->keep(first);  // no rows that the table does not name
      throw;
    }
    const Piece& piece = stream.piece();
    const std::string& start = arguments_.per_position ? piece.start : state.place.start;
    writing([&] {
      table_ << piece.name << '\t' << start << '\t' << piece.end << '\t' << first << '\t' << rows_->rows() - first
             << '\n';
      table_.flush();
      check_table();
    });
  }

  void finish() {
    if (rows_) {
      rows_->finish();
      table_.close();
      check_table();
    }
  }

 private:
  /// Not before there is something to write: what was there may be wanted.
  void open() {
    if (!rows_) {
      rows_.emplace(arguments_.out, DType::kFloat32, width_);
      table_.open(table_file_, std::ios::binary);
      table_ << "name\tstart\tend\trow\trows\n";
      check_table();
    }
  }
  void append(const float* values, int64_t rows) {
    writing([&] { rows_->append(values, rows); });
  }
  void check_table() const { require(table_.good(), table_file_, ": cannot be written; is the disk full?"); }

  /// Features of the next steps. A step that was filled up leaves the state as it is.
  Variable features(const StepRun& steps, const model::ModelInput& input, StreamState& state) const {
    if (state.position > 0) {
      note_growing(model_, state.position + steps.length);
    }
    nn::CarryMap after = state.carry;
    const Variable result = model_.features(input, &after);
    if (!steps.filled) {
      state.carry = std::move(after);
      state.position += steps.length;
    }
    return result;
  }

  void every_step(InputStream& stream, StreamState& state) {
    state.set("rows", "per position");
    while (const std::optional<StepRun> steps = stream.read(chunk_)) {
      const Tensor values =
          on_host(features(*steps, steps->input(model_, state.position), state).value(), DType::kFloat32);
      // What goes on with this stream makes the unfinished step's row.
      if (!steps->filled || arguments_.state.save.empty()) {
        append(values.data<float>(), steps->length);
      }
    }
  }

  void one_row(InputStream& stream, StreamState& state) {
    state.set("rows", "per record");
    Pooled pooled = Pooled::from(state, width_);
    Pooled whole = pooled;  // without a step that was filled up
    int64_t count = state.position;
    while (const std::optional<StepRun> steps = stream.read(chunk_)) {
      const model::ModelInput input = steps->input(model_, state.position);
      pooled.add(features(*steps, input, state), input.sequence);
      count += steps->length;
      if (!steps->filled) {
        whole = pooled;
      }
    }
    require(count > 0, stream.piece().name, " has nothing to embed");
    whole.leave_in(state);
    append(pooled.row(arguments_.pooling == "mean", count).data(), 1);
  }

  const EmbedArguments& arguments_;
  const model::Model& model_;
  int64_t chunk_;
  int64_t width_;
  std::optional<data::NpyRows> rows_;
  std::string table_file_;
  std::ofstream table_;
};

}  // namespace

int run_embed(const EmbedArguments& arguments) {
  const StreamInputs inputs{
      arguments.inputs, parse_windows(arguments.windows), {arguments.raw_format, arguments.raw_rate}};
  require(arguments.out.ends_with(".npy"), "--out ", arguments.out, ": a name that ends in .npy was wanted; the table ",
          "of names goes beside it as NAME.npy.tsv");
  const LoadedModel loaded = load_model(arguments.model, arguments.overrides);
  GradMode off(false);
  Embedder embedder(arguments, loaded);
  const int reports = for_each_stream(loaded, "embed", inputs, arguments.state,
                                      [&](InputStream& stream, StreamState& state) { embedder.embed(stream, state); });
  embedder.finish();
  return stop_requested() ? kInterrupted : reports > 0 ? 1 : 0;
}

}  // namespace blockstate::apps
