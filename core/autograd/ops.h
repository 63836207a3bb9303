// SPDX-License-Identifier: Apache-2.0
// Every differentiable function. Each checks shapes, allocates, calls the kernel of the tensor's device and records
// what its backward needs. Equations, gradients and shapes are in the kernel's header; letters are those of README.md.
// Arguments named "absent" may be undefined. Tensors (not Variables) carry no gradient.
#pragma once

#include <cstdint>
#include <vector>

#include "core/autograd/variable.h"
#include "kernels/elementwise.h"

namespace blockstate::ops {

// --- element-wise (kernels/elementwise.h); all of one shape -------------------------------------------------------
Variable add(const Variable& a, const Variable& b);
Variable scale(const Variable& x, double factor);
/// x in another type; its gradient goes back in x's.
Variable cast(const Variable& x, DType dtype);
Variable activation(const Variable& x, kernels::Activation kind);
/// value * f(gate)
Variable gated(const Variable& value, const Variable& gate, kernels::Activation kind);
/// x (B, L, D); record, position (B, L). `key` mixes seed, step and layer. rate 0 returns x.
Variable dropout(const Variable& x, const Tensor& record, const Tensor& position, uint64_t key, double rate);

// --- shape ----------------------------------------------------------------------------------------------------------
Variable reshape(const Variable& x, const Shape& shape);
Variable slice(const Variable& x, int dimension, int64_t begin, int64_t end);
/// Cuts one dimension into runs of the given sizes, which add up to it; shares memory.
std::vector<Variable> split(const Variable& x, int dimension, const std::vector<int64_t>& sizes);
/// Joins along one dimension; absent parts are left out.
Variable concat(const std::vector<Variable>& parts, int dimension);
/// The last `keep` steps of each row of [past | x] (kernels/tail.h). past (B, P, C) absent at the start; x (B, L, C).
Variable tail(const Variable& past, const Variable& x, const Tensor& end, const Tensor& known, int64_t keep);

// --- linear (kernels/gemm.h, embedding.h) ----------------------------------------------------------------------------
/// x (..., I) times weight (O, I) transposed, plus bias (O) if present -> (..., O)
Variable linear(const Variable& x, const Variable& weight, const Variable& bias = {});
/// One product whose columns are several results: sizes add up to O. Saves the copies that slicing would cost.
std::vector<Variable> linear_split(const Variable& x, const Variable& weight, const std::vector<int64_t>& sizes,
                                   const Variable& bias = {});
/// ids (B, L) int64, table (V, D) -> (B, L, D); ids below 0 give 0.
Variable embedding(const Tensor& ids, const Variable& table);

// --- norm (kernels/norm.h) ------------------------------------------------------------------------------------------
struct Normed {
  Variable y;
  Variable h;  ///< x + residual: the residual stream
};
/// RMSNorm where `layer` is false, LayerNorm where it is true. residual, bias absent allowed. y is of type `dtype`; the
/// residual stream is float32 also where activations are bfloat16.
Normed norm(const Variable& x, const Variable& residual, const Variable& weight, const Variable& bias, bool layer,
            double epsilon, DType dtype);
inline Normed norm(const Variable& x, const Variable& residual, const Variable& weight, const Variable& bias,
                   bool layer, double epsilon) {
  return norm(x, residual, weight, bias, layer, epsilon, x.dtype());
}

/// While one lives and no gradients are recorded, convolutions and scans overwrite the state they start from with the
/// one they end with: for whoever owns the carry and wants the memory of the step before for that of the next.
class StatesInPlace {
 public:
  StatesInPlace();
  ~StatesInPlace();
  StatesInPlace(const StatesInPlace&) = delete;
  StatesInPlace& operator=(const StatesInPlace&) = delete;

 private:
  bool previous_;
};

// --- sequence mixing -----------------------------------------------------------------------------------------------
struct WithState {
  Variable y;
  Variable state;  ///< undefined unless asked for
};
/// kernels/causal_conv1d.h. position absent: every step valid. initial absent: start of the sequence.
WithState causal_conv1d(const Variable& x, const Variable& weight, const Variable& bias, const Variable& initial,
                        const Tensor& position, bool silu, bool want_state);
struct ProjectedConv {
  WithState conv;
  Variable rest;  ///< the channels of the projection that are not convolved
};
/// kernels/projected_conv_step.h: one step, x (B, 1, I); weight (C, I) projects to conv_weight's channels and the rest.
/// Only while no gradients are recorded.
ProjectedConv projected_conv_step(const Variable& x, const Variable& weight, const Variable& conv_weight,
                                  const Variable& conv_bias, const Variable& initial, const Tensor& position, bool silu,
                                  bool want_state);

struct SelectiveScanInputs {
  Variable u, delta, A, B, C, D, z, delta_bias, initial;  // D, z, delta_bias, initial may be absent
};
/// kernels/selective_scan.h
WithState selective_scan(const SelectiveScanInputs& in, const Tensor& position, bool want_state);
/// kernels/selective_scan_step.h: one step, where `in.delta` (B, 1, R) times delta_weight (D, R) transposed gives
/// delta. Only while no gradients are recorded.
WithState selective_scan_step(const SelectiveScanInputs& in, const Variable& delta_weight, const Tensor& position,
                              bool want_state);

/// kernels/diagonal_scan.h. a, c (D, P, 2); D, initial may be absent.
WithState diagonal_scan(const Variable& u, const Variable& a, const Variable& c, const Variable& D,
                        const Variable& initial, const Tensor& position, bool want_state);

struct States {
  Variable at_ends;  ///< (B, finished windows, ...)
  Variable final;    ///< (B, ...) after the last step
};
/// The states alone, at the ends of windows (kernels/scan_windows.h): the first ends `first` steps (1 .. window) into
/// the chunk. kernels/selective_scan_states.h; C, D and z are not read.
States selective_scan_states(const SelectiveScanInputs& in, const Tensor& position, int64_t first, int64_t window);
/// kernels/diagonal_scan_states.h
States diagonal_scan_states(const Variable& u, const Variable& a, const Variable& initial, const Tensor& position,
                            int64_t first, int64_t window);

struct Discretized {
  Variable a;
  Variable c;
};
Discretized s4d_discretize(const Variable& log_dt, const Variable& log_real, const Variable& imaginary,
                           const Variable& B, const Variable& C);
/// kernels/state_readout.h: state (B, D, Q), weight (S, D, Q) -> (B, S, D)
Variable state_readout(const Variable& state, const Variable& weight);

struct AttentionRange {
  Tensor begin;        ///< (B, L) int64
  Tensor end;          ///< (B, L) int64
  int64_t offset = 0;  ///< index in k of the key that lies at query 0
};
/// kernels/attention.h. q (B, L, H, P); k, v (B, J, H, P); bias (H, M) absent allowed.
Variable attention(const Variable& q, const Variable& k, const Variable& v, const Variable& bias,
                   const AttentionRange& range, double scale);
/// kernels/rotary.h. x (B, L, H, P), position (B, L).
Variable rotary(const Variable& x, const Tensor& position, double base);
/// kernels/relative_bias.h: table (U, H), bucket of each distance (M) int64 -> bias by distance (H, M).
Variable gather_buckets(const Variable& table, const Tensor& bucket);

// --- pooling and loss -----------------------------------------------------------------------------------------------
/// kernels/pool.h. x (B, L, D), weight (B, L), record (B, L) -> (R, D). The weight may be a constant.
Variable pool(const Variable& x, const Variable& weight, const Tensor& record, int64_t records);
/// exp(score[b, t] - shift[record[b, t]]), 0 at padding: unnormalised softmax weights. score (B, L), shift (R).
Variable pool_weights(const Variable& score, const Tensor& record, const Tensor& shift);
/// x (R, D) divided by weight (R), row by row.
Variable divide_rows(const Variable& x, const Variable& weight);
/// x (R, D) times constant factors (R), row by row.
Variable scale_rows(const Variable& x, const Tensor& factor);
/// Row losses in nats: logits (R, V), targets (R) -> (R). Targets below 0 are ignored: loss 0.
Variable cross_entropy(const Variable& logits, const Tensor& targets, double label_smoothing);
/// sum(x * weight) -> (1); weight is a constant of the same shape, absent: ones.
Variable weighted_sum(const Variable& x, const Tensor& weight);

}  // namespace blockstate::ops
