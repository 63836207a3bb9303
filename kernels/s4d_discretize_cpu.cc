// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <complex>

#include "core/base/parallel.h"
#include "kernels/diagonal_scan.h"

namespace blockstate::kernels::cpu {
namespace {

using Complex = std::complex<double>;

template <class T>
Complex load(View<const T, 3> view, int64_t d, int64_t p) {
  return {static_cast<double>(view(d, p, 0)), static_cast<double>(view(d, p, 1))};
}

template <class T>
void add(View<T, 3> view, int64_t d, int64_t p, Complex value) {
  view(d, p, 0) += static_cast<T>(value.real());
  view(d, p, 1) += static_cast<T>(value.imag());
}

/// (e^x - 1) / x without cancellation near 0.
Complex phi(Complex x) {
  if (x == 0.0) {
    return 1.0;
  }
  const double half_sine = std::sin(x.imag() / 2);
  const double grow = std::exp(x.real());
  const Complex exp_minus_one(std::expm1(x.real()) * std::cos(x.imag()) - 2 * half_sine * half_sine,
                              grow * std::sin(x.imag()));
  return exp_minus_one / x;
}

/// Derivative of phi: (e^x (x - 1) + 1) / x^2, or its series sum_k x^k (k + 1) / (k + 2)! where that would cancel.
Complex phi_slope(Complex x) {
  if (std::norm(x) > 1) {
    return (std::exp(x) * (x - 1.0) + 1.0) / (x * x);
  }
  Complex sum = 0, power = 1;
  double factorial = 2;  // (k + 2)!
  for (int k = 0; k < 19; ++k) {
    sum += power * ((k + 1) / factorial);
    power *= x;
    factorial *= k + 3;
  }
  return sum;
}

struct Mode {
  Complex lambda;
  double dt;
  Complex x;  // dt * lambda
};

template <class T>
Mode mode_of(const S4dDiscretize<T>& args, int64_t d, int64_t p) {
  Mode mode;
  mode.lambda = {-std::exp(static_cast<double>(args.log_real(d, p))), static_cast<double>(args.imaginary(d, p))};
  mode.dt = std::exp(static_cast<double>(args.log_dt(d)));
  mode.x = mode.dt * mode.lambda;
  return mode;
}

/// Rounds a decay to T without letting its size pass 1: over a million steps half an ulp too much would grow.
template <class T>
void store_decay(Complex a, T* re, T* im) {
  *re = static_cast<T>(a.real());
  *im = static_cast<T>(a.imag());
  while (std::hypot(static_cast<long double>(*re), static_cast<long double>(*im)) > 1) {
    T& larger = std::abs(*re) >= std::abs(*im) ? *re : *im;
    larger = std::nextafter(larger, T(0));
  }
}

}  // namespace

template <class T>
void s4d_discretize(const S4dDiscretize<T>& args) {
  parallel_for(args.a.size[0], 16, [&](int64_t begin, int64_t end) {
    for (int64_t d = begin; d < end; ++d) {
      for (int64_t p = 0; p < args.a.size[1]; ++p) {
        const Mode mode = mode_of(args, d, p);
        store_decay(std::exp(mode.x), &args.a(d, p, 0), &args.a(d, p, 1));
        const Complex c = 2.0 * load(args.C, d, p) * load(args.B, d, p) * (mode.dt * phi(mode.x));
        args.c(d, p, 0) = static_cast<T>(c.real());
        args.c(d, p, 1) = static_cast<T>(c.imag());
      }
    }
  });
}

// For w = f(z) with f holomorphic, the gradient (d/dre, d/dim) of z is conj(f'(z)) times that of w.
template <class T>
void s4d_discretize_backward(const S4dDiscretizeBackward<T>& args) {
  const S4dDiscretize<T>& in = args.forward;
  parallel_for(args.da.size[0], 16, [&](int64_t begin, int64_t end) {
    for (int64_t d = begin; d < end; ++d) {
      double dlog_dt = 0;
      for (int64_t p = 0; p < args.da.size[1]; ++p) {
        const Mode mode = mode_of(in, d, p);
        const Complex B = load(in.B, d, p), C = load(in.C, d, p);
        const Complex da = load(args.da, d, p), dc = load(args.dc, d, p);
        const Complex ratio = phi(mode.x);
        const Complex dq = std::conj(2.0 * B * C) * dc;  // c = 2 B C q, q = dt phi(x), a = e^x, x = dt lambda
        add(args.dB, d, p, std::conj(2.0 * C * mode.dt * ratio) * dc);
        add(args.dC, d, p, std::conj(2.0 * B * mode.dt * ratio) * dc);
        const Complex dx = std::conj(std::exp(mode.x)) * da + std::conj(mode.dt * phi_slope(mode.x)) * dq;
        const Complex dlambda = mode.dt * dx;
        dlog_dt += (std::conj(mode.x) * dx + mode.dt * std::conj(ratio) * dq).real();
        args.dlog_real(d, p) += static_cast<T>(dlambda.real() * mode.lambda.real());
        args.dimaginary(d, p) += static_cast<T>(dlambda.imag());
      }
      args.dlog_dt(d) += static_cast<T>(dlog_dt);
    }
  });
}

template void s4d_discretize<float>(const S4dDiscretize<float>&);
template void s4d_discretize<double>(const S4dDiscretize<double>&);
template void s4d_discretize_backward<float>(const S4dDiscretizeBackward<float>&);
template void s4d_discretize_backward<double>(const S4dDiscretizeBackward<double>&);

}  // namespace blockstate::kernels::cpu
