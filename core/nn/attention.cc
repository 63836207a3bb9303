// SPDX-License-Identifier: Apache-2.0
#include "core/nn/attention.h"

#include <algorithm>
#include <cmath>

#include "core/autograd/ops.h"
#include "core/nn/attention_range.h"

namespace blockstate::nn {
namespace {

constexpr int64_t kT5Buckets = 32;
constexpr int64_t kT5MaxDistance = 128;

const config::EnumNames<PositionKind> kPositionNames = {
    {"none", PositionKind::kNone}, {"rotary", PositionKind::kRotary}, {"t5", PositionKind::kT5}};

}  // namespace

void AttentionConfig::visit(config::Visitor& v) {
  v.field("heads", heads, "attention heads; they divide d_model", config::at_least(1));
  v.field("window", window, "keys each step sees, itself included; 0: all before it", config::at_least(0));
  v.field("sees_self", sees_self, "whether a step attends to itself (false: the window is the steps before it)");
  v.field("position", position, "how distance enters", kPositionNames);
  v.field("rotary_base", rotary_base, "base of the rotary angles", config::above(1));
}

int64_t t5_bucket(int64_t distance) {
  constexpr int64_t kExact = kT5Buckets / 2;
  if (distance < kExact) {
    return distance;
  }
  const double position =
      std::log(static_cast<double>(distance) / kExact) / std::log(static_cast<double>(kT5MaxDistance) / kExact);
  return std::min(kT5Buckets - 1, kExact + static_cast<int64_t>(position * kExact));
}

PositionTerm::PositionTerm(const AttentionConfig& config, const Initialiser& init)
    : kind_(config.position), base_(config.rotary_base) {
  if (kind_ == PositionKind::kT5) {
    table_ = add_parameter("relative_bias", init.normal("relative_bias", {kT5Buckets, config.heads}, 0.02), no_decay());
  }
}

Variable PositionTerm::rotate(const Variable& x, const Sequence& sequence) const {
  return kind_ == PositionKind::kRotary ? ops::rotary(x, sequence.position, base_) : x;
}

Variable PositionTerm::bias() const {
  if (kind_ != PositionKind::kT5) {
    return {};
  }
  if (!buckets_.defined() || buckets_.device() != table_.value().device()) {
    std::vector<int64_t> bucket;
    for (int64_t distance = 0; distance <= kT5MaxDistance; ++distance) {
      bucket.push_back(t5_bucket(distance));
    }
    buckets_ = Tensor::from({kT5MaxDistance + 1}, bucket).to(table_.value().device());
  }
  return ops::gather_buckets(table_, buckets_);
}

SelfAttention::SelfAttention(const AttentionConfig& config, int64_t d_model, const Initialiser& init)
    : config_(config), width_(d_model) {
  require(d_model % config.heads == 0, "attention: heads = ", config.heads, " does not divide d_model = ", d_model);
  require(config.position != PositionKind::kRotary || d_model / config.heads % 2 == 0,
          "attention: rotary positions need an even head width; d_model / heads = ", d_model / config.heads);
  qkv_ = add_child("qkv", std::make_unique<Linear>(d_model, 3 * d_model, false, init.child("qkv")));
  position_ = add_child("position", std::make_unique<PositionTerm>(config, init.child("position")));
}

Variable SelfAttention::forward(const Variable& x, const Sequence& sequence, const Carry& carry) const {
  const int64_t B = x.size(0), L = x.size(1), H = config_.heads, P = width_ / H;
  const auto parts = qkv_->split(x, {width_, width_, width_});
  const auto heads = [&](const Variable& rows, int64_t length) { return ops::reshape(rows, {B, length, H, P}); };
  const Variable q = position_->rotate(heads(parts[0], L), sequence);
  Variable k = ops::reshape(position_->rotate(heads(parts[1], L), sequence), {B, L, width_});
  Variable v = parts[2];
  const Variable past_k = carry.get("k"), past_v = carry.get("v");
  const int64_t carried = past_k.defined() ? past_k.size(1) : 0;
  if (carry.wanted()) {
    const int64_t keep = carried_steps(carried + L);
    carry.set("k", ops::tail(past_k, k, sequence.end, sequence.known, keep));
    carry.set("v", ops::tail(past_v, v, sequence.end, sequence.known, keep));
  }
  k = ops::concat({past_k, k}, 1);
  v = ops::concat({past_v, v}, 1);
  const ops::AttentionRange range = sliding_range(sequence, carried, config_.window, config_.sees_self);
  const Variable y = ops::attention(q, heads(k, carried + L), heads(v, carried + L), position_->bias(), range,
                                    1 / std::sqrt(static_cast<double>(P)));
  return ops::reshape(y, {B, L, width_});
}

int64_t SelfAttention::carried_steps(int64_t length) const {
  if (config_.window == 0) {
    return length;
  }
  return std::min(length, config_.sees_self ? config_.window - 1 : config_.window);
}

Attention::Attention(const AttentionConfig& config, int64_t d_model, double output_gain, const Initialiser& init)
    : config_(config), width_(d_model) {
  attention_ = add_child("self", std::make_unique<SelfAttention>(config, d_model, init.child("self")));
  out_proj_ =
      add_child("out_proj", std::make_unique<Linear>(d_model, d_model, false, init.child("out_proj"), output_gain));
}

Variable Attention::forward(const Variable& x, const Sequence& sequence, const Carry& carry) {
  return out_proj_->forward(attention_->forward(x, sequence, carry));
}

MemoryClass Attention::memory_class() const {
  return config_.window == 0 ? MemoryClass::kGrowing : MemoryClass::kBounded;
}

int64_t Attention::carry_bytes(int64_t length, DType activations) const {
  return dtype_size(activations) * 2 * width_ * attention_->carried_steps(length);
}

}  // namespace blockstate::nn
