// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/parallel.h"
#include "kernels/cross_entropy_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cross_entropy_cpu.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first
#include "kernels/row_loops-inl.h"
#include "kernels/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {

template <class T>
void LossRows(const CrossEntropyForward<T>& args, int64_t begin, int64_t end) {
  const hn::ScalableTag<T> d;
  const int64_t classes = args.logits.size[1];
  const T smoothing = args.label_smoothing;
  for (int64_t r = begin; r < end; ++r) {
    const int64_t target = args.targets(r);
    if (target < 0) {
      args.loss(r) = 0;
      args.log_sum_exp(r) = 0;
      continue;
    }
    const T* x = args.logits.data + r * args.logits.stride[0];
    const auto lowest = hn::Set(d, -std::numeric_limits<T>::infinity());
    auto highest = lowest;
    ForEachVector(d, classes, [&](int64_t i, auto access) HWY_ATTR {
      highest = hn::Max(highest, access.Pad(d, access.Load(d, x + i), lowest));
    });
    const T maximum = hn::GetLane(hn::MaxOfLanes(d, highest));
    const auto m = hn::Set(d, maximum);
    auto sum = hn::Zero(d), plain = hn::Zero(d);
    ForEachVector(d, classes, [&](int64_t i, auto access) HWY_ATTR {
      const auto v = hn::Sub(access.Load(d, x + i), m);
      sum = hn::Add(sum, access.Keep(d, Exp(d, v)));
      plain = hn::Add(plain, access.Keep(d, v));
    });
    const T log_sum = std::log(Total(d, sum));  // of the logits less their maximum
    T loss = log_sum - (x[target] - maximum);
    if (smoothing != 0) {
      loss = (T(1) - smoothing) * loss + smoothing * (log_sum - Total(d, plain) / static_cast<T>(classes));
    }
    args.loss(r) = loss;
    args.log_sum_exp(r) = log_sum + maximum;
  }
}

void LossRowsFloat(const CrossEntropyForward<float>& args, int64_t begin, int64_t end) { LossRows(args, begin, end); }
void LossRowsDouble(const CrossEntropyForward<double>& args, int64_t begin, int64_t end) { LossRows(args, begin, end); }

template <class T>
void GradientRows(const CrossEntropyBackward<T>& args, int64_t begin, int64_t end) {
  const hn::ScalableTag<T> d;
  const int64_t classes = args.logits.size[1];
  const T smoothing = args.label_smoothing;
  for (int64_t r = begin; r < end; ++r) {
    const int64_t target = args.targets(r);
    const T* x = args.logits.data + r * args.logits.stride[0];
    T* dx = args.dlogits.data + r * args.dlogits.stride[0];
    if (target < 0) {
      std::fill(dx, dx + classes, T(0));
      continue;
    }
    const T scale = args.dloss(r);
    const auto factor = hn::Set(d, scale);
    const auto spread = hn::Set(d, scale * smoothing / static_cast<T>(classes));
    const auto log_sum_exp = hn::Set(d, args.log_sum_exp(r));
    ForEachVector(d, classes, [&](int64_t i, auto access) HWY_ATTR {
      const auto probability = Exp(d, hn::Sub(access.Load(d, x + i), log_sum_exp));
      access.Store(d, hn::MulSub(probability, factor, spread), dx + i);
    });
    dx[target] -= scale * (T(1) - smoothing);
  }
}

void GradientRowsFloat(const CrossEntropyBackward<float>& args, int64_t begin, int64_t end) {
  GradientRows(args, begin, end);
}
void GradientRowsDouble(const CrossEntropyBackward<double>& args, int64_t begin, int64_t end) {
  GradientRows(args, begin, end);
}

}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace blockstate::kernels {

HWY_EXPORT(LossRowsFloat);
HWY_EXPORT(LossRowsDouble);
HWY_EXPORT(GradientRowsFloat);
HWY_EXPORT(GradientRowsDouble);

namespace cpu {
namespace {

void loss_rows(const CrossEntropyForward<float>& args, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(LossRowsFloat)(args, begin, end);
}
void loss_rows(const CrossEntropyForward<double>& args, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(LossRowsDouble)(args, begin, end);
}
void gradient_rows(const CrossEntropyBackward<float>& args, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(GradientRowsFloat)(args, begin, end);
}
void gradient_rows(const CrossEntropyBackward<double>& args, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(GradientRowsDouble)(args, begin, end);
}

void check_targets(const char* op, View<const int64_t, 1> targets, int64_t classes) {
  for (int64_t r = 0; r < targets.size[0]; ++r) {
    if (targets(r) >= classes) {
      fail(op, ": the target of row ", r, " is ", targets(r), ", but there are ", classes, " classes");
    }
  }
}

int64_t rows_at_a_time(int64_t classes) { return std::max<int64_t>(1, (int64_t{1} << 14) / (classes + 16)); }

}  // namespace

template <class T>
void cross_entropy_forward(const CrossEntropyForward<T>& args) {
  check_cross_entropy(args);
  const int64_t rows = args.logits.size[0];
  check_targets("cross_entropy_forward", args.targets, args.logits.size[1]);
  parallel_for(rows, rows_at_a_time(args.logits.size[1]),
               [&](int64_t begin, int64_t end) { loss_rows(args, begin, end); });
}

template <class T>
void cross_entropy_backward(const CrossEntropyBackward<T>& args) {
  check_cross_entropy(args);
  const int64_t rows = args.logits.size[0], classes = args.logits.size[1];
  check_targets("cross_entropy_backward", args.targets, classes);
  parallel_for(rows, rows_at_a_time(classes), [&](int64_t begin, int64_t end) { gradient_rows(args, begin, end); });
}

template void cross_entropy_forward<float>(const CrossEntropyForward<float>&);
template void cross_entropy_forward<double>(const CrossEntropyForward<double>&);
template void cross_entropy_backward<float>(const CrossEntropyBackward<float>&);
template void cross_entropy_backward<double>(const CrossEntropyBackward<double>&);

}  // namespace cpu
}  // namespace blockstate::kernels
#endif  // HWY_ONCE
