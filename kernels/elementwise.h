// SPDX-License-Identifier: Apache-2.0
// Element-wise functions, gates and their gradients over rows of a matrix.
//
// All views are (rows, columns) with last stride 1; rows may be strided. Outputs may be the same view as an input.
// Gradients overwrite unless a function says it adds.
#pragma once

#include <cstdint>

#include "core/base/random.h"
#include "core/base/view.h"
#include "kernels/cuda_exec.h"

namespace blockstate::kernels {

/// gelu is the exact x * Phi(x); silu(x) = x * sigmoid(x); softplus(x) = log(1 + exp(x)), linear above 20;
/// negative_exp(x) = -exp(x), Mamba's A from A_log.
enum class Activation : uint8_t { kIdentity, kRelu, kSilu, kGelu, kSigmoid, kTanh, kSoftplus, kNegativeExp };

/// The random word that decides over element (row, column) of a dropout: a pure function of what the element is, so the
/// mask does not depend on the order of rows, on chunks or on the device.
BLOCKSTATE_HOST_DEVICE inline uint32_t dropout_draw(uint64_t key, int64_t record, int64_t position, int64_t column) {
  const Philox draw(mix_key(key, static_cast<uint64_t>(record)), static_cast<uint64_t>(position),
                    static_cast<uint64_t>(column) >> 2);
  return draw.word[column & 3];
}

/// Dropout of one tensor in one step (keyed, never ordered: docs/chunk_and_carry.md). Element (row, column) is kept
/// where unit_float(dropout_draw(key, record[row], position[row], column)) >= rate, and then scaled by 1/(1 - rate); 0
/// elsewhere, whatever x holds. `key` already mixes seed, step and layer; rate is in [0, 1). Rows with position < 0
/// (padding) give 0.
template <class T>
struct Dropout {
  View<T, 2> y;
  View<const T, 2> x;
  View<const int64_t, 1> record;    // (rows)
  View<const int64_t, 1> position;  // (rows)
  uint64_t key = 0;
  float rate = 0;
};

namespace cpu {

/// y = f(x)
template <class T>
void activation_forward(View<T, 2> y, View<const T, 2> x, Activation activation);
/// dx = dy * f'(x)
template <class T>
void activation_backward(View<T, 2> dx, View<const T, 2> dy, View<const T, 2> x, Activation activation);

/// y = value * f(gate)
template <class T>
void gated_forward(View<T, 2> y, View<const T, 2> value, View<const T, 2> gate, Activation activation);
/// dvalue = dy * f(gate); dgate = dy * value * f'(gate)
template <class T>
void gated_backward(View<T, 2> dvalue, View<T, 2> dgate, View<const T, 2> dy, View<const T, 2> value,
                    View<const T, 2> gate, Activation activation);

/// y = a + b
template <class T>
void add(View<T, 2> y, View<const T, 2> a, View<const T, 2> b);
/// y += scale * x
template <class T>
void accumulate(View<T, 2> y, View<const T, 2> x, T scale);
/// y = scale * x
template <class T>
void scale(View<T, 2> y, View<const T, 2> x, T scale);
/// y = x, any strides
template <class T>
void copy(View<T, 2> y, View<const T, 2> x);
/// sum[column] += sum over rows of x, in fixed order (bias gradients)
template <class T>
void add_column_sums(View<T, 1> sum, View<const T, 2> x);
/// Forward and backward alike: the gradient of dropout is dropout of the gradient with the same key.
template <class T>
void dropout(const Dropout<T>& args);

}  // namespace cpu

/// The same; T is float or BFloat16, computed in float. Sums over rows are float.
namespace cuda {
template <class T>
void activation_forward(const Exec& exec, View<T, 2> y, View<const T, 2> x, Activation activation);
template <class T>
void activation_backward(const Exec& exec, View<T, 2> dx, View<const T, 2> dy, View<const T, 2> x,
                         Activation activation);
template <class T>
void gated_forward(const Exec& exec, View<T, 2> y, View<const T, 2> value, View<const T, 2> gate,
                   Activation activation);
template <class T>
void gated_backward(const Exec& exec, View<T, 2> dvalue, View<T, 2> dgate, View<const T, 2> dy, View<const T, 2> value,
                    View<const T, 2> gate, Activation activation);
template <class T>
void add(const Exec& exec, View<T, 2> y, View<const T, 2> a, View<const T, 2> b);
template <class T>
void accumulate(const Exec& exec, View<T, 2> y, View<const T, 2> x, float scale);
template <class T>
void scale(const Exec& exec, View<T, 2> y, View<const T, 2> x, float scale);
template <class T>
void add_column_sums(const Exec& exec, View<float, 1> sum, View<const T, 2> x);
template <class T>
void dropout(const Exec& exec, const Dropout<T>& args);
}  // namespace cuda
}  // namespace blockstate::kernels
