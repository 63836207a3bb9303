// SPDX-License-Identifier: Apache-2.0
// Vector functions for the CPU kernels, written once for float and double lanes of any Highway target. Include it from
// a file built by hwy/foreach_target.h, inside or before HWY_BEFORE_NAMESPACE; functions live in
// blockstate::kernels::HWY_NAMESPACE and take the tag first, as Highway's do.
//
// Accuracy against the exact result (tests/kernels/test_vector_math.cc): float within 4 ulp, double within 1e-13
// relative, except where a function says otherwise. NaN stays NaN; infinities give the limit. Results below the
// smallest normal number may be flushed to zero. The polynomials are minimax fits made for this file.
#if defined(BLOCKSTATE_KERNELS_VECTOR_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BLOCKSTATE_KERNELS_VECTOR_MATH_INL_H_
#undef BLOCKSTATE_KERNELS_VECTOR_MATH_INL_H_
#else
#define BLOCKSTATE_KERNELS_VECTOR_MATH_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// c[0] + c[1] x + ... + c[n-1] x^(n-1), by Horner's rule.
template <class D, class V, size_t kCount>
HWY_INLINE V Horner(D d, V x, const hn::TFromD<D> (&c)[kCount]) {
  V sum = hn::Set(d, c[kCount - 1]);
  for (size_t i = kCount - 1; i-- > 0;) {
    sum = hn::MulAdd(sum, x, hn::Set(d, c[i]));
  }
  return sum;
}

/// max(x, low) and min(x, high) that keep a NaN in x (x86's own instructions keep their second operand).
template <class D, class V>
HWY_INLINE V AtLeast(D, V low, V x) {
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
  return hn::IfThenElse(hn::Lt(x, low), low, x);
#else
  return hn::Max(low, x);
#endif
}
template <class D, class V>
HWY_INLINE V AtMost(D, V high, V x) {
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
  return hn::IfThenElse(hn::Gt(x, high), high, x);
#else
  return hn::Min(high, x);
#endif
}

template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr int kMantissa = 23;
  static constexpr int kBias = 127;
  /// 1.5 * 2^23: adding it rounds to the nearest integer, which then sits in the low bits of the sum.
  static constexpr float kMagic = 12582912.0f;
  static constexpr float kLog2E = 1.44269504f;
  static constexpr float kLn2High = 0.693359375f;  // 12 bits: its product with an exponent is exact
  static constexpr float kLn2Low = -2.12194440e-4f;
  // Arguments are bounded to these first. With an exponent instruction (first entry) the lowest underflows by itself;
  // without it (second) it lands where TimesPowerOfTwo gives 0. The highest overflows.
  static constexpr float kLowest[] = {-110.0f, -87.5f};
  static constexpr float kHighest = 89.0f;
  static constexpr float kLowest2[] = {-160.0f, -126.25f};
  static constexpr float kHighest2 = 128.25f;
  /// (e^r - 1) / r for |r| <= ln2/2 and (2^f - 1) / f for |f| <= 1/2; relative error of the whole 9.2e-8. The constant
  /// term of the whole is exactly 1, so that a decay close to 1 keeps its distance from 1.
  static constexpr float kNatural[] = {9.999997070e-1f, 4.999914919e-1f, 1.666763658e-1f, 4.189797541e-2f,
                                       8.290306395e-3f};
  static constexpr float kBinary[] = {6.931469776e-1f, 2.402224209e-1f, 5.550733743e-2f, 9.671512653e-3f,
                                      1.326472752e-3f};
};

template <>
struct ExpConstants<double> {
  static constexpr int kMantissa = 52;
  static constexpr int kBias = 1023;
  static constexpr double kMagic = 6755399441055744.0;
  static constexpr double kLog2E = 1.44269504088896340736;
  static constexpr double kLn2 = 0.693147180559945309417;
  static constexpr double kLn2High = 0.693147180369123816490;  // 33 bits
  static constexpr double kLn2Low = 1.90821492927058770002e-10;
  static constexpr double kLowest[] = {-760.0, -708.7};
  static constexpr double kHighest = 710.0;
  static constexpr double kLowest2[] = {-1090.0, -1022.25};
  static constexpr double kHighest2 = 1024.25;
  /// Taylor: 1 / (k + 1)!
  static constexpr double kNatural[] = {
      1.0,         1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,         1.0 / 5040,
      1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0};
};

#if HWY_TARGET == HWY_AVX3
HWY_INLINE hn::Vec512<float> ScaleExponent(hn::Vec512<float> x, hn::Vec512<float> n) {
  return hn::Vec512<float>{_mm512_scalef_ps(x.raw, n.raw)};
}
HWY_INLINE hn::Vec512<double> ScaleExponent(hn::Vec512<double> x, hn::Vec512<double> n) {
  return hn::Vec512<double>{_mm512_scalef_pd(x.raw, n.raw)};
}
/// True where ScaleExponent(x, n) = x * 2^n is one instruction that underflows and overflows by itself.
template <class D>
constexpr bool HasScaleExponent(D) {
  return hn::MaxLanes(D()) * sizeof(hn::TFromD<D>) == 64;
}
#else
template <class V>
HWY_INLINE V ScaleExponent(V x, V) {
  return x;
}
template <class D>
constexpr bool HasScaleExponent(D) {
  return false;
}
#endif

/// x * 2^n for x in [0.7, 1.42], where `shifted` is n + kMagic. With the guard, n may be from -126 (which gives 0) to
/// 128 (which may overflow); without it, from -125 to 127.
template <bool kGuard, class D, class V>
HWY_INLINE V TimesPowerOfTwo(D d, V x, V shifted) {
  using T = hn::TFromD<D>;
  using K = ExpConstants<T>;
  if constexpr (HasScaleExponent(D())) {
    return ScaleExponent(x, hn::Sub(shifted, hn::Set(d, K::kMagic)));
  } else {
    const hn::RebindToSigned<D> di;
    using TI = hn::TFromD<decltype(di)>;
    const auto exponent = hn::ShiftLeft<K::kMantissa>(hn::BitCast(di, shifted));
    if constexpr (kGuard) {
      const auto half = hn::BitCast(d, hn::Add(exponent, hn::Set(di, TI{K::kBias - 1} << K::kMantissa)));
      const V scaled = hn::Mul(x, half);
      return hn::Add(scaled, scaled);
    } else {
      return hn::BitCast(d, hn::Add(hn::BitCast(di, x), exponent));
    }
  }
}

/// e^x.
template <class D, class V>
HWY_INLINE V Exp(D d, V x) {
  using K = ExpConstants<hn::TFromD<D>>;
  const V bounded = AtMost(d, hn::Set(d, K::kHighest), AtLeast(d, hn::Set(d, K::kLowest[!HasScaleExponent(D())]), x));
  const V magic = hn::Set(d, K::kMagic);
  const V shifted = hn::MulAdd(bounded, hn::Set(d, K::kLog2E), magic);
  const V n = hn::Sub(shifted, magic);
  V r = hn::NegMulAdd(n, hn::Set(d, K::kLn2High), bounded);
  r = hn::NegMulAdd(n, hn::Set(d, K::kLn2Low), r);
  const V p = hn::MulAdd(r, Horner(d, r, K::kNatural), hn::Set(d, 1));
  return TimesPowerOfTwo<true>(d, p, shifted);
}

/// 2^f for |f| <= 1/2.
template <class D, class V>
HWY_INLINE V Exp2Fraction(D d, V f) {
  using T = hn::TFromD<D>;
  using K = ExpConstants<T>;
  if constexpr (sizeof(T) == 4) {
    return hn::MulAdd(f, Horner(d, f, K::kBinary), hn::Set(d, 1));
  } else {
    const V r = hn::Mul(f, hn::Set(d, K::kLn2));
    return hn::MulAdd(r, Horner(d, r, K::kNatural), hn::Set(d, 1));
  }
}

/// 2^y.
template <class D, class V>
HWY_INLINE V Exp2(D d, V y) {
  using K = ExpConstants<hn::TFromD<D>>;
  const V bounded = AtMost(d, hn::Set(d, K::kHighest2), AtLeast(d, hn::Set(d, K::kLowest2[!HasScaleExponent(D())]), y));
  const V magic = hn::Set(d, K::kMagic);
  const V shifted = hn::Add(bounded, magic);
  return TimesPowerOfTwo<true>(d, Exp2Fraction(d, hn::Sub(bounded, hn::Sub(shifted, magic))), shifted);
}

/// 2^(a * b) for products known to lie in (-kFastExp2, kFastExp2): no bounds are looked at. The innermost step of the
/// scans: the product is rounded once less than in Exp2(Mul(a, b)).
inline constexpr int kFastExp2 = 125;
template <class D, class V>
HWY_INLINE V Exp2ProductFast(D d, V a, V b) {
  const V magic = hn::Set(d, ExpConstants<hn::TFromD<D>>::kMagic);
  const V shifted = hn::MulAdd(a, b, magic);
  return TimesPowerOfTwo<false>(d, Exp2Fraction(d, hn::MulSub(a, b, hn::Sub(shifted, magic))), shifted);
}

template <class T>
struct SeriesConstants;

template <>
struct SeriesConstants<float> {
  /// (atanh(z)/z - 1) / z^2 in powers of z^2, |z| <= 1/3.
  static constexpr float kAtanh[] = {3.333320657e-1f, 2.001084954e-1f, 1.399957041e-1f, 1.401223002e-1f};
  /// (tanh(x)/x - 1) / x^2 in powers of x^2 <= 0.4.
  static constexpr float kTanh[] = {-3.333333057e-1f, 1.333319591e-1f,  -5.394537847e-2f,
                                    2.169260735e-2f,  -8.156281000e-3f, 2.122746186e-3f};
  /// erf(x)/x in powers of x^2 <= 1.
  static constexpr float kErf[] = {1.128379166f,    -3.761262582e-1f, 1.128358515e-1f, -2.685381192e-2f,
                                   5.188327665e-3f, -8.010193445e-4f, 7.853860781e-5f};
  /// erfc(x) e^(x^2) in powers of (x - 3) / (x + 3), x >= 0.
  static constexpr float kErfcScaled[] = {1.790011518e-1f,  -3.262336500e-1f, 2.456038823e-1f, -1.501131295e-1f,
                                          7.166394895e-2f,  -2.441680526e-2f, 4.274869507e-3f, 7.919385499e-4f,
                                          -5.788782974e-4f, -6.334355620e-5f};
  static constexpr float kErfcCentre = 3;
  static constexpr float kErfcEnd = 10.5f;  // erfc is 0 beyond
};

template <>
struct SeriesConstants<double> {
  static constexpr double kAtanh[] = {3.333333333333333315e-1, 2.000000000000011290e-1, 1.428571428569037327e-1,
                                      1.111111111364916450e-1, 9.090908933246864740e-2, 7.692313915549413793e-2,
                                      6.666503339997137871e-2, 5.885264716903786797e-2, 5.227844922928697619e-2,
                                      5.047111689192426509e-2, 2.898830339930560934e-2, 8.027937065198064422e-2};
  static constexpr double kTanh[] = {-3.333333333333333329e-1, 1.333333333333332251e-1,  -5.396825396824526783e-2,
                                     2.186948853580144879e-2,  -8.863235521363694599e-3, 3.592127902948486535e-3,
                                     -1.455832957002488155e-3, 5.900166269005879062e-4,  -2.390702468385903721e-4,
                                     9.668299311793260032e-5,  -3.861510387302806450e-5, 1.457000267816866291e-5,
                                     -4.550151017764527218e-6, 8.346303528968272182e-7};
  static constexpr double kErf[] = {1.128379167095512574,     -3.761263890318375237e-1, 1.128379167095511974e-1,
                                    -2.686617064512973353e-2, 5.223977625422086126e-3,  -8.548327021853216178e-4,
                                    1.205533289935858593e-4,  -1.492564746513522357e-5, 1.646204340811414949e-6,
                                    -1.636461442556051015e-7, 1.479214578836908771e-8,  -1.216304212215408803e-9,
                                    8.703790540167607760e-11, -4.222897252748066921e-12};
  static constexpr double kErfcScaled[] = {
      1.369994576250613890e-1,  -2.590680487601716504e-1, 2.187196789182652276e-1,  -1.642578166973080549e-1,
      1.089631773988842199e-1,  -6.310781563976697522e-2, 3.129905651918396857e-2,  -1.284394603094138204e-2,
      4.060263617928696411e-3,  -7.991268168995456505e-4, -2.176167956084479097e-5, 7.898319691757046378e-5,
      -2.255621645269987213e-5, -1.903255829695779060e-6, 2.945057853783795755e-6,  -4.086327756088021263e-7,
      -2.850468243870732212e-7, 9.599683593837841489e-8,  2.648440934757341360e-8,  -1.493272792482231071e-8,
      -3.110862830773638577e-9, 1.576195118934133638e-9,  4.356419124162594752e-10};
  static constexpr double kErfcCentre = 4;
  static constexpr double kErfcEnd = 28;
};

/// 2 atanh(z) for |z| <= 1/3.
template <class D, class V>
HWY_INLINE V TwiceAtanh(D d, V z) {
  const V s = hn::Mul(z, z);
  const V twice = hn::Add(z, z);
  return hn::MulAdd(hn::Mul(twice, s), Horner(d, s, SeriesConstants<hn::TFromD<D>>::kAtanh), twice);
}

/// log(1 + v) for v in [0, 1], relatively accurate down to v = 0.
template <class D, class V>
HWY_INLINE V Log1pUnit(D d, V v) {
  return TwiceAtanh(d, hn::Div(v, hn::Add(v, hn::Set(d, 2))));
}

/// 1 / (1 + e^-x).
template <class D, class V>
HWY_INLINE V Sigmoid(D d, V x) {
  const V one = hn::Set(d, 1);
  return hn::Div(one, hn::Add(one, Exp(d, hn::Neg(x))));
}

template <class V>
struct ValueAndSlope {
  V value;
  V slope;
};

inline constexpr int kSoftplusLinear = 20;  // softplus(x) is x beyond, as in the released models

/// log(1 + e^x); x itself above 20. The slope is sigmoid(x); 1 above 20.
template <class D, class V>
HWY_INLINE V Softplus(D d, V x) {
  const V v = Exp(d, hn::Neg(hn::Abs(x)));
  const V curved = hn::Add(AtLeast(d, hn::Zero(d), x), Log1pUnit(d, v));
  return hn::IfThenElse(hn::Gt(x, hn::Set(d, kSoftplusLinear)), x, curved);
}
template <class D, class V>
HWY_INLINE ValueAndSlope<V> SoftplusAndSlope(D d, V x) {
  const V one = hn::Set(d, 1);
  const V v = Exp(d, hn::Neg(hn::Abs(x)));
  const V first = hn::Add(v, one);
  const V second = hn::Add(first, one);
  const V inverse = hn::Div(one, hn::Mul(first, second));  // one division for v / (2 + v) and 1 / (1 + v)
  const V log1p = TwiceAtanh(d, hn::Mul(v, hn::Mul(first, inverse)));
  const V sigmoid = hn::Mul(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), v, one), hn::Mul(second, inverse));
  const auto linear = hn::Gt(x, hn::Set(d, kSoftplusLinear));
  return {hn::IfThenElse(linear, x, hn::Add(AtLeast(d, hn::Zero(d), x), log1p)), hn::IfThenElse(linear, one, sigmoid)};
}

/// x * sigmoid(x), and its slope sigmoid(x) * (1 + x * (1 - sigmoid(x))). The slope has a zero near -1.28, about which
/// its error is absolute. -inf gives (minus) 0.
template <class D, class V>
HWY_INLINE V Silu(D d, V x) {
  const V finite = AtLeast(d, hn::Set(d, std::numeric_limits<hn::TFromD<D>>::lowest()), x);
  return hn::Mul(finite, Sigmoid(d, x));
}
template <class D, class V>
HWY_INLINE ValueAndSlope<V> SiluAndSlope(D d, V x) {
  const V finite = AtLeast(d, hn::Set(d, std::numeric_limits<hn::TFromD<D>>::lowest()), x);
  const V sigmoid = Sigmoid(d, x);
  const V value = hn::Mul(finite, sigmoid);
  const V bounded = AtMost(d, hn::Set(d, std::numeric_limits<hn::TFromD<D>>::max()), value);
  return {value, hn::MulAdd(bounded, hn::Sub(hn::Set(d, 1), sigmoid), sigmoid)};
}

/// Hyperbolic tangent; its slope is 1 - tanh^2.
template <class D, class V>
HWY_INLINE V Tanh(D d, V x) {
  using T = hn::TFromD<D>;
  const V one = hn::Set(d, 1);
  const V s = hn::Mul(x, x);
  const V small = hn::MulAdd(hn::Mul(x, s), Horner(d, s, SeriesConstants<T>::kTanh), x);
  const V a = hn::Abs(x);
  const V large = hn::Sub(one, hn::Div(hn::Set(d, 2), hn::Add(one, Exp(d, hn::Add(a, a)))));
  return hn::IfThenElse(hn::Lt(s, hn::Set(d, static_cast<T>(0.4))), small, hn::CopySign(large, x));
}

/// e^(-scale * x * x), for scale 1 or 1/2, without the error that rounding the square would bring.
template <class D, class V>
HWY_INLINE V ExpMinusSquare(D d, V x, hn::TFromD<D> scale) {
  const V scaled = hn::Mul(x, hn::Set(d, scale));
  const V square = hn::Mul(scaled, x);
  const V rest = hn::MulSub(scaled, x, square);
  const V e = Exp(d, hn::Neg(square));
  return hn::NegMulAdd(e, rest, e);
}

/// erfc(a) * e^(a^2) for 0 <= a <= kErfcEnd.
template <class D, class V>
HWY_INLINE V ErfcScaled(D d, V a) {
  using K = SeriesConstants<hn::TFromD<D>>;
  const V centre = hn::Set(d, K::kErfcCentre);
  return Horner(d, hn::Div(hn::Sub(a, centre), hn::Add(a, centre)), K::kErfcScaled);
}

/// The error function.
template <class D, class V>
HWY_INLINE V Erf(D d, V x) {
  using K = SeriesConstants<hn::TFromD<D>>;
  const V one = hn::Set(d, 1);
  const V small = hn::Mul(x, Horner(d, hn::Mul(x, x), K::kErf));
  const V a = AtMost(d, hn::Set(d, K::kErfcEnd), hn::Abs(x));
  const V large = hn::NegMulAdd(ExpMinusSquare(d, a, 1), ErfcScaled(d, a), one);
  return hn::IfThenElse(hn::Lt(a, one), small, hn::CopySign(large, x));
}

/// The normal distribution: cumulative Phi(x) and density phi(x). Both relatively accurate in the tails.
template <class D, class V>
HWY_INLINE ValueAndSlope<V> NormalDistribution(D d, V x) {
  using T = hn::TFromD<D>;
  using K = SeriesConstants<T>;
  const V end = hn::Set(d, static_cast<T>(K::kErfcEnd * 1.41421356237309505));
  const V a = AtMost(d, end, hn::Abs(x));
  const V e = ExpMinusSquare(d, a, static_cast<T>(0.5));
  const V scaled = ErfcScaled(d, hn::Mul(a, hn::Set(d, static_cast<T>(0.707106781186547524))));
  const V lower = hn::Mul(hn::Mul(hn::Set(d, static_cast<T>(0.5)), e), scaled);
  const V cumulative = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), lower, hn::Sub(hn::Set(d, 1), lower));
  return {cumulative, hn::Mul(e, hn::Set(d, static_cast<T>(0.398942280401432678)))};
}

/// x * Phi(x), the exact gelu, and its slope Phi(x) + x * phi(x) (zero near -0.75: absolute error there).
template <class D, class V>
HWY_INLINE V Gelu(D d, V x) {
  const V finite = AtLeast(d, hn::Set(d, std::numeric_limits<hn::TFromD<D>>::lowest()), x);
  return hn::Mul(finite, NormalDistribution(d, x).value);
}
template <class D, class V>
HWY_INLINE ValueAndSlope<V> GeluAndSlope(D d, V x) {
  using T = hn::TFromD<D>;
  const V finite = AtLeast(d, hn::Set(d, std::numeric_limits<T>::lowest()), x);
  const V bounded = AtMost(d, hn::Set(d, std::numeric_limits<T>::max()), finite);
  const ValueAndSlope<V> normal = NormalDistribution(d, x);
  return {hn::Mul(finite, normal.value), hn::MulAdd(bounded, normal.slope, normal.value)};
}

}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard of the target
