// SPDX-License-Identifier: Apache-2.0
#include "core/nn/block_state.h"

#include <bit>
#include <cmath>

#include "core/autograd/ops.h"
#include "core/nn/attention_range.h"

namespace blockstate::nn {
namespace {

const config::EnumNames<BlockStateVariant> kVariantNames = {{"SH", BlockStateVariant::kSingleHead},
                                                            {"MH", BlockStateVariant::kMultiHead},
                                                            {"MF", BlockStateVariant::kMultiFilter}};
const config::EnumNames<PositionKind> kPositionNames = {
    {"none", PositionKind::kNone}, {"rotary", PositionKind::kRotary}, {"t5", PositionKind::kT5}};

}  // namespace

void BlockStateConfig::visit(config::Visitor& v) {
  v.field("variant", variant, "context states: one SSM (SH), one a head (MH), readouts at window ends (MF)",
          kVariantNames);
  v.field("ssm", ssm, "the state-space sublayer it reads: s4d, mamba, or a [model.NAME] section of one of them");
  v.field("window", window, "steps of a window", config::at_least(2));
  v.field("states", states, "MF: context states S a window", config::at_least(1));
  v.field("heads", heads, "attention heads; they divide d_model", config::at_least(1));
  v.field("sees_self", sees_self, "whether a step attends to itself");
  v.field("position", position, "how distance enters the self-attention", kPositionNames);
  v.field("rotary_base", rotary_base, "base of the rotary angles", config::above(1));
}

AttentionConfig BlockStateConfig::attention() const { return {heads, window, sees_self, position, rotary_base}; }

BlockState::BlockState(const BlockStateConfig& config, const SsmFactory& make_ssm, int64_t d_model, double output_gain,
                       const Initialiser& init)
    : config_(config), width_(d_model) {
  self_ = add_child("self", std::make_unique<SelfAttention>(config.attention(), d_model, init.child("self")));
  const int64_t sources = config.variant == BlockStateVariant::kMultiHead ? config.heads : 1;
  for (int64_t i = 0; i < sources; ++i) {
    const std::string index = sources > 1 ? "." + std::to_string(i) : "";
    ssms_.push_back(add_child("ssm" + index, make_ssm(init.child("ssm" + index))));
    const bool multi_filter = config.variant == BlockStateVariant::kMultiFilter;
    const int64_t channels = multi_filter ? ssms_[0]->state_channels() : d_model;
    const std::string norm = "context_norm" + index, kv = "context_kv" + index;
    context_norms_.push_back(add_child(norm, std::make_unique<Norm>(channels, NormKind::kLayer, init.child(norm))));
    context_kv_.push_back(
        add_child(kv, std::make_unique<Linear>(channels, 2 * d_model / sources, false, init.child(kv))));
  }
  if (config.variant == BlockStateVariant::kMultiFilter) {
    const int64_t S = config.states, C = ssms_[0]->state_channels(), Q = ssms_[0]->state_size();
    readout_ = add_parameter("readout", init.normal("readout", {S, C, Q}, 1 / std::sqrt(static_cast<double>(Q))));
    context_ids_ = add_parameter("context_ids", init.normal("context_ids", {S, d_model}, 0.02), no_decay());
  }
  context_q_ = add_child("context_q", std::make_unique<Linear>(d_model, d_model, false, init.child("context_q")));
  out_proj_ =
      add_child("out_proj", std::make_unique<Linear>(2 * d_model, d_model, false, init.child("out_proj"), output_gain));
}

Variable BlockState::forward(const Variable& x, const Sequence& sequence, const Carry& carry) {
  const Variable self = self_->forward(x, sequence, carry.child("self"));
  const Variable q = context_q_->forward(x);
  const Variable context = config_.variant == BlockStateVariant::kMultiFilter
                               ? previous_window_context(x, q, sequence, carry)
                               : same_window_context(x, q, sequence, carry);
  return out_proj_->forward(ops::concat({self, context}, 2));
}

Variable BlockState::attend(const Variable& q, const Variable& k, const Variable& v,
                            const ops::AttentionRange& range) const {
  const int64_t B = q.size(0), H = config_.heads, P = width_ / H;
  const Variable y =
      ops::attention(ops::reshape(q, {B, q.size(1), H, P}), ops::reshape(k, {B, k.size(1), H, P}),
                     ops::reshape(v, {B, v.size(1), H, P}), {}, range, 1 / std::sqrt(static_cast<double>(P)));
  return ops::reshape(y, {B, q.size(1), width_});
}

Variable BlockState::same_window_context(const Variable& x, const Variable& q, const Sequence& sequence,
                                         const Carry& carry) {
  std::vector<Variable> keys, values;
  for (size_t i = 0; i < ssms_.size(); ++i) {
    const std::string name = ssms_.size() > 1 ? "ssm." + std::to_string(i) : "ssm";
    const Variable states = ssms_[i]->forward(x, sequence, carry.child(name));
    const int64_t part = width_ / static_cast<int64_t>(ssms_.size());
    const auto kv = context_kv_[i]->split(context_norms_[i]->forward(states, {}, x.dtype()).y, {part, part});
    keys.push_back(kv[0]);
    values.push_back(kv[1]);
  }
  Variable k = ops::concat(keys, 2), v = ops::concat(values, 2);
  const Carry kept = carry.child("context");
  const Variable past_k = kept.get("k"), past_v = kept.get("v");
  const int64_t carried = past_k.defined() ? past_k.size(1) : 0;
  if (carry.wanted()) {
    const int64_t keep = std::min(carried + x.size(1), config_.window - 1);
    kept.set("k", ops::tail(past_k, k, sequence.end, sequence.known, keep));
    kept.set("v", ops::tail(past_v, v, sequence.end, sequence.known, keep));
  }
  return attend(q, ops::concat({past_k, k}, 1), ops::concat({past_v, v}, 1),
                block_range(sequence, carried, config_.window));
}

Variable BlockState::previous_window_context(const Variable& x, const Variable& q, const Sequence& sequence,
                                             const Carry& carry) {
  const int64_t B = x.size(0), S = config_.states, W = config_.window, offset = sequence.offset;
  // Without a carry nobody reads the context of the last window: the SSM stops where that window starts.
  const int64_t last_start = (offset + sequence.length() - 1) / W * W - offset;
  const int64_t needed = carry.wanted() ? sequence.length() : std::max<int64_t>(0, last_start);

  const Carry kept = carry.child("context");
  Variable k = kept.get("k"), v = kept.get("v");
  if (!k.defined()) {
    k = Variable(Tensor::zeros({B, S, width_}, x.dtype(), x.value().device()));
    v = k;
  }
  std::vector<Variable> keys = {k}, values = {v};
  Variable states;
  if (needed > 0) {
    const bool all = needed == sequence.length();
    states = ssms_[0]->states_at_window_ends(all ? x : ops::slice(x, 1, 0, needed),
                                             all ? sequence : sequence.first(needed), W, carry.child("ssm"));
  }
  const int64_t groups = needed > 0 ? states.size(1) : 0;
  if (groups > 0) {
    const Variable contexts =
        ops::state_readout(ops::reshape(states, {B * groups, states.size(2), states.size(3)}), readout_);
    const Variable rows = ops::reshape(contexts, {B, groups * S, states.size(2)});
    const Variable normed = context_norms_[0]->forward(rows, {}, x.dtype()).y;
    const auto kv = context_kv_[0]->split(normed, {width_, width_});
    const Variable ids = ops::embedding(context_numbers(B, groups * S, x.value().device()), context_ids_);
    keys.push_back(ops::add(kv[0], ops::cast(ids, kv[0].dtype())));
    values.push_back(kv[1]);
    k = ops::slice(keys[1], 1, (groups - 1) * S, groups * S);
    v = ops::slice(values[1], 1, (groups - 1) * S, groups * S);
  }
  kept.set("k", k);
  kept.set("v", v);
  return attend(q, ops::concat(keys, 1), ops::concat(values, 1), previous_window_range(sequence, W, S));
}

Tensor BlockState::context_numbers(int64_t batch, int64_t contexts, Device device) {
  // Rows of any length share few of them: they are as long as the next power of two says.
  const int64_t count = batch * contexts;
  const auto size = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(count)));
  Tensor& numbers = numbers_[size];
  if (!numbers.defined() || numbers.device() != device) {
    Tensor made = Tensor::empty({size}, DType::kInt64);
    for (int64_t i = 0; i < size; ++i) {
      made.data<int64_t>()[i] = i % config_.states;
    }
    numbers = made.to(device);
  }
  return numbers.slice(0, 0, count).reshape({batch, contexts});
}

int64_t BlockState::carry_bytes(int64_t length, DType activations) const {
  int64_t bytes = dtype_size(activations) * 2 * width_ * self_->carried_steps(length);
  const bool multi_filter = config_.variant == BlockStateVariant::kMultiFilter;
  bytes +=
      dtype_size(activations) * 2 * width_ * (multi_filter ? config_.states : std::min(length, config_.window - 1));
  for (const Ssm* ssm : ssms_) {
    bytes += ssm->carry_bytes(length, activations);
  }
  return bytes;
}

}  // namespace blockstate::nn
