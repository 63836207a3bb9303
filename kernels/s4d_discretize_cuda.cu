// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda_support.cuh"
#include "kernels/diagonal_scan.h"
#include "kernels/diagonal_scan_check.h"

namespace blockstate::kernels::cuda {
namespace {

struct Complex {
  double re, im;
};
__device__ Complex operator+(Complex x, Complex y) { return {x.re + y.re, x.im + y.im}; }
__device__ Complex operator*(Complex x, Complex y) { return {x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re}; }
__device__ Complex operator*(double s, Complex x) { return {s * x.re, s * x.im}; }
__device__ Complex conj(Complex x) { return {x.re, -x.im}; }
__device__ double norm(Complex x) { return x.re * x.re + x.im * x.im; }
__device__ Complex operator/(Complex x, Complex y) { return (1 / norm(y)) * (x * conj(y)); }

__device__ Complex exponential(Complex x) {
  double sine, cosine;
  sincos(x.im, &sine, &cosine);
  const double grow = exp(x.re);
  return {grow * cosine, grow * sine};
}

/// (e^x - 1) / x without cancellation near 0, and where |x|^2 would underflow.
__device__ Complex phi(Complex x) {
  if (norm(x) < 1e-40) {
    return {1, 0};
  }
  const double half_sine = sin(x.im / 2);
  double sine, cosine;
  sincos(x.im, &sine, &cosine);
  const Complex exp_minus_one = {expm1(x.re) * cosine - 2 * half_sine * half_sine, exp(x.re) * sine};
  return exp_minus_one / x;
}

/// Derivative of phi: (e^x (x - 1) + 1) / x^2, or its series sum_k x^k (k + 1) / (k + 2)! where that would cancel.
__device__ Complex phi_slope(Complex x) {
  if (norm(x) > 1) {
    return (exponential(x) * (x + Complex{-1, 0}) + Complex{1, 0}) / (x * x);
  }
  Complex sum = {0, 0}, power = {1, 0};
  double factorial = 2;  // (k + 2)!
  for (int k = 0; k < 19; ++k) {
    sum = sum + ((k + 1) / factorial) * power;
    power = power * x;
    factorial *= k + 3;
  }
  return sum;
}

struct Mode {
  Complex lambda;
  double dt;
  Complex x;  // dt * lambda
};

__device__ Mode mode_of(const S4dDiscretize<float>& args, int64_t d, int64_t p) {
  Mode mode;
  mode.lambda = {-exp(static_cast<double>(args.log_real(d, p))), static_cast<double>(args.imaginary(d, p))};
  mode.dt = exp(static_cast<double>(args.log_dt(d)));
  mode.x = mode.dt * mode.lambda;
  return mode;
}

__device__ Complex load(const View<const float, 3>& view, int64_t d, int64_t p) {
  return {static_cast<double>(view(d, p, 0)), static_cast<double>(view(d, p, 1))};
}

__device__ void add(const View<float, 3>& view, int64_t d, int64_t p, Complex value) {
  view(d, p, 0) += static_cast<float>(value.re);
  view(d, p, 1) += static_cast<float>(value.im);
}

/// |(re, im)| - 1 > 0, but for what 64 bits of significand cannot tell from 1 (it cannot grow in any sequence either).
__device__ bool outside_circle(float re, float im) {
  const double larger = fmax(fabs(re), fabs(im)), smaller = fmin(fabs(re), fabs(im));
  return (larger * larger - 1) + smaller * smaller > 1e-19;
}

/// Rounds a decay to float without letting its size pass 1: over a million steps half an ulp too much would grow.
__device__ void store_decay(Complex a, float* to_re, float* to_im) {
  float re = static_cast<float>(a.re), im = static_cast<float>(a.im);
  while (outside_circle(re, im)) {
    float& larger = fabsf(re) >= fabsf(im) ? re : im;
    larger = nextafterf(larger, 0.0f);
  }
  *to_re = re;
  *to_im = im;
}

constexpr int kThreads = 64;

__global__ void __launch_bounds__(kThreads) discretize_kernel(S4dDiscretize<float> args) {
  const int64_t states = args.a.size[1], index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= args.a.size[0] * states) {
    return;
  }
  const int64_t d = index / states, p = index % states;
  const Mode mode = mode_of(args, d, p);
  store_decay(exponential(mode.x), &args.a(d, p, 0), &args.a(d, p, 1));
  const Complex c = 2.0 * (load(args.C, d, p) * load(args.B, d, p) * (mode.dt * phi(mode.x)));
  args.c(d, p, 0) = static_cast<float>(c.re);
  args.c(d, p, 1) = static_cast<float>(c.im);
}

/// One block a channel. For w = f(z) with f holomorphic, the gradient (d/dre, d/dim) of z is conj(f'(z)) times that
/// of w.
__global__ void __launch_bounds__(kThreads) discretize_backward_kernel(S4dDiscretizeBackward<float> args) {
  const S4dDiscretize<float>& in = args.forward;
  const int64_t d = blockIdx.x;
  double dlog_dt = 0;
  for (int64_t p = threadIdx.x; p < args.da.size[1]; p += kThreads) {
    const Mode mode = mode_of(in, d, p);
    const Complex B = load(in.B, d, p), C = load(in.C, d, p);
    const Complex da = load(args.da, d, p), dc = load(args.dc, d, p);
    const Complex ratio = phi(mode.x);
    const Complex dq = conj(2.0 * (B * C)) * dc;  // c = 2 B C q, q = dt phi(x), a = e^x, x = dt lambda
    add(args.dB, d, p, conj((2.0 * mode.dt) * (C * ratio)) * dc);
    add(args.dC, d, p, conj((2.0 * mode.dt) * (B * ratio)) * dc);
    const Complex dx = conj(exponential(mode.x)) * da + conj(mode.dt * phi_slope(mode.x)) * dq;
    dlog_dt += (conj(mode.x) * dx + mode.dt * (conj(ratio) * dq)).re;
    args.dlog_real(d, p) += static_cast<float>(mode.dt * dx.re * mode.lambda.re);
    args.dimaginary(d, p) += static_cast<float>(mode.dt * dx.im);
  }
  __shared__ double sums[kThreads];
  sums[threadIdx.x] = dlog_dt;
  __syncthreads();
  if (threadIdx.x == 0) {
    double sum = 0;
    for (int i = 0; i < kThreads; ++i) {
      sum += sums[i];
    }
    args.dlog_dt(d) += static_cast<float>(sum);
  }
}

}  // namespace

template <>
void s4d_discretize<float>(const Exec& exec, const S4dDiscretize<float>& args) {
  check_s4d_discretize(args);
  const int64_t count = args.a.size[0] * args.a.size[1];
  if (count == 0) {
    return;
  }
  const unsigned blocks = static_cast<unsigned>(ceil_div<int64_t>(count, kThreads));
  discretize_kernel<<<blocks, kThreads, 0, stream_of(exec)>>>(args);
  check_launch(exec, "s4d_discretize");
}

template <>
void s4d_discretize_backward<float>(const Exec& exec, const S4dDiscretizeBackward<float>& args) {
  check_s4d_discretize(args);
  const int64_t width = args.da.size[0];
  if (width == 0 || args.da.size[1] == 0) {
    return;
  }
  discretize_backward_kernel<<<static_cast<unsigned>(width), kThreads, 0, stream_of(exec)>>>(args);
  check_launch(exec, "s4d_discretize backward");
}

}  // namespace blockstate::kernels::cuda
