// SPDX-License-Identifier: Apache-2.0
#include "core/model/generator.h"

#include <algorithm>

#include "core/autograd/ops.h"
#include "core/tensor/place.h"
#include "core/tensor/recording.h"
#include "kernels/argmax.h"

namespace blockstate::model {
namespace {

bool same_sizes(const nn::CarryMap& a, const nn::CarryMap& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](const auto& left, const auto& right) {
           return left.first == right.first && left.second.shape() == right.second.shape();
         });
}

}  // namespace

Generator::Generator(const Model& model, int64_t batch) : model_(model), batch_(batch) {
  require(model.shape().head == HeadKind::kLanguageModel && model.shape().vocabulary > 0,
          "only a language model over tokens can generate");
  step_ = Tensor::zeros({3, batch}, DType::kInt64, model.device());
  input_.sequence = nn::plain_sequence(batch, 1, 0, model.device());
  input_.tokens = step_.slice(0, 0, 1).reshape({batch, 1});
  input_.sequence.position = step_.slice(0, 1, 2).reshape({batch, 1});
  input_.sequence.known = step_.slice(0, 2, 3).reshape({batch});
}

Tensor Generator::prompt(const Tensor& tokens, int64_t chunk) {
  GradMode off(false);
  require(tokens.rank() == 2 && tokens.size(0) == batch_ && tokens.size(1) > 0, "a prompt of shape ",
          shape_text(tokens.shape()), " for ", batch_, " rows; (rows, steps) was wanted, one step or more");
  fixed_ = false;
  const int64_t last = tokens.size(1) - 1;  // the only step whose logits are wanted
  const auto piece = [&](int64_t begin, int64_t end) {
    ModelInput input;
    input.tokens = tokens.slice(1, begin, end).packed().to(model_.device());
    input.sequence = nn::plain_sequence(batch_, end - begin, position_, model_.device());
    position_ += end - begin;
    return input;
  };
  for (int64_t begin = 0; begin < last; begin += chunk) {
    model_.run(piece(begin, std::min(last, begin + chunk)), &carry_);
  }
  logits_ = model_.forward(piece(last, last + 1), &carry_).value().reshape({batch_, -1});
  return logits_;
}

void Generator::place_positions() {
  std::vector<int64_t> values(2 * static_cast<size_t>(batch_), position_ + 1);
  std::fill_n(values.begin(), batch_, position_);
  step_.slice(0, 1, 3).copy_from(Tensor::from({2, batch_}, values));
  if (!model_.steps_repeat()) {
    input_.sequence = nn::plain_sequence(batch_, 1, position_, model_.device());
  }
}

Tensor Generator::forward() { return model_.forward(input_, &carry_).value().reshape({batch_, -1}); }

/// Gives the carry and the logits places of their own, which the recorded step reads and overwrites.
void Generator::fix_carry() {
  for (auto& [name, value] : carry_) {
    value = Variable(value.value().clone());
  }
  logits_ = logits_.clone();
  fixed_ = true;
}

Tensor Generator::step(const std::vector<int64_t>& tokens) {
  require(static_cast<int64_t>(tokens.size()) == batch_, tokens.size(), " tokens for ", batch_, " rows");
  return step(Tensor::from({batch_}, tokens));
}

Tensor Generator::step(const Tensor& tokens) {
  require(tokens.shape() == Shape{batch_}, "tokens of shape ", shape_text(tokens.shape()), " for ", batch_, " rows");
  step_.slice(0, 0, 1).copy_from(tokens.reshape({1, batch_}));
  return advance();
}

Tensor Generator::best() const {
  require(logits_.defined(), "a generator has no logits before its prompt");
  Tensor best = Tensor::empty({batch_}, DType::kInt64, logits_.device());
  dispatch(logits_, "argmax", [&](auto on) {
    BLOCKSTATE_KERNEL(on, argmax, best.view<int64_t, 1>(), logits_.view<typename decltype(on)::Value, 2>());
  });
  return best;
}

Tensor Generator::advance() {
  GradMode off(false);
  place_positions();
  const bool can_repeat = may_record(model_.device()) && model_.steps_repeat();
  if (!fixed_) {
    const nn::CarryMap before = carry_;
    logits_ = forward();
    if (can_repeat && same_sizes(before, carry_)) {
      fix_carry();
      graph_.reset();
    }
  } else {
    if (!graph_) {
      graph_ = std::make_unique<kernels::cuda::StreamGraph>(kernels::cuda::exec(model_.device().index));
      graph_->record([&] {
        const ops::StatesInPlace over;
        const nn::CarryMap places = carry_;
        logits_.copy_from(forward());
        for (const auto& [name, place] : places) {
          Tensor target = place.value();
          if (carry_.at(name).value().bytes() != target.bytes()) {
            target.copy_from(carry_.at(name).value());
          }
        }
        carry_ = places;
      });
    }
    graph_->launch();
  }
  ++position_;
  return logits_;
}

void Generator::restore(const nn::CarryMap& carry, int64_t position) {
  GradMode off(false);
  nn::CarryMap rows;
  for (const auto& [name, value] : carry) {
    const int64_t count = value.size(0);
    require(count == batch_ || count == 1, "the carry's ", name, " has ", count, " rows; ", batch_, " were wanted");
    // A place of its own: recorded steps write over the carry, which may be the caller's.
    const std::vector<Variable> copies(static_cast<size_t>(batch_ / count), value);
    rows[name] = Variable(ops::concat(copies, 0).value().to(model_.device()).clone());
  }
  carry_ = std::move(rows);
  position_ = position;
  fixed_ = false;
  graph_.reset();
}

}  // namespace blockstate::model
