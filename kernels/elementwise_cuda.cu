// SPDX-License-Identifier: Apache-2.0
// Functions of one element, and sums of columns. Both move bytes: every access is 16 bytes wide where the views allow
// it, and a thread has several under way.
#include <algorithm>
#include <cfloat>

#include "kernels/elementwise_check.h"
#include "kernels/piece_sums.cuh"
#include "kernels/row_map.cuh"

namespace blockstate::kernels::cuda {
namespace {

// --- functions
// --------------------------------------------------------------------------------------------------------

struct Both {
  float value;
  float slope;
};

__device__ inline float sigmoid_of(float x) { return __fdividef(1.0f, 1.0f + expf(-x)); }

// Below this, silu is 0 in float; so is its limit, where the formula would be infinity times 0.
constexpr float kSiluZero = -104;

// The normal distribution and its density, both relatively accurate in the tails: by the polynomial of
// kernels/vector_math-inl.h for erfc(a) * e^(a^2).
__device__ inline Both normal_distribution(float x) {
  constexpr float kErfcScaled[] = {1.790011518e-1f,  -3.262336500e-1f, 2.456038823e-1f, -1.501131295e-1f,
                                   7.166394895e-2f,  -2.441680526e-2f, 4.274869507e-3f, 7.919385499e-4f,
                                   -5.788782974e-4f, -6.334355620e-5f};
  constexpr int kTerms = sizeof(kErfcScaled) / sizeof(float);
  const float a = fminf(fabsf(x), 14.849f);  // beyond it Phi is 0 or 1; 10.5 times the root of 2
  const float half = 0.5f * a, square = half * a;
  const float rest = fmaf(half, a, -square);  // the rounding of the square
  float e = expf(-square);
  e = fmaf(-e, rest, e);
  const float scaled = 0.7071067811865475f * a, t = __fdividef(scaled - 3.0f, scaled + 3.0f);
  float sum = kErfcScaled[kTerms - 1];
#pragma unroll
  for (int i = kTerms - 2; i >= 0; --i) {
    sum = fmaf(sum, t, kErfcScaled[i]);
  }
  const float lower = 0.5f * e * sum;
  return {x < 0 ? lower : 1 - lower, 0.3989422804014327f * e};
}

__device__ inline float gelu_of(float x, float cumulative) {
  return x < -FLT_MAX ? 0.0f : x * cumulative;  // Phi(-infinity) is 0
}

template <Activation kActivation>
__device__ inline float value_of(float x) {
  switch (kActivation) {
    case Activation::kIdentity:
      return x;
    case Activation::kRelu:
      return x < 0 ? 0.0f : x;  // NaN stays
    case Activation::kSilu:
      return x < kSiluZero ? 0.0f : x * sigmoid_of(x);
    case Activation::kGelu:
      return gelu_of(x, normal_distribution(x).value);
    case Activation::kSigmoid:
      return sigmoid_of(x);
    case Activation::kTanh:
      return tanhf(x);
    case Activation::kSoftplus:
      return x > 20 ? x : log1pf(expf(x));
    default:
      return -expf(x);
  }
}

template <Activation kActivation>
__device__ inline Both both_of(float x) {
  switch (kActivation) {
    case Activation::kIdentity:
      return {x, 1};
    case Activation::kRelu:
      return {value_of<Activation::kRelu>(x), x > 0 ? 1.0f : 0.0f};
    case Activation::kSilu: {
      const float at = x < kSiluZero ? kSiluZero : x, s = sigmoid_of(at);
      return {x < kSiluZero ? 0.0f : x * s, s * (1 + at * (1 - s))};
    }
    case Activation::kGelu: {
      const Both normal = normal_distribution(x);
      const float finite = fminf(fmaxf(x, -FLT_MAX), FLT_MAX);
      return {gelu_of(x, normal.value), fmaf(finite, normal.slope, normal.value)};
    }
    case Activation::kSigmoid: {
      const float s = sigmoid_of(x);
      return {s, s * (1 - s)};
    }
    case Activation::kTanh: {
      const float e = expf(-2 * fabsf(x));  // 1 - t * t would lose what is left of it far out
      return {tanhf(x), 4 * e / ((1 + e) * (1 + e))};
    }
    case Activation::kSoftplus:
      return {value_of<Activation::kSoftplus>(x), x > 20 ? 1.0f : sigmoid_of(x)};
    default: {
      const float y = -expf(x);
      return {y, y};
    }
  }
}

// What a kernel does with one element: x are the inputs, y the outputs.
struct Forward {
  static constexpr int kInputs = 1, kOutputs = 1;
  template <Activation kActivation>
  __device__ static void apply(const float (&x)[1], float (&y)[1]) {
    y[0] = value_of<kActivation>(x[0]);
  }
};
struct Backward {  // dy, x
  static constexpr int kInputs = 2, kOutputs = 1;
  template <Activation kActivation>
  __device__ static void apply(const float (&x)[2], float (&y)[1]) {
    y[0] = x[0] * both_of<kActivation>(x[1]).slope;
  }
};
struct Gate {  // value, gate
  static constexpr int kInputs = 2, kOutputs = 1;
  template <Activation kActivation>
  __device__ static void apply(const float (&x)[2], float (&y)[1]) {
    y[0] = x[0] * value_of<kActivation>(x[1]);
  }
};
struct GateBackward {  // dy, value, gate
  static constexpr int kInputs = 3, kOutputs = 2;
  template <Activation kActivation>
  __device__ static void apply(const float (&x)[3], float (&y)[2]) {
    const Both f = both_of<kActivation>(x[2]);
    y[0] = x[0] * f.value;
    y[1] = x[0] * x[1] * f.slope;
  }
};

// The activation is one for all elements: the choice is made once for all that a thread holds, not in its innermost
// loop.
template <class Op>
struct Activated {
  static constexpr int kInputs = Op::kInputs, kOutputs = Op::kOutputs;
  Activation activation;

  template <Activation kActivation, int kElements>
  __device__ static void each(const float (&x)[kInputs][kElements], float (&y)[kOutputs][kElements]) {
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      float in[kInputs], out[kOutputs];
#pragma unroll
      for (int k = 0; k < kInputs; ++k) {
        in[k] = x[k][i];
      }
      Op::template apply<kActivation>(in, out);
#pragma unroll
      for (int k = 0; k < kOutputs; ++k) {
        y[k][i] = out[k];
      }
    }
  }
  template <int kElements>
  __device__ void operator()(const float (&x)[kInputs][kElements], float (&y)[kOutputs][kElements]) const {
    switch (activation) {
      case Activation::kIdentity:
        return each<Activation::kIdentity>(x, y);
      case Activation::kRelu:
        return each<Activation::kRelu>(x, y);
      case Activation::kSilu:
        return each<Activation::kSilu>(x, y);
      case Activation::kGelu:
        return each<Activation::kGelu>(x, y);
      case Activation::kSigmoid:
        return each<Activation::kSigmoid>(x, y);
      case Activation::kTanh:
        return each<Activation::kTanh>(x, y);
      case Activation::kSoftplus:
        return each<Activation::kSoftplus>(x, y);
      case Activation::kNegativeExp:
        return each<Activation::kNegativeExp>(x, y);
    }
  }
};

// y = first + factor * second
struct Combine {
  static constexpr int kInputs = 2, kOutputs = 1;
  float factor;
  template <int kElements>
  __device__ void operator()(const float (&x)[2][kElements], float (&y)[1][kElements]) const {
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      y[0][i] = fmaf(factor, x[1][i], x[0][i]);
    }
  }
};
struct Scale {
  static constexpr int kInputs = 1, kOutputs = 1;
  float factor;
  template <int kElements>
  __device__ void operator()(const float (&x)[1][kElements], float (&y)[1][kElements]) const {
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      y[0][i] = factor * x[0][i];
    }
  }
};

// --- the loop over elements
// -------------------------------------------------------------------------------------------

constexpr int kThreads = 256;
template <class T, int kInputs, int kOutputs>
struct MapArguments {
  RowPointer<T> out[kOutputs];
  RowPointer<const T> in[kInputs];
  PackGrid grid;
};

// kCount neighbours: all inputs are read before the first is used.
template <int kCount, class T, class F>
__device__ inline void map_elements(const MapArguments<T, F::kInputs, F::kOutputs>& args, const F& function,
                                    int64_t row, int64_t column) {
  float x[F::kInputs][kCount], y[F::kOutputs][kCount];
#pragma unroll
  for (int i = 0; i < F::kInputs; ++i) {
    load_pack<kCount>(args.in[i].at(row, column), x[i]);
  }
  function(x, y);
#pragma unroll
  for (int i = 0; i < F::kOutputs; ++i) {
    store_pack<kCount>(args.out[i].at(row, column), y[i]);
  }
}

// A thread a pack: measured, more packs a thread are slower, for want of registers.
template <int kPack, class T, class F>
__global__ void __launch_bounds__(kThreads)
    map_kernel(const MapArguments<T, F::kInputs, F::kOutputs> args, const F function) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads;
  if (first + threadIdx.x >= args.grid.items) {
    return;
  }
  const PackGrid::Place place = args.grid.place(first, threadIdx.x);
  const int64_t column = place.pack * kPack, count = args.grid.columns - column;
  if (count >= kPack) {
    map_elements<kPack>(args, function, place.row, column);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    map_elements<1>(args, function, place.row, column + i);
  }
}

template <class T, class F>
void map(const Exec& exec, const char* op, const F& function, const View<T, 2> (&out)[F::kOutputs],
         const View<const T, 2> (&in)[F::kInputs]) {
  int64_t rows = in[0].size[0], columns = in[0].size[1];
  if (rows == 0 || columns == 0) {
    return;
  }
  MapArguments<T, F::kInputs, F::kOutputs> args;
  bool joined = true, aligned = true;
  for (int i = 0; i < F::kOutputs; ++i) {
    args.out[i] = RowPointer<T>(out[i]);
    joined = joined && out[i].contiguous();
  }
  for (int i = 0; i < F::kInputs; ++i) {
    args.in[i] = RowPointer<const T>(in[i]);
    joined = joined && in[i].contiguous();
  }
  if (joined) {  // one long row
    columns *= rows;
    rows = 1;
  }
  const auto starts_aligned = [&](auto view) {
    view.size[0] = rows;
    return rows_aligned(view, 16);
  };
  for (int i = 0; i < F::kOutputs; ++i) {
    aligned = aligned && starts_aligned(out[i]);
  }
  for (int i = 0; i < F::kInputs; ++i) {
    aligned = aligned && starts_aligned(in[i]);
  }
  const auto launch = [&](auto kernel, int pack) {
    args.grid = PackGrid(rows, columns, pack);
    kernel<<<grid_size(args.grid.items, kThreads, op), kThreads, 0, stream_of(exec)>>>(args, function);
    check_launch(exec, op);
  };
  if (aligned) {
    launch(map_kernel<kPackElements<T>, T, F>, kPackElements<T>);
  } else {
    launch(map_kernel<1, T, F>, 1);
  }
}

// --- sums of columns
// --------------------------------------------------------------------------------------------------

constexpr int kRowsAtOnce = 4;

// A block sums a piece of the rows for `lanes` packs of columns: its threads stand as (256 / lanes) rows of `lanes`,
// each takes every (256 / lanes)-th row, and their sums are added in the order of the threads.
template <int kPack, class T>
__global__ void __launch_bounds__(kThreads)
    column_sums_kernel(double* partial, const RowPointer<const T> x, int64_t rows, int64_t columns, int64_t piece,
                       int lanes) {
  const int lane = threadIdx.x % lanes, slot = threadIdx.x / lanes, slots = kThreads / lanes;
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * lanes + lane) * kPack;
  const int64_t begin = blockIdx.x * piece, end = begin + piece < rows ? begin + piece : rows;
  float sum[kPack] = {};
  if (column < columns) {
    for (int64_t row = begin + slot; row < end; row += kRowsAtOnce * slots) {
      float values[kRowsAtOnce][kPack];
#pragma unroll
      for (int k = 0; k < kRowsAtOnce; ++k) {
        const int64_t at = row + k * slots;
        load_pack<kPack>(x.at(at < end ? at : row, column), values[k]);
      }
#pragma unroll
      for (int k = 0; k < kRowsAtOnce; ++k) {
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          sum[i] += row + k * slots < end ? values[k][i] : 0.0f;
        }
      }
    }
  }
  __shared__ float shared[kThreads * kPack];
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    shared[threadIdx.x * kPack + i] = sum[i];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < lanes * kPack; i += kThreads) {
    const int64_t at = static_cast<int64_t>(blockIdx.y) * lanes * kPack + i;
    if (at < columns) {
      double total = 0;
      for (int s = 0; s < slots; ++s) {
        total += shared[s * lanes * kPack + i];
      }
      partial[blockIdx.x * columns + at] = total;
    }
  }
}

}  // namespace

template <class T>
void activation_forward(const Exec& exec, View<T, 2> y, View<const T, 2> x, Activation activation) {
  check_pair("activation_forward", "y", y, "x", x);
  map<T>(exec, "activation_forward", Activated<Forward>{activation}, {y}, {x});
}

template <class T>
void activation_backward(const Exec& exec, View<T, 2> dx, View<const T, 2> dy, View<const T, 2> x,
                         Activation activation) {
  check_pair("activation_backward", "dx", dx, "x", x);
  check_pair("activation_backward", "dy", dy, "x", x);
  map<T>(exec, "activation_backward", Activated<Backward>{activation}, {dx}, {dy, x});
}

template <class T>
void gated_forward(const Exec& exec, View<T, 2> y, View<const T, 2> value, View<const T, 2> gate,
                   Activation activation) {
  check_pair("gated_forward", "y", y, "value", value);
  check_pair("gated_forward", "gate", gate, "value", value);
  map<T>(exec, "gated_forward", Activated<Gate>{activation}, {y}, {value, gate});
}

template <class T>
void gated_backward(const Exec& exec, View<T, 2> dvalue, View<T, 2> dgate, View<const T, 2> dy, View<const T, 2> value,
                    View<const T, 2> gate, Activation activation) {
  check_pair("gated_backward", "dvalue", dvalue, "value", value);
  check_pair("gated_backward", "dgate", dgate, "value", value);
  check_pair("gated_backward", "dy", dy, "value", value);
  check_pair("gated_backward", "gate", gate, "value", value);
  map<T>(exec, "gated_backward", Activated<GateBackward>{activation}, {dvalue, dgate}, {dy, value, gate});
}

template <class T>
void add(const Exec& exec, View<T, 2> y, View<const T, 2> a, View<const T, 2> b) {
  check_pair("add", "y", y, "a", a);
  check_pair("add", "y", y, "b", b);
  map<T>(exec, "add", Combine{1}, {y}, {a, b});
}

template <class T>
void accumulate(const Exec& exec, View<T, 2> y, View<const T, 2> x, float scale) {
  check_pair("accumulate", "y", y, "x", x);
  map<T>(exec, "accumulate", Combine{scale}, {y}, {View<const T, 2>(y), x});
}

template <class T>
void scale(const Exec& exec, View<T, 2> y, View<const T, 2> x, float factor) {
  check_pair("scale", "y", y, "x", x);
  map<T>(exec, "scale", Scale{factor}, {y}, {x});
}

template <class T>
void add_column_sums(const Exec& exec, View<float, 1> sum, View<const T, 2> x) {
  check_column_sums(sum, x);
  const int64_t rows = x.size[0], columns = x.size[1];
  if (rows == 0 || columns == 0) {
    return;
  }
  const int pack = rows_packed(x) ? kPackElements<T> : 1;
  int lanes = 32;
  while (lanes > 1 && lanes / 2 * pack >= columns) {
    lanes /= 2;
  }
  const int64_t tiles = ceil_div<int64_t>(columns, lanes * pack);
  require(tiles <= 65535, "add_column_sums: ", columns, " columns are too many");
  const int64_t least = kThreads / lanes * kRowsAtOnce;
  const int64_t piece = std::max(least, ceil_div(rows * tiles, kSumBlocks));
  const int64_t pieces = ceil_div(rows, piece);
  const Scratch<double> partial(exec, pieces * columns);
  const dim3 grid(static_cast<unsigned>(pieces), static_cast<unsigned>(tiles));
  const auto kernel = pack == 1 ? column_sums_kernel<1, T> : column_sums_kernel<kPackElements<T>, T>;
  kernel<<<grid, kThreads, 0, stream_of(exec)>>>(partial.get(), RowPointer<const T>(x), rows, columns, piece, lanes);
  check_launch(exec, "add_column_sums");
  const View<float, 2> sums{sum.data, {1, columns}, {0, sum.stride[0]}};
  add_pieces(exec, "add_column_sums", sums, partial.get(), pieces);
}

#define BLOCKSTATE_INSTANTIATE(T)                                                                                \
  template void activation_forward<T>(const Exec&, View<T, 2>, View<const T, 2>, Activation);                    \
  template void activation_backward<T>(const Exec&, View<T, 2>, View<const T, 2>, View<const T, 2>, Activation); \
  template void gated_forward<T>(const Exec&, View<T, 2>, View<const T, 2>, View<const T, 2>, Activation);       \
  template void gated_backward<T>(const Exec&, View<T, 2>, View<T, 2>, View<const T, 2>, View<const T, 2>,       \
                                  View<const T, 2>, Activation);                                                 \
  template void add<T>(const Exec&, View<T, 2>, View<const T, 2>, View<const T, 2>);                             \
  template void accumulate<T>(const Exec&, View<T, 2>, View<const T, 2>, float);                                 \
  template void scale<T>(const Exec&, View<T, 2>, View<const T, 2>, float);                                      \
  template void add_column_sums<T>(const Exec&, View<float, 1>, View<const T, 2>);
BLOCKSTATE_INSTANTIATE(float)
BLOCKSTATE_INSTANTIATE(BFloat16)
#undef BLOCKSTATE_INSTANTIATE

}  // namespace blockstate::kernels::cuda
