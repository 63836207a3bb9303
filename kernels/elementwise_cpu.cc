// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise_cpu.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first
#include "kernels/row_loops-inl.h"
#include "kernels/vector_math-inl.h"

#ifndef BLOCKSTATE_KERNELS_ELEMENTWISE_JOB
#define BLOCKSTATE_KERNELS_ELEMENTWISE_JOB
namespace blockstate::kernels {

enum class ElementOp { kActivation, kActivationGradient, kGate, kGateGradient, kAdd, kAccumulate, kScale };

// One call, whatever the operation, so that one function an element type goes through run-time dispatch.
template <class T>
struct ElementJob {
  ElementOp op;
  Activation activation;
  T factor;
  View<T, 2> out[2];
  View<const T, 2> in[3];
};

}  // namespace blockstate::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {

struct IdentityFunction {
  template <class D, class V>
  static HWY_INLINE V Value(D, V x) {
    return x;
  }
  template <class D, class V>
  static HWY_INLINE ValueAndSlope<V> Both(D d, V x) {
    return {x, hn::Set(d, 1)};
  }
};

struct ReluFunction {
  template <class D, class V>
  static HWY_INLINE V Value(D d, V x) {
    return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(d)), x);  // NaN stays
  }
  template <class D, class V>
  static HWY_INLINE ValueAndSlope<V> Both(D d, V x) {
    return {Value(d, x), hn::IfThenElseZero(hn::Gt(x, hn::Zero(d)), hn::Set(d, 1))};
  }
};

struct SiluFunction {
  template <class D, class V>
  static HWY_INLINE V Value(D d, V x) {
    return Silu(d, x);
  }
  template <class D, class V>
  static HWY_INLINE ValueAndSlope<V> Both(D d, V x) {
    return SiluAndSlope(d, x);
  }
};

struct GeluFunction {
  template <class D, class V>
  static HWY_INLINE V Value(D d, V x) {
    return Gelu(d, x);
  }
  template <class D, class V>
  static HWY_INLINE ValueAndSlope<V> Both(D d, V x) {
    return GeluAndSlope(d, x);
  }
};

struct SigmoidFunction {
  template <class D, class V>
  static HWY_INLINE V Value(D d, V x) {
    return Sigmoid(d, x);
  }
  template <class D, class V>
  static HWY_INLINE ValueAndSlope<V> Both(D d, V x) {
    const V s = Sigmoid(d, x);
    return {s, hn::NegMulAdd(s, s, s)};
  }
};

struct TanhFunction {
  template <class D, class V>
  static HWY_INLINE V Value(D d, V x) {
    return Tanh(d, x);
  }
  template <class D, class V>
  static HWY_INLINE ValueAndSlope<V> Both(D d, V x) {
    const V t = Tanh(d, x);
    return {t, hn::NegMulAdd(t, t, hn::Set(d, 1))};
  }
};

struct SoftplusFunction {
  template <class D, class V>
  static HWY_INLINE V Value(D d, V x) {
    return Softplus(d, x);
  }
  template <class D, class V>
  static HWY_INLINE ValueAndSlope<V> Both(D d, V x) {
    return SoftplusAndSlope(d, x);
  }
};

struct NegativeExpFunction {
  template <class D, class V>
  static HWY_INLINE V Value(D d, V x) {
    return hn::Neg(Exp(d, x));
  }
  template <class D, class V>
  static HWY_INLINE ValueAndSlope<V> Both(D d, V x) {
    const V y = Value(d, x);
    return {y, y};
  }
};

template <class F, class T>
void RunActivation(const ElementJob<T>& job) {
  const View<T, 2> one_out[] = {job.out[0]};
  const View<T, 2> two_out[] = {job.out[0], job.out[1]};
  const View<const T, 2> one_in[] = {job.in[0]};
  const View<const T, 2> two_in[] = {job.in[0], job.in[1]};
  switch (job.op) {
    case ElementOp::kActivation:
      return MapRows(one_out, one_in, [](auto d, const auto& x, auto& y) HWY_ATTR { y[0] = F::Value(d, x[0]); });
    case ElementOp::kActivationGradient:  // dy, x
      return MapRows(one_out, two_in,
                     [](auto d, const auto& x, auto& y) HWY_ATTR { y[0] = hn::Mul(x[0], F::Both(d, x[1]).slope); });
    case ElementOp::kGate:  // value, gate
      return MapRows(one_out, two_in,
                     [](auto d, const auto& x, auto& y) HWY_ATTR { y[0] = hn::Mul(x[0], F::Value(d, x[1])); });
    default:  // kGateGradient: dy, value, gate
      return MapRows(two_out, job.in, [](auto d, const auto& x, auto& y) HWY_ATTR {
        const auto f = F::Both(d, x[2]);
        y[0] = hn::Mul(x[0], f.value);
        y[1] = hn::Mul(hn::Mul(x[0], x[1]), f.slope);
      });
  }
}

template <class T>
void RunArithmetic(const ElementJob<T>& job) {
  const View<T, 2> out[] = {job.out[0]};
  const View<const T, 2> one_in[] = {job.in[0]};
  const View<const T, 2> two_in[] = {job.in[0], job.in[1]};
  const T factor = job.factor;
  switch (job.op) {
    case ElementOp::kAdd:
      return MapRows(out, two_in, [](auto, const auto& x, auto& y) HWY_ATTR { y[0] = hn::Add(x[0], x[1]); });
    case ElementOp::kAccumulate:  // y, x
      return MapRows(out, two_in, [factor](auto d, const auto& x, auto& y) HWY_ATTR {
        y[0] = hn::MulAdd(x[1], hn::Set(d, factor), x[0]);
      });
    default:  // kScale
      return MapRows(out, one_in,
                     [factor](auto d, const auto& x, auto& y) HWY_ATTR { y[0] = hn::Mul(x[0], hn::Set(d, factor)); });
  }
}

template <class T>
void RunElements(const ElementJob<T>& job) {
  if (job.op == ElementOp::kAdd || job.op == ElementOp::kAccumulate || job.op == ElementOp::kScale) {
    return RunArithmetic(job);
  }
  switch (job.activation) {
    case Activation::kIdentity:
      return RunActivation<IdentityFunction>(job);
    case Activation::kRelu:
      return RunActivation<ReluFunction>(job);
    case Activation::kSilu:
      return RunActivation<SiluFunction>(job);
    case Activation::kGelu:
      return RunActivation<GeluFunction>(job);
    case Activation::kSigmoid:
      return RunActivation<SigmoidFunction>(job);
    case Activation::kTanh:
      return RunActivation<TanhFunction>(job);
    case Activation::kSoftplus:
      return RunActivation<SoftplusFunction>(job);
    case Activation::kNegativeExp:
      return RunActivation<NegativeExpFunction>(job);
  }
}

void RunElementsFloat(const ElementJob<float>& job) { RunElements(job); }
void RunElementsDouble(const ElementJob<double>& job) { RunElements(job); }

}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace blockstate::kernels {

HWY_EXPORT(RunElementsFloat);
HWY_EXPORT(RunElementsDouble);

namespace cpu {
namespace {

void run(const ElementJob<float>& job) { HWY_DYNAMIC_DISPATCH(RunElementsFloat)(job); }
void run(const ElementJob<double>& job) { HWY_DYNAMIC_DISPATCH(RunElementsDouble)(job); }

}  // namespace

template <class T>
void activation_forward(View<T, 2> y, View<const T, 2> x, Activation activation) {
  check_pair("activation_forward", "y", y, "x", x);
  run(ElementJob<T>{ElementOp::kActivation, activation, 1, {y}, {x}});
}

template <class T>
void activation_backward(View<T, 2> dx, View<const T, 2> dy, View<const T, 2> x, Activation activation) {
  check_pair("activation_backward", "dx", dx, "x", x);
  check_pair("activation_backward", "dy", dy, "x", x);
  run(ElementJob<T>{ElementOp::kActivationGradient, activation, 1, {dx}, {dy, x}});
}

template <class T>
void gated_forward(View<T, 2> y, View<const T, 2> value, View<const T, 2> gate, Activation activation) {
  check_pair("gated_forward", "y", y, "value", value);
  check_pair("gated_forward", "gate", gate, "value", value);
  run(ElementJob<T>{ElementOp::kGate, activation, 1, {y}, {value, gate}});
}

template <class T>
void gated_backward(View<T, 2> dvalue, View<T, 2> dgate, View<const T, 2> dy, View<const T, 2> value,
                    View<const T, 2> gate, Activation activation) {
  check_pair("gated_backward", "dvalue", dvalue, "value", value);
  check_pair("gated_backward", "dgate", dgate, "value", value);
  check_pair("gated_backward", "dy", dy, "value", value);
  check_pair("gated_backward", "gate", gate, "value", value);
  run(ElementJob<T>{ElementOp::kGateGradient, activation, 1, {dvalue, dgate}, {dy, value, gate}});
}

template <class T>
void add(View<T, 2> y, View<const T, 2> a, View<const T, 2> b) {
  check_pair("add", "y", y, "a", a);
  check_pair("add", "y", y, "b", b);
  run(ElementJob<T>{ElementOp::kAdd, {}, 1, {y}, {a, b}});
}

template <class T>
void accumulate(View<T, 2> y, View<const T, 2> x, T factor) {
  check_pair("accumulate", "y", y, "x", x);
  run(ElementJob<T>{ElementOp::kAccumulate, {}, factor, {y}, {y, x}});
}

template <class T>
void scale(View<T, 2> y, View<const T, 2> x, T factor) {
  check_pair("scale", "y", y, "x", x);
  run(ElementJob<T>{ElementOp::kScale, {}, factor, {y}, {x}});
}

#define BLOCKSTATE_INSTANTIATE(T)                                                                               \
  template void activation_forward<T>(View<T, 2>, View<const T, 2>, Activation);                                \
  template void activation_backward<T>(View<T, 2>, View<const T, 2>, View<const T, 2>, Activation);             \
  template void gated_forward<T>(View<T, 2>, View<const T, 2>, View<const T, 2>, Activation);                   \
  template void gated_backward<T>(View<T, 2>, View<T, 2>, View<const T, 2>, View<const T, 2>, View<const T, 2>, \
                                  Activation);                                                                  \
  template void add<T>(View<T, 2>, View<const T, 2>, View<const T, 2>);                                         \
  template void accumulate<T>(View<T, 2>, View<const T, 2>, T);                                                 \
  template void scale<T>(View<T, 2>, View<const T, 2>, T);
BLOCKSTATE_INSTANTIATE(float)
BLOCKSTATE_INSTANTIATE(double)
#undef BLOCKSTATE_INSTANTIATE

}  // namespace cpu
}  // namespace blockstate::kernels
#endif  // HWY_ONCE
