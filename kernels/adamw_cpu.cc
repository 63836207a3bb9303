// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "kernels/adamw.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/adamw_cpu.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first
#include "kernels/row_loops-inl.h"

#ifndef BLOCKSTATE_KERNELS_ADAMW_STEP
#define BLOCKSTATE_KERNELS_ADAMW_STEP
namespace blockstate::kernels {

// The constants of one step in the element type, made in double.
template <class T>
struct AdamWStep {
  T scale, beta1, rest1, beta2, rest2, correction1, correction2, epsilon;
};

}  // namespace blockstate::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {

template <class T>
void UpdatePiece(const AdamWTensor<T>& tensor, const AdamWStep<T>& step, int64_t begin, int64_t end) {
  const hn::ScalableTag<T> d;
  const auto scale = hn::Set(d, step.scale);
  const auto beta1 = hn::Set(d, step.beta1), rest1 = hn::Set(d, step.rest1);
  const auto beta2 = hn::Set(d, step.beta2), rest2 = hn::Set(d, step.rest2);
  const auto correction1 = hn::Set(d, step.correction1), correction2 = hn::Set(d, step.correction2);
  const auto epsilon = hn::Set(d, step.epsilon);
  const auto rate = hn::Set(d, static_cast<T>(tensor.learning_rate));
  const auto decay = hn::Set(d, static_cast<T>(tensor.weight_decay));
  ForEachVector(d, end - begin, [&](int64_t offset, auto access) HWY_ATTR {
    const int64_t i = begin + offset;
    const auto g = hn::Mul(access.Load(d, tensor.gradient + i), scale);
    const auto m = hn::MulAdd(beta1, access.Load(d, tensor.m + i), hn::Mul(rest1, g));
    const auto v = hn::MulAdd(beta2, access.Load(d, tensor.v + i), hn::Mul(rest2, hn::Mul(g, g)));
    const auto p = access.Load(d, tensor.parameter + i);
    const auto spread = hn::Add(hn::Sqrt(hn::Mul(v, correction2)), epsilon);
    const auto move = hn::MulAdd(decay, p, hn::Div(hn::Mul(m, correction1), spread));
    access.Store(d, m, tensor.m + i);
    access.Store(d, v, tensor.v + i);
    access.Store(d, hn::NegMulAdd(rate, move, p), tensor.parameter + i);
  });
}

void UpdatePieceFloat(const AdamWTensor<float>& tensor, const AdamWStep<float>& step, int64_t begin, int64_t end) {
  UpdatePiece(tensor, step, begin, end);
}
void UpdatePieceDouble(const AdamWTensor<double>& tensor, const AdamWStep<double>& step, int64_t begin, int64_t end) {
  UpdatePiece(tensor, step, begin, end);
}

double SquaresFloat(const float* data, int64_t count) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> half;
  auto sum0 = hn::Zero(d), sum1 = hn::Zero(d);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    const auto a = hn::PromoteTo(d, hn::LoadU(half, data + i));
    const auto b = hn::PromoteTo(d, hn::LoadU(half, data + i + lanes));
    sum0 = hn::MulAdd(a, a, sum0);
    sum1 = hn::MulAdd(b, b, sum1);
  }
  double sum = Total(d, hn::Add(sum0, sum1));
  for (; i < count; ++i) {
    sum += double{data[i]} * double{data[i]};
  }
  return sum;
}

double SquaresDouble(const double* data, int64_t count) {
  const hn::ScalableTag<double> d;
  auto sum = hn::Zero(d);
  ForEachVector(d, count, [&](int64_t i, auto access) HWY_ATTR {
    const auto a = access.Load(d, data + i);
    sum = hn::MulAdd(a, a, sum);
  });
  return Total(d, sum);
}

}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace blockstate::kernels {

HWY_EXPORT(UpdatePieceFloat);
HWY_EXPORT(UpdatePieceDouble);
HWY_EXPORT(SquaresFloat);
HWY_EXPORT(SquaresDouble);

namespace cpu {
namespace {

void update(const AdamWTensor<float>& tensor, const AdamWStep<float>& step, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(UpdatePieceFloat)(tensor, step, begin, end);
}
void update(const AdamWTensor<double>& tensor, const AdamWStep<double>& step, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(UpdatePieceDouble)(tensor, step, begin, end);
}
double squares(const float* data, int64_t count) { return HWY_DYNAMIC_DISPATCH(SquaresFloat)(data, count); }
double squares(const double* data, int64_t count) { return HWY_DYNAMIC_DISPATCH(SquaresDouble)(data, count); }

struct Piece {
  int64_t tensor, begin, end;
};

// All tensors in pieces of at most kPiece elements, so that one large table and many small vectors share out alike.
constexpr int64_t kPiece = int64_t{1} << 14;
template <class Tensor>
std::vector<Piece> pieces_of(const char* op, const Tensor* tensors, int64_t tensor_count) {
  std::vector<Piece> pieces;
  for (int64_t t = 0; t < tensor_count; ++t) {
    require(tensors[t].count >= 0, op, ": tensor ", t, " has ", tensors[t].count, " elements");
    for (int64_t begin = 0; begin < tensors[t].count; begin += kPiece) {
      pieces.push_back({t, begin, std::min(tensors[t].count, begin + kPiece)});
    }
  }
  return pieces;
}

}  // namespace

template <class T>
void adamw(const AdamWTensor<T>* tensors, int64_t tensor_count, const AdamWOptions& options) {
  require(options.step >= 1, "adamw: steps count from 1, found ", options.step);
  const double t = static_cast<double>(options.step);
  const AdamWStep<T> step{static_cast<T>(options.gradient_scale),
                          static_cast<T>(options.beta1),
                          static_cast<T>(1 - options.beta1),
                          static_cast<T>(options.beta2),
                          static_cast<T>(1 - options.beta2),
                          static_cast<T>(1 / (1 - std::pow(options.beta1, t))),
                          static_cast<T>(1 / (1 - std::pow(options.beta2, t))),
                          static_cast<T>(options.epsilon)};
  const std::vector<Piece> pieces = pieces_of("adamw", tensors, tensor_count);
  parallel_for(static_cast<int64_t>(pieces.size()), 2, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Piece& piece = pieces[static_cast<size_t>(i)];
      update(tensors[piece.tensor], step, piece.begin, piece.end);
    }
  });
}

template <class T>
double squared_norm(const NormTensor<T>* tensors, int64_t tensor_count) {
  const std::vector<Piece> pieces = pieces_of("squared_norm", tensors, tensor_count);
  std::vector<double> sums(pieces.size());
  parallel_for(static_cast<int64_t>(pieces.size()), 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Piece& piece = pieces[static_cast<size_t>(i)];
      sums[static_cast<size_t>(i)] = squares(tensors[piece.tensor].data + piece.begin, piece.end - piece.begin);
    }
  });
  double total = 0;
  for (const double sum : sums) {
    total += sum;
  }
  return total;
}

template void adamw<float>(const AdamWTensor<float>*, int64_t, const AdamWOptions&);
template void adamw<double>(const AdamWTensor<double>*, int64_t, const AdamWOptions&);
template double squared_norm<float>(const NormTensor<float>*, int64_t);
template double squared_norm<double>(const NormTensor<double>*, int64_t);

}  // namespace cpu
}  // namespace blockstate::kernels
#endif  // HWY_ONCE
