// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <complex>

#include "kernels/diagonal_scan.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradcheck.h"
#include "tests/support/guard_buffer.h"

namespace blockstate::test {
namespace {

using Complex = std::complex<double>;
using LongComplex = std::complex<long double>;

template <class T>
struct Modes {
  int64_t D, P;
  std::vector<T> log_dt, log_real, imaginary, B, C, a, c;

  Modes(int64_t channels, int64_t states, uint64_t key) : D(channels), P(states) {
    log_dt = random_uniform<T>(key, D, std::log(1e-3), std::log(1e-1));
    log_real = random_normal<T>(key + 1, D * P, 0.5, std::log(0.5));
    imaginary = random_normal<T>(key + 2, D * P, 20);
    B = random_normal<T>(key + 3, D * P * 2);
    C = random_normal<T>(key + 4, D * P * 2);
    a.assign(static_cast<size_t>(D * P * 2), T(NAN));
    c = a;
  }

  kernels::S4dDiscretize<T> arguments() {
    kernels::S4dDiscretize<T> args;
    args.a = make_view(a.data(), D, P, 2);
    args.c = make_view(c.data(), D, P, 2);
    args.log_dt = make_view<const T>(log_dt.data(), D);
    args.log_real = make_view<const T>(log_real.data(), D, P);
    args.imaginary = make_view<const T>(imaginary.data(), D, P);
    args.B = make_view<const T>(B.data(), D, P, 2);
    args.C = make_view<const T>(C.data(), D, P, 2);
    return args;
  }

  void run() { kernels::cpu::s4d_discretize(arguments()); }
};

/// The definition in the longest type; (e^x - 1) / x by its series where |x| is small.
template <class T>
void expected_modes(const Modes<T>& modes, std::vector<double>* a, std::vector<double>* c) {
  for (int64_t i = 0; i < modes.D * modes.P; ++i) {
    const size_t at = static_cast<size_t>(i);
    const long double dt = std::exp(static_cast<long double>(modes.log_dt[static_cast<size_t>(i / modes.P)]));
    const LongComplex lambda(-std::exp(static_cast<long double>(modes.log_real[at])), modes.imaginary[at]);
    const LongComplex x = dt * lambda;
    LongComplex ratio = (std::exp(x) - 1.0L) / x;
    if (std::abs(x) < 1e-3L) {
      ratio = 1.0L + x / 2.0L * (1.0L + x / 3.0L * (1.0L + x / 4.0L * (1.0L + x / 5.0L)));
    }
    const LongComplex out = 2.0L * LongComplex(modes.C[2 * at], modes.C[2 * at + 1]) *
                            LongComplex(modes.B[2 * at], modes.B[2 * at + 1]) * dt * ratio;
    const LongComplex decay = std::exp(x);
    a->push_back(static_cast<double>(decay.real()));
    a->push_back(static_cast<double>(decay.imag()));
    c->push_back(static_cast<double>(out.real()));
    c->push_back(static_cast<double>(out.imag()));
  }
}

}  // namespace

TEMPLATE_TEST_CASE("s4d_discretize equals its definition", "[s4d_discretize]", float, double) {
  for (const auto& [D, P] : {std::pair<int64_t, int64_t>{1, 1}, {3, 8}, {17, 32}, {40, 5}, {0, 4}, {4, 0}}) {
    Modes<TestType> modes(D, P, 51);
    modes.run();
    std::vector<double> a, c;
    expected_modes(modes, &a, &c);
    CHECK(compare("a", modes.a, a, tolerance_of<TestType>()));
    CHECK(compare("c", modes.c, c, tolerance_of<TestType>()));
  }
}

TEST_CASE("s4d_discretize is exact for tiny and for large dt * lambda", "[s4d_discretize]") {
  Modes<double> modes(5, 1, 52);
  modes.log_dt = {std::log(1e-12), std::log(1e-5), -800, std::log(1e-1), std::log(30.0)};
  modes.imaginary = {1e-3, 2, 5, 1300, 0};
  modes.run();
  std::vector<double> a, c;
  expected_modes(modes, &a, &c);
  CHECK(compare("a", modes.a, a, {1e-13, 1e-300}));
  CHECK(compare("c", modes.c, c, {1e-12, 1e-300}));
}

TEST_CASE("s4d_discretize never rounds a decay above 1", "[s4d_discretize]") {
  Modes<float> modes(64, 64, 53);
  for (float& x : modes.log_real) {
    x -= 25;  // |a| = 1 - 1e-13: rounding alone would put about half of them outside the circle
  }
  modes.run();
  int64_t rounded_up = 0;
  for (size_t i = 0; i < modes.a.size(); i += 2) {
    REQUIRE(std::hypot(static_cast<double>(modes.a[i]), static_cast<double>(modes.a[i + 1])) <= 1);
    const double dt = std::exp(static_cast<double>(modes.log_dt[i / 128]));
    const Complex exact = std::exp(dt * Complex(-std::exp(modes.log_real[i / 2]), modes.imaginary[i / 2]));
    rounded_up += std::abs(Complex(static_cast<float>(exact.real()), static_cast<float>(exact.imag()))) > 1;
    REQUIRE(std::abs(exact - Complex(modes.a[i], modes.a[i + 1])) < 2e-7);
  }
  CHECK(rounded_up > 1000);  // so the test could have failed
}

TEST_CASE("s4d_discretize gradients equal central differences", "[s4d_discretize]") {
  Modes<double> modes(3, 4, 54);
  modes.log_dt[0] = std::log(1e-4);  // the series
  modes.log_dt[1] = std::log(0.8);   // the closed form
  const std::vector<double> da = random_normal<double>(55, 24), dc = random_normal<double>(56, 24);
  std::vector<double> dlog_dt(3, 0), dlog_real(12, 0), dimaginary(12, 0), dB(24, 0), dC(24, 0);
  kernels::S4dDiscretizeBackward<double> args;
  args.forward = modes.arguments();
  args.dlog_dt = make_view(dlog_dt.data(), 3);
  args.dlog_real = make_view(dlog_real.data(), 3, 4);
  args.dimaginary = make_view(dimaginary.data(), 3, 4);
  args.dB = make_view(dB.data(), 3, 4, 2);
  args.dC = make_view(dC.data(), 3, 4, 2);
  args.da = make_view<const double>(da.data(), 3, 4, 2);
  args.dc = make_view<const double>(dc.data(), 3, 4, 2);
  kernels::cpu::s4d_discretize_backward(args);
  const auto loss = [&] {
    modes.run();
    double sum = 0;
    for (size_t i = 0; i < da.size(); ++i) {
      sum += da[i] * modes.a[i] + dc[i] * modes.c[i];
    }
    return sum;
  };
  const auto agree = [&] {
    return gradcheck({{"log_dt", &modes.log_dt, &dlog_dt},
                      {"log_real", &modes.log_real, &dlog_real},
                      {"imaginary", &modes.imaginary, &dimaginary},
                      {"B", &modes.B, &dB},
                      {"C", &modes.C, &dC}},
                     loss, kGradient, 1e-4);  // dt * imaginary turns by up to 30 radians: the step must be well below
  };
  CHECK(agree());
  const std::vector<double> once = dlog_dt;
  kernels::cpu::s4d_discretize_backward(args);  // gradients add
  CHECK(compare("dlog_dt", dlog_dt, std::vector<double>{2 * once[0], 2 * once[1], 2 * once[2]}, kFloat64));
  CHECK_FALSE(agree());
}

// Gu et al. 2022, eq. 4: the zero-order hold. Between two samples x' = lambda x + B u has the solution
// x(t + dt) = e^(dt lambda) x + (e^(dt lambda) - 1) / lambda B u, so two half steps with the same input equal one.
TEST_CASE("s4d_discretize and diagonal_scan: the kernel of the zero-order hold", "[s4d_discretize]") {
  const int64_t L = 200, P = 4;
  Modes<double> modes(1, P, 57);
  modes.run();
  std::vector<double> impulse(static_cast<size_t>(L), 0), y(static_cast<size_t>(L)), kernel;
  impulse[0] = 1;
  kernels::DiagonalScanForward<double> scan;
  scan.y = make_view(y.data(), 1, L, 1);
  scan.u = make_view<const double>(impulse.data(), 1, L, 1);
  scan.a = make_view<const double>(modes.a.data(), 1, P, 2);
  scan.c = make_view<const double>(modes.c.data(), 1, P, 2);
  kernels::cpu::diagonal_scan_forward(scan);
  const double dt = std::exp(modes.log_dt[0]);
  for (int64_t l = 0; l < L; ++l) {
    double sum = 0;  // K_l = 2 Re sum_p C Bbar e^(dt lambda l)
    for (size_t p = 0; p < static_cast<size_t>(P); ++p) {
      const Complex lambda(-std::exp(modes.log_real[p]), modes.imaginary[p]);
      const Complex held = (std::exp(dt * lambda) - 1.0) / lambda * Complex(modes.B[2 * p], modes.B[2 * p + 1]);
      sum += 2 * (Complex(modes.C[2 * p], modes.C[2 * p + 1]) * held * std::exp(dt * lambda * double(l))).real();
    }
    kernel.push_back(sum);
  }
  CHECK(compare("impulse response", y, kernel, {1e-10, 1e-13}));
}

TEST_CASE("s4d_discretize writes through strides and nothing else", "[s4d_discretize]") {
  Modes<float> plain(5, 7, 58);
  plain.run();
  GuardBuffer<float, 3> a({5, 7, 2}, 1), c({5, 7, 2}, 3), B({5, 7, 2}, 2), C({5, 7, 2}, 1);
  GuardBuffer<float, 2> log_real({5, 7}, 3), imaginary({5, 7}, 2);
  B.assign(plain.B);
  C.assign(plain.C);
  log_real.assign(plain.log_real);
  imaginary.assign(plain.imaginary);
  kernels::S4dDiscretize<float> args = plain.arguments();
  args.a = a.view();
  args.c = c.view();
  args.B = B.cview();
  args.C = C.cview();
  args.log_real = log_real.cview();
  args.imaginary = imaginary.cview();
  kernels::cpu::s4d_discretize(args);
  CHECK(a.fully_written("a"));
  CHECK(c.fully_written("c"));
  CHECK(same_bits("a", a.elements(), plain.a));
  CHECK(same_bits("c", c.elements(), plain.c));
}

}  // namespace blockstate::test
