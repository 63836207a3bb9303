// SPDX-License-Identifier: Apache-2.0
// Log-likelihood of records under a language model, streamed through the carry. TSV: name, length,
// log_likelihood_nats, bits_per_symbol; --per-position: name, position, symbol, log_likelihood_nats.
#include <cmath>
#include <cstdio>
#include <numbers>

#include "apps/each_stream.h"
#include "apps/session.h"
#include "apps/verbs.h"
#include "core/autograd/ops.h"
#include "core/base/check.h"
#include "core/data/npy.h"
#include "core/train/evaluate.h"

namespace blockstate::apps {
namespace {

constexpr int64_t kDefaultChunk = 65536;

/// What has been scored of a stream. Kept in its state.
struct Score {
  int64_t length = 0;  ///< symbols read
  int64_t scored = 0;  ///< symbols predicted: all, or all but the first without a start token
  double log_likelihood = 0;
  int64_t previous = -1;  ///< the symbol before the next target, not yet fed; -1: none

  static Score from(const StreamState& state, int64_t start_token) {
    return {state.integer("length", 0), state.integer("scored", 0), state.number("log_likelihood", 0),
            state.integer("previous", start_token)};
  }
  void leave_in(StreamState& state) const {
    state.set("length", length);
    state.set("scored", scored);
    state.set("log_likelihood", log_likelihood);
    state.set("previous", previous);
  }
  /// bits_per_symbol.
  double bits() const {
    return -log_likelihood / std::numbers::ln2 / static_cast<double>(std::max<int64_t>(1, scored));
  }
};

/// Scores one piece. The row of logits that predicts symbol i stands at step i (with a start token) or i - 1, so the
/// last symbol of a chunk is fed with the next one.
class Scorer {
 public:
  Scorer(const model::Model& model, int64_t start_token, bool per_position, std::vector<Tensor>* logits)
      : model_(model), start_token_(start_token), per_position_(per_position), logits_(logits) {}

  Score score(InputStream& stream, StreamState& state, int64_t chunk) {
    Score total = Score::from(state, start_token_);
    while (std::optional<StepRun> run = stream.read(chunk)) {
      StepRun input;
      std::vector<int64_t> targets;
      for (const int64_t symbol : run->tokens) {
        if (total.previous >= 0) {
          input.tokens.push_back(total.previous);
          targets.push_back(symbol);
        }
        total.previous = symbol;
      }
      total.length += run->length;
      input.length = static_cast<int64_t>(targets.size());
      if (input.length == 0) {
        continue;
      }
      if (state.position > 0) {
        note_growing(model_, state.position + input.length);
      }
      const Tensor rows =
          model_.forward(input.input(model_, state.position), &state.carry).value().reshape({input.length, -1});
      add(stream.piece(), rows, targets, total);
      state.position += input.length;
    }
    total.leave_in(state);
    return total;
  }

 private:
  void add(const Piece& piece, const Tensor& rows, const std::vector<int64_t>& targets, Score& total) {
    if (logits_ != nullptr) {
      logits_->push_back(rows.to(DType::kFloat32).to(Device{}).clone());
    }
    const Tensor wanted = Tensor::from({static_cast<int64_t>(targets.size())}, targets).to(rows.device());
    // Where the stream began without a start token, its first symbol has no score.
    const int64_t first = total.length - static_cast<int64_t>(targets.size());
    const Tensor losses = ops::cross_entropy(Variable(rows), wanted, 0).value().to(Device{}).to(DType::kFloat64);
    for (size_t i = 0; i < targets.size(); ++i) {
      const double log_likelihood = -losses.data<double>()[i];
      total.log_likelihood += log_likelihood;
      if (per_position_) {
        const int64_t position = first + static_cast<int64_t>(i);
        std::printf("%s\t%lld\t%lld\t%.6g\n", piece.name.c_str(), static_cast<long long>(position),
                    static_cast<long long>(targets[i]), log_likelihood);
      }
      ++total.scored;
    }
  }

  const model::Model& model_;
  int64_t start_token_;
  bool per_position_;
  std::vector<Tensor>* logits_;
};

/// (B, L, V), shorter records padded with 0.
void write_logits(const std::string& file, const std::vector<std::vector<Tensor>>& records, int64_t outputs) {
  int64_t longest = 0;
  for (const auto& record : records) {
    int64_t length = 0;
    for (const Tensor& part : record) {
      length += part.size(0);
    }
    longest = std::max(longest, length);
  }
  Tensor all = Tensor::zeros({static_cast<int64_t>(records.size()), longest, outputs}, DType::kFloat32);
  for (size_t b = 0; b < records.size(); ++b) {
    int64_t at = 0;
    for (const Tensor& part : records[b]) {
      Tensor place = all.slice(0, static_cast<int64_t>(b), static_cast<int64_t>(b) + 1).slice(1, at, at + part.size(0));
      place.copy_from(part.reshape({1, part.size(0), outputs}));
      at += part.size(0);
    }
  }
  data::write_npy(file, all);
}

}  // namespace

int run_score(const ScoreArguments& arguments) {
  const LoadedModel loaded = load_model(arguments.model, arguments.overrides);
  const model::ModelShape& shape = loaded.task.shape;
  require(shape.head == model::HeadKind::kLanguageModel, arguments.model, " is no language model; one trained with ",
          "task.kind = \"language_model\" was wanted");
  const int64_t start_token = shape.start_token && !arguments.no_bos ? shape.vocabulary : -1;
  const StreamInputs inputs{arguments.inputs, {}, {arguments.raw_format, arguments.raw_rate}};
  const int64_t chunk = arguments.chunk > 0 ? arguments.chunk : kDefaultChunk;
  GradMode off(false);
  std::printf(arguments.per_position ? "name\tposition\tsymbol\tlog_likelihood_nats\n"
                                     : "name\tlength\tlog_likelihood_nats\tbits_per_symbol\n");
  std::vector<std::vector<Tensor>> all_logits;
  const auto score_one = [&](InputStream& stream, StreamState& state) {
    std::vector<Tensor> logits;
    Scorer scorer(*loaded.model, start_token, arguments.per_position, arguments.logits.empty() ? nullptr : &logits);
    const Score score = scorer.score(stream, state, chunk);
    if (!arguments.per_position) {
      // Six digits: what float32 and the order of chunks leave certain (|difference| <= 1e-5 relative).
      std::printf("%s\t%lld\t%.6g\t%.6g\n", stream.piece().name.c_str(), static_cast<long long>(score.length),
                  score.log_likelihood, score.bits());
    }
    if (!arguments.logits.empty()) {
      all_logits.push_back(std::move(logits));
    }
  };
  const int reports = for_each_stream(loaded, "score", inputs, arguments.state, score_one);
  if (!arguments.logits.empty()) {
    write_logits(arguments.logits, all_logits, shape.outputs);
  }
  return stop_requested() ? kInterrupted : reports > 0 ? 1 : 0;
}

}  // namespace blockstate::apps
