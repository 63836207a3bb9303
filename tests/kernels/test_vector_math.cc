// SPDX-License-Identifier: Apache-2.0
// The vector functions against libm in a wider type, on every instruction set this machine can run.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/base/random.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/kernels/test_vector_math.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first
#include "kernels/vector_math-inl.h"

#ifndef BLOCKSTATE_TEST_VECTOR_MATH_FUNCTION
#define BLOCKSTATE_TEST_VECTOR_MATH_FUNCTION
namespace blockstate::kernels {
enum class Function {
  kExp,
  kExp2,
  kExp2ProductFast,
  kSigmoid,
  kSoftplus,
  kSoftplusSlope,
  kSilu,
  kSiluSlope,
  kTanh,
  kErf,
  kNormal,
  kGelu,
  kGeluSlope
};
}  // namespace blockstate::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {

template <class D, class V>
HWY_INLINE V Evaluate(D d, Function function, V x) {
  switch (function) {
    case Function::kExp:
      return Exp(d, x);
    case Function::kExp2:
      return Exp2(d, x);
    case Function::kExp2ProductFast:
      return Exp2ProductFast(d, hn::Mul(x, hn::Set(d, 4)), hn::Set(d, hn::TFromD<D>{0.25}));
    case Function::kSigmoid:
      return Sigmoid(d, x);
    case Function::kSoftplus:
      return Softplus(d, x);
    case Function::kSoftplusSlope:
      return SoftplusAndSlope(d, x).slope;
    case Function::kSilu:
      return Silu(d, x);
    case Function::kSiluSlope:
      return SiluAndSlope(d, x).slope;
    case Function::kTanh:
      return Tanh(d, x);
    case Function::kErf:
      return Erf(d, x);
    case Function::kNormal:
      return NormalDistribution(d, x).value;
    case Function::kGelu:
      return Gelu(d, x);
    case Function::kGeluSlope:
      return GeluAndSlope(d, x).slope;
  }
  return x;
}

// `count` is a multiple of 64.
template <class T>
void EvaluateAll(Function function, const T* in, T* out, size_t count) {
  const hn::ScalableTag<T> d;
  for (size_t i = 0; i < count; i += hn::Lanes(d)) {
    hn::StoreU(Evaluate(d, function, hn::LoadU(d, in + i)), d, out + i);
  }
}
void EvaluateFloat(Function function, const float* in, float* out, size_t count) {
  EvaluateAll(function, in, out, count);
}
void EvaluateDouble(Function function, const double* in, double* out, size_t count) {
  EvaluateAll(function, in, out, count);
}

}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace blockstate::kernels {
HWY_EXPORT(EvaluateFloat);
HWY_EXPORT(EvaluateDouble);
namespace {

// Wide is double for float and long double for double.
template <class Wide>
Wide exact(Function function, Wide x) {
  const Wide root_half = std::sqrt(Wide{0.5});
  const Wide cumulative = std::erfc(-x * root_half) / 2;
  const Wide sigmoid = x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
  switch (function) {
    case Function::kExp:
      return std::exp(x);
    case Function::kExp2:
    case Function::kExp2ProductFast:
      return std::exp2(x);
    case Function::kSigmoid:
      return sigmoid;
    case Function::kSoftplus:
      return x > 20 ? x : std::log1p(std::exp(x));
    case Function::kSoftplusSlope:
      return x > 20 ? Wide{1} : sigmoid;
    case Function::kSilu:
      return x * sigmoid;
    case Function::kSiluSlope:
      return sigmoid + x * sigmoid * (1 - sigmoid);
    case Function::kTanh:
      return std::tanh(x);
    case Function::kErf:
      return std::erf(x);
    case Function::kNormal:
      return cumulative;
    case Function::kGelu:
      return x * cumulative;
    case Function::kGeluSlope:
      return cumulative + x * std::exp(-x * x / 2) / std::sqrt(2 * std::acos(Wide{-1}));
  }
  return x;
}

struct Case {
  Function function;
  const char* name;
  double low;
  double high;
  double ulp_float;
  double ulp_unfused;  // on the baseline without fused multiply-add
  double scale;  // > 0: the error is judged against this where the exact value is smaller (a zero of the function)
};

// Slopes: 1 - sigmoid(x) and Phi(x) near 1 lose half an ulp of 1, times x. Unfused: the rounding of x * x is not made
// good, which costs x^2 / 2 ulp in the normal tail.
const Case kCases[] = {{Function::kExp, "exp", -86.9, 88.7, 2, 4, 0},
                       {Function::kExp2, "exp2", -125, 127.9, 2, 4, 0},
                       {Function::kExp2ProductFast, "exp2 of a product", -124.9, 124.9, 2, 4, 0},
                       {Function::kSigmoid, "sigmoid", -86.9, 30, 4, 8, 0},
                       {Function::kSoftplus, "softplus", -86.9, 40, 4, 8, 0},
                       {Function::kSoftplusSlope, "slope of softplus", -86.9, 40, 4, 8, 0},
                       {Function::kSilu, "silu", -86.9, 40, 4, 8, 0},
                       {Function::kSiluSlope, "slope of silu", -80, 40, 10, 12, 0.1},
                       {Function::kTanh, "tanh", -12, 12, 4, 8, 0},
                       {Function::kErf, "erf", -6, 6, 4, 8, 0},
                       {Function::kNormal, "normal", -12.5, 12, 6, 60, 0},
                       {Function::kGelu, "gelu", -12, 12, 6, 60, 0},
                       {Function::kGeluSlope, "slope of gelu", -12, 12, 8, 12, 0.1}};

void evaluate(Function function, const float* in, float* out, size_t count) {
  HWY_DYNAMIC_DISPATCH(EvaluateFloat)(function, in, out, count);
}
void evaluate(Function function, const double* in, double* out, size_t count) {
  HWY_DYNAMIC_DISPATCH(EvaluateDouble)(function, in, out, count);
}

// Dense points over the range, and many near 0, where the functions have their tangents.
template <class T>
std::vector<T> points(double low, double high) {
  RandomStream random(17);
  std::vector<T> x;
  for (int i = 0; i < 200000; ++i) {
    x.push_back(static_cast<T>(low + (high - low) * random.uniform()));
  }
  for (int i = 0; i < 50000; ++i) {
    const double magnitude = std::pow(10.0, -30 + 30 * random.uniform());
    x.push_back(static_cast<T>(i % 2 == 0 && low < 0 ? -magnitude : magnitude));
  }
  x.push_back(0);
  x.push_back(std::numeric_limits<T>::denorm_min());
  x.push_back(std::numeric_limits<T>::min());
  x.resize((x.size() + 63) / 64 * 64, T{1} / 3);
  return x;
}

template <class T, class Wide>
double worst_relative_error(const Case& c, T& where) {
  const std::vector<T> x = points<T>(c.low, c.high);
  std::vector<T> y(x.size());
  evaluate(c.function, x.data(), y.data(), x.size());
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const Wide wanted = exact<Wide>(c.function, static_cast<Wide>(x[i]));
    const Wide scale = std::max({std::abs(wanted), Wide{c.scale}, Wide{2 * std::numeric_limits<T>::min()}});
    const double error = static_cast<double>(std::abs(static_cast<Wide>(y[i]) - wanted) / scale);
    if (!(error <= worst)) {
      worst = std::isnan(error) ? HUGE_VAL : error;
      where = x[i];
    }
  }
  return worst;
}

template <class T>
T value_at(Function function, T x) {
  const std::vector<T> in(64, x);
  std::vector<T> out(64);
  evaluate(function, in.data(), out.data(), in.size());
  return out[0];
}

template <class Body>
void on_each_target(Body body) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    INFO("target " << hwy::TargetName(target));
    body(target);
  }
  hwy::SetSupportedTargetsForTest(0);
}

template <class T>
void check_edges() {
  const T infinity = std::numeric_limits<T>::infinity();
  const T nan = std::numeric_limits<T>::quiet_NaN();
  for (const Case& c : kCases) {
    INFO(c.name);
    CHECK(std::isnan(value_at(c.function, nan)));
    CHECK(std::isnan(value_at(c.function, -nan)));
    CHECK(static_cast<double>(value_at(c.function, T{0})) ==
          Approx(exact<double>(c.function, 0)).epsilon(2e-7).margin(1e-300));
    if (c.function == Function::kExp2ProductFast) {
      continue;
    }
    const bool ends_at_zero = c.function != Function::kTanh && c.function != Function::kErf;
    for (const T low : {T{-2000}, T{-1e30}, -infinity}) {
      CHECK(value_at(c.function, low) == (ends_at_zero ? T{0} : T{-1}));
    }
    const bool grows =
        c.function == Function::kSoftplus || c.function == Function::kSilu || c.function == Function::kGelu;
    const bool explodes = c.function == Function::kExp || c.function == Function::kExp2;
    for (const T high : {T{2000}, T{1e30}, infinity}) {
      CHECK(value_at(c.function, high) == (explodes ? infinity : grows ? high : T{1}));
    }
  }
}

TEST_CASE("vector functions are accurate in float", "[cpu]") {
  on_each_target([](int64_t target) {
    for (const Case& c : kCases) {
      float where = 0;
      const double ulp = worst_relative_error<float, double>(c, where) / std::numeric_limits<float>::epsilon();
      INFO(c.name << " is off by " << ulp << " ulp at " << where);
      CHECK(ulp <= (target == HWY_SCALAR ? c.ulp_unfused : c.ulp_float));
    }
  });
}

TEST_CASE("vector functions are accurate in double", "[cpu]") {
  on_each_target([](int64_t) {
    for (const Case& c : kCases) {
      double where = 0;
      const double error = worst_relative_error<double, long double>(c, where);
      INFO(c.name << " is off by " << error << " at " << where);
      CHECK(error <= 1e-13);
    }
  });
}

TEST_CASE("vector functions keep NaN and reach their limits", "[cpu]") {
  on_each_target([](int64_t) {
    check_edges<float>();
    check_edges<double>();
  });
}

TEST_CASE("a decay close to one keeps its distance from one", "[cpu]") {
  // What a long memory lives on: 1 - 2^-x for small x, within the rounding of a number next to 1.
  on_each_target([](int64_t) {
    for (double x = 1e-6; x < 1e-2; x *= 1.7) {
      const float decay = value_at(Function::kExp2ProductFast, static_cast<float>(-x));
      const double wanted = -std::expm1(-static_cast<double>(static_cast<float>(x)) * std::log(2.0));
      INFO(x);
      CHECK(std::abs((1.0 - static_cast<double>(decay)) - wanted) <= 3.1e-8 + 4e-7 * wanted);
    }
    CHECK(value_at(Function::kExp2ProductFast, 0.0f) == 1.0f);
    CHECK(value_at(Function::kExp, 0.0f) == 1.0f);
  });
}

}  // namespace
}  // namespace blockstate::kernels
#endif
