// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <memory>

#include "core/base/parallel.h"
#include "kernels/norm_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/norm_cpu.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first
#include "kernels/row_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {

// Rows [begin, end).
template <class T>
void NormRows(const NormForward<T>& args, int64_t begin, int64_t end) {
  const hn::ScalableTag<T> d;
  const int64_t columns = args.x.size[1];
  const T inverse = T(1) / static_cast<T>(columns);
  const T* weight = args.weight.data;
  const T* bias = args.bias.data;
  for (int64_t r = begin; r < end; ++r) {
    const T* x = args.x.data + r * args.x.stride[0];
    const T* residual = args.residual ? args.residual.data + r * args.residual.stride[0] : nullptr;
    T* written = args.h ? args.h.data + r * args.h.stride[0] : nullptr;
    T* y = args.y.data + r * args.y.stride[0];
    auto sum = hn::Zero(d), squares = hn::Zero(d);
    ForEachVector(d, columns, [&](int64_t i, auto access) HWY_ATTR {
      auto v = access.Load(d, x + i);
      if (residual) {
        v = hn::Add(v, access.Load(d, residual + i));
      }
      if (written) {
        access.Store(d, v, written + i);
      }
      sum = hn::Add(sum, v);
      squares = hn::MulAdd(v, v, squares);
    });
    const T* h = written ? written : x;
    T mean = 0;
    if (args.mean) {  // the squares again, about the mean: no cancellation
      mean = Total(d, sum) * inverse;
      args.mean(r) = mean;
      const auto m = hn::Set(d, mean);
      squares = hn::Zero(d);
      ForEachVector(d, columns, [&](int64_t i, auto access) HWY_ATTR {
        const auto v = access.Keep(d, hn::Sub(access.Load(d, h + i), m));
        squares = hn::MulAdd(v, v, squares);
      });
    }
    const T reciprocal = T(1) / std::sqrt(Total(d, squares) * inverse + args.epsilon);
    args.reciprocal(r) = reciprocal;
    const auto scale = hn::Set(d, reciprocal);
    const auto m = hn::Set(d, mean);
    ForEachVector(d, columns, [&](int64_t i, auto access) HWY_ATTR {
      auto v = hn::Mul(hn::Sub(access.Load(d, h + i), m), scale);
      v = hn::Mul(v, access.Load(d, weight + i));
      if (bias) {
        v = hn::Add(v, access.Load(d, bias + i));
      }
      access.Store(d, v, y + i);
    });
  }
}

void NormRowsFloat(const NormForward<float>& args, int64_t begin, int64_t end) { NormRows(args, begin, end); }
void NormRowsDouble(const NormForward<double>& args, int64_t begin, int64_t end) { NormRows(args, begin, end); }

// Rows [begin, end) of dh; adds their share of dweight (and dbias) to `dweight` and `dbias`, of D elements each.
template <class T>
void NormGradientRows(const NormBackward<T>& args, int64_t begin, int64_t end, T* HWY_RESTRICT dweight,
                      T* HWY_RESTRICT dbias) {
  const hn::ScalableTag<T> d;
  const int64_t columns = args.h.size[1];
  const T inverse = T(1) / static_cast<T>(columns);
  const T* weight = args.weight.data;
  for (int64_t r = begin; r < end; ++r) {
    const T* dy = args.dy.data + r * args.dy.stride[0];
    const T* h = args.h.data + r * args.h.stride[0];
    const T* dh_out = args.dh_out ? args.dh_out.data + r * args.dh_out.stride[0] : nullptr;
    T* dh = args.dh.data + r * args.dh.stride[0];
    const auto m = hn::Set(d, args.mean ? args.mean(r) : T(0));
    const auto scale = hn::Set(d, args.reciprocal(r));
    // With g = weight * dy and n the normalised row: dh = reciprocal * (g - mean(g) - n * mean(g * n)).
    auto sum = hn::Zero(d), product = hn::Zero(d);
    ForEachVector(d, columns, [&](int64_t i, auto access) HWY_ATTR {
      const auto g = hn::Mul(access.Load(d, dy + i), access.Load(d, weight + i));
      const auto n = hn::Mul(hn::Sub(access.Load(d, h + i), m), scale);
      sum = hn::Add(sum, g);
      product = hn::MulAdd(g, n, product);
    });
    const auto mean_g = hn::Set(d, args.mean ? Total(d, sum) * inverse : T(0));
    const auto mean_gn = hn::Set(d, Total(d, product) * inverse);
    ForEachVector(d, columns, [&](int64_t i, auto access) HWY_ATTR {
      const auto gradient = access.Load(d, dy + i);
      const auto n = hn::Mul(hn::Sub(access.Load(d, h + i), m), scale);
      access.Store(d, hn::MulAdd(gradient, n, access.Load(d, dweight + i)), dweight + i);
      if (dbias) {
        access.Store(d, hn::Add(gradient, access.Load(d, dbias + i)), dbias + i);
      }
      const auto g = hn::MulSub(gradient, access.Load(d, weight + i), mean_g);
      auto out = hn::Mul(scale, hn::NegMulAdd(n, mean_gn, g));
      if (dh_out) {
        out = hn::Add(out, access.Load(d, dh_out + i));
      }
      access.Store(d, out, dh + i);
    });
  }
}

void NormGradientRowsFloat(const NormBackward<float>& args, int64_t begin, int64_t end, float* dweight, float* dbias) {
  NormGradientRows(args, begin, end, dweight, dbias);
}
void NormGradientRowsDouble(const NormBackward<double>& args, int64_t begin, int64_t end, double* dweight,
                            double* dbias) {
  NormGradientRows(args, begin, end, dweight, dbias);
}

}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace blockstate::kernels {

HWY_EXPORT(NormRowsFloat);
HWY_EXPORT(NormRowsDouble);
HWY_EXPORT(NormGradientRowsFloat);
HWY_EXPORT(NormGradientRowsDouble);

namespace cpu {
namespace {

void forward_rows(const NormForward<float>& args, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(NormRowsFloat)(args, begin, end);
}
void forward_rows(const NormForward<double>& args, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(NormRowsDouble)(args, begin, end);
}
void backward_rows(const NormBackward<float>& args, int64_t begin, int64_t end, float* dweight, float* dbias) {
  HWY_DYNAMIC_DISPATCH(NormGradientRowsFloat)(args, begin, end, dweight, dbias);
}
void backward_rows(const NormBackward<double>& args, int64_t begin, int64_t end, double* dweight, double* dbias) {
  HWY_DYNAMIC_DISPATCH(NormGradientRowsDouble)(args, begin, end, dweight, dbias);
}

}  // namespace

template <class T>
void norm_forward(const NormForward<T>& args) {
  check_norm(args);
  const int64_t rows = args.x.size[0], columns = args.x.size[1];
  if (columns == 0) {
    return;
  }
  parallel_for(rows, std::max<int64_t>(1, (int64_t{1} << 15) / columns),
               [&](int64_t begin, int64_t end) { forward_rows(args, begin, end); });
}

template <class T>
void norm_backward(const NormBackward<T>& args) {
  check_norm(args);
  const int64_t rows = args.h.size[0], columns = args.h.size[1];
  if (rows == 0 || columns == 0) {
    return;
  }
  // dweight and dbias of fixed pieces of rows, then the pieces in order, in double.
  const int64_t piece = std::clamp<int64_t>((int64_t{1} << 15) / columns, 16, 512);
  const int64_t pieces = (rows + piece - 1) / piece;
  const int64_t sums = args.dbias ? 2 : 1;
  const auto partial = std::make_unique<T[]>(static_cast<size_t>(pieces * sums * columns));
  parallel_for(rows, piece, [&](int64_t begin, int64_t end) {
    T* dweight = partial.get() + begin / piece * sums * columns;
    backward_rows(args, begin, end, dweight, args.dbias ? dweight + columns : nullptr);
  });
  parallel_for(sums * columns, std::max<int64_t>(16, (int64_t{1} << 15) / pieces), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      T& sum = c < columns ? args.dweight(c) : args.dbias(c - columns);
      double total = static_cast<double>(sum);
      for (int64_t p = 0; p < pieces; ++p) {
        total += static_cast<double>(partial[static_cast<size_t>(p * sums * columns + c)]);
      }
      sum = static_cast<T>(total);
    }
  });
}

template void norm_forward<float>(const NormForward<float>&);
template void norm_forward<double>(const NormForward<double>&);
template void norm_backward<float>(const NormBackward<float>&);
template void norm_backward<double>(const NormBackward<double>&);

}  // namespace cpu
}  // namespace blockstate::kernels
#endif  // HWY_ONCE
