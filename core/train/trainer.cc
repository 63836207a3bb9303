// SPDX-License-Identifier: Apache-2.0
#include "core/train/trainer.h"

#include <chrono>
#include <cmath>

#include "core/base/random.h"

namespace blockstate::train {
namespace {

constexpr uint64_t kDropoutPurpose = 0x64726f70;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

Trainer::Trainer(const model::Model& model, const Objective& objective, const TrainerOptions& options,
                 data::Loader& loader, std::function<Evaluation()> evaluate, const CheckpointStore& store,
                 config::Value model_config, TrainerObserver observer)
    : model_(model),
      options_(options),
      loader_(loader),
      evaluate_(std::move(evaluate)),
      store_(store),
      model_config_(std::move(model_config)),
      observer_(std::move(observer)),
      optimizer_(model, options.optimizer),
      gradients_(model, objective, options.record) {
  require(options.length.length_start % model.stride() == 0, "train.length_start = ", options.length.length_start,
          " must be a multiple of the model's stride, ", model.stride(), " steps");
  require(options.length.length_start == 0 || model.shape().head != model::HeadKind::kClassify,
          "train.length_start needs a target at every step; a classifier has one for the whole record");
  state_.seed = static_cast<int64_t>(options.seed);
}

int64_t Trainer::resume() {
  const std::optional<CheckpointPlace> latest = store_.latest();
  if (!latest) {
    return 0;
  }
  const Checkpoint checkpoint = read_checkpoint(latest->directory);
  load_parameters(model_, checkpoint.model, (latest->directory / "model.safetensors").string());
  optimizer_.load_state(checkpoint.optimizer, (latest->directory / "optimizer.safetensors").string());
  require(checkpoint.state.seed == state_.seed, latest->directory.string(), " was trained with seed ",
          checkpoint.state.seed, ", this run has seed ", state_.seed);
  state_ = checkpoint.state;
  loader_.seek(state_.loader_position);
  next_.reset();
  return state_.step;
}

Trainer::Prepared Trainer::prepare(int64_t step) {
  Prepared prepared;
  prepared.epoch = loader_.epoch();
  std::optional<data::Batch> batch = loader_.next();
  require(batch.has_value(), "the training data ended");
  const int64_t length = warmed_up_length(options_.length, step, batch->length());
  // Cut sequences are more rows. A chunk bounds the steps in memory, so they are taken in groups of as many steps.
  const int64_t steps_at_once = batch->batch() * options_.chunking.steps;
  const data::Batch all = data::cut_records(*batch, length);
  const int64_t rows = steps_at_once > 0 && all.batch() > batch->batch()
                           ? std::max<int64_t>(1, steps_at_once / std::min(length, options_.chunking.steps))
                           : all.batch();
  const uint64_t key = mix_key(mix_key(options_.seed, kDropoutPurpose), static_cast<uint64_t>(step));
  for (int64_t begin = 0; begin < all.batch(); begin += rows) {
    const int64_t end = std::min(all.batch(), begin + rows);
    data::Batch group = rows < all.batch() ? data::slice_rows(all, begin, end) : all;
    model::ModelInput input = model_input(model_, group, true, key, options_.chunking.steps);
    prepared.groups.emplace_back(std::move(group), std::move(input));
  }
  prepared.rows = all.batch();
  prepared.length = all.length();
  prepared.tokens = all.token_count;
  prepared.loader_position = loader_.position();
  return prepared;
}

/// What goes wrong here belongs to the next step: it is met again there.
void Trainer::prepare_next(int64_t loader_position) {
  try {
    next_ = prepare(state_.step + 1);
  } catch (const std::exception&) {
    next_.reset();
    loader_.seek(loader_position);
  }
}

void Trainer::one_step(StepEvent& event) {
  const double begin = now();
  const Prepared current = next_ ? std::move(*next_) : prepare(state_.step);
  next_.reset();
  event.epoch = current.epoch;
  optimizer_.clear_gradients();
  StepReport report;
  try {
    std::vector<PendingLoss> losses;
    for (const auto& [batch, input] : current.groups) {
      losses.push_back(gradients_(batch, input, options_.chunking));
    }
    optimizer_.start_step(schedule_factor(options_.schedule, state_.step, options_.steps));
    optimizer_.clear_gradients();
    if (state_.step + 1 < options_.steps) {
      prepare_next(current.loader_position);
    }
    event.loss = 0;
    for (const PendingLoss& loss : losses) {
      event.loss += loss.wait();
    }
    report = optimizer_.finish_step();
  } catch (const OutOfMemory& problem) {
    optimizer_.clear_gradients();
    gradients_.give_up();  // so that what would fit is measured without recordings
    throw StepOutOfMemory(problem.what(), current.rows, current.length);
  }

  ++state_.step;
  state_.metric.reset();
  state_.loader_position = current.loader_position;
  state_.tokens_seen += current.tokens;
  summary_.seconds += now() - begin;
  summary_.tokens += current.tokens;
  event.step = state_.step;
  event.steps = options_.steps;
  event.tokens = state_.tokens_seen;
  event.lr = report.lr;
  event.grad_norm = report.grad_norm;
  event.skipped = report.skipped;
  event.seconds = summary_.seconds;
  event.tokens_per_second = static_cast<double>(summary_.tokens) / std::max(1e-9, summary_.seconds);
}

TrainSummary Trainer::run(const std::atomic<bool>& stop) {
  reset_peak_memory(model_.device());
  StepEvent event;
  bool saved = true;
  while (state_.step < options_.steps && !stop) {
    one_step(event);
    saved = false;
    summary_.loss = event.loss;
    if (observer_.on_step) {
      observer_.on_step(event);
    }
    const bool last = state_.step == options_.steps;
    bool best = false;
    if (evaluate_ && (last || (options_.eval_every > 0 && state_.step % options_.eval_every == 0))) {
      best = evaluate_now(event);
    }
    if (best || last || (options_.save_every > 0 && state_.step % options_.save_every == 0)) {
      save();
      saved = true;
    }
  }
  if (!saved) {
    save();
  }
  summary_.step = state_.step;
  summary_.replayed = gradients_.replayed();
  summary_.finished = state_.step >= options_.steps;
  summary_.tokens_per_second = static_cast<double>(summary_.tokens) / std::max(1e-9, summary_.seconds);
  summary_.peak_bytes = memory_statistics(model_.device()).peak;
  return summary_;
}

bool Trainer::evaluate_now(const StepEvent& event) {
  const Evaluation evaluation = evaluate_();
  state_.metric = evaluation.value;
  const bool better = std::isfinite(evaluation.value) &&
                      (!state_.best_metric || (evaluation.higher_is_better ? evaluation.value > *state_.best_metric
                                                                           : evaluation.value < *state_.best_metric));
  if (better) {
    state_.best_metric = evaluation.value;
    state_.best_step = state_.step;
  }
  summary_.evaluation = evaluation;
  if (observer_.on_evaluation) {
    observer_.on_evaluation(event, evaluation);
  }
  return better;
}

void Trainer::save() {
  Checkpoint checkpoint;
  checkpoint.config = model_config_;
  checkpoint.model = parameter_tensors(model_);
  checkpoint.optimizer = optimizer_.state();
  checkpoint.state = state_;
  store_.save(checkpoint);
  if (observer_.on_save) {
    observer_.on_save(state_.step, store_.directory() / std::to_string(state_.step));
  }
}

}  // namespace blockstate::train
