// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>

#include "kernels/diagonal_scan.h"
#include "tests/support/compare.h"
#include "tests/support/cuda_array.h"
#include "tests/support/fill.h"

namespace blockstate::test {
namespace {

struct Modes {
  int64_t D, P;
  std::vector<float> log_dt, log_real, imaginary, B, C, da, dc;

  Modes(int64_t channels, int64_t states, uint64_t key) : D(channels), P(states) {
    log_dt = random_uniform<float>(key, D, std::log(1e-3), std::log(1e-1));
    log_real = random_normal<float>(key + 1, D * P, 0.5, std::log(0.5));
    imaginary = random_normal<float>(key + 2, D * P, 20);
    B = random_normal<float>(key + 3, D * P * 2);
    C = random_normal<float>(key + 4, D * P * 2);
    da = random_normal<float>(key + 5, D * P * 2);
    dc = random_normal<float>(key + 6, D * P * 2);
  }
};

struct Outputs {
  std::vector<float> a, c, dlog_dt, dlog_real, dimaginary, dB, dC;
};

template <class Real, class Array>
kernels::S4dDiscretize<Real> inputs_of(const Modes& m, const Array& log_dt, const Array& log_real,
                                       const Array& imaginary, const Array& B, const Array& C) {
  kernels::S4dDiscretize<Real> args;
  args.log_dt = make_view<const Real>(log_dt.data(), m.D);
  args.log_real = make_view<const Real>(log_real.data(), m.D, m.P);
  args.imaginary = make_view<const Real>(imaginary.data(), m.D, m.P);
  args.B = make_view<const Real>(B.data(), m.D, m.P, int64_t{2});
  args.C = make_view<const Real>(C.data(), m.D, m.P, int64_t{2});
  return args;
}

/// Gradients start from `start`.
Outputs run_gpu(const Modes& m, float start) {
  const CudaArray<float> log_dt(m.log_dt), log_real(m.log_real), imaginary(m.imaginary), B(m.B), C(m.C);
  const CudaArray<float> da(m.da), dc(m.dc), a(m.D * m.P * 2), c(m.D * m.P * 2);
  const auto filled = [&](int64_t count) { return std::vector<float>(static_cast<size_t>(count), start); };
  const CudaArray<float> dlog_dt(filled(m.D)), dlog_real(filled(m.D * m.P)), dimaginary(filled(m.D * m.P));
  const CudaArray<float> dB(filled(m.D * m.P * 2)), dC(filled(m.D * m.P * 2));
  kernels::S4dDiscretizeBackward<float> back;
  back.forward = inputs_of<float>(m, log_dt, log_real, imaginary, B, C);
  kernels::S4dDiscretize<float> args = back.forward;
  args.a = a.view(m.D, m.P, int64_t{2});
  args.c = c.view(m.D, m.P, int64_t{2});
  kernels::cuda::s4d_discretize(gpu(), args);
  back.dlog_dt = dlog_dt.view(m.D);
  back.dlog_real = dlog_real.view(m.D, m.P);
  back.dimaginary = dimaginary.view(m.D, m.P);
  back.dB = dB.view(m.D, m.P, int64_t{2});
  back.dC = dC.view(m.D, m.P, int64_t{2});
  back.da = da.cview(m.D, m.P, int64_t{2});
  back.dc = dc.cview(m.D, m.P, int64_t{2});
  kernels::cuda::s4d_discretize_backward(gpu(), back);
  return {a.host(), c.host(), dlog_dt.host(), dlog_real.host(), dimaginary.host(), dB.host(), dC.host()};
}

struct Expected {
  std::vector<double> a, c, dlog_dt, dlog_real, dimaginary, dB, dC;
};

/// The CPU in double on the same float values.
Expected run_double(const Modes& m, double start) {
  const auto log_dt = converted<double>(m.log_dt), log_real = converted<double>(m.log_real);
  const auto imaginary = converted<double>(m.imaginary), B = converted<double>(m.B), C = converted<double>(m.C);
  const auto da = converted<double>(m.da), dc = converted<double>(m.dc);
  Expected out;
  out.a.resize(da.size());
  out.c.resize(da.size());
  out.dlog_dt.assign(log_dt.size(), start);
  out.dlog_real.assign(log_real.size(), start);
  out.dimaginary.assign(log_real.size(), start);
  out.dB.assign(B.size(), start);
  out.dC.assign(B.size(), start);
  kernels::S4dDiscretizeBackward<double> back;
  back.forward = inputs_of<double>(m, log_dt, log_real, imaginary, B, C);
  kernels::S4dDiscretize<double> args = back.forward;
  args.a = make_view(out.a.data(), m.D, m.P, int64_t{2});
  args.c = make_view(out.c.data(), m.D, m.P, int64_t{2});
  kernels::cpu::s4d_discretize(args);
  back.dlog_dt = make_view(out.dlog_dt.data(), m.D);
  back.dlog_real = make_view(out.dlog_real.data(), m.D, m.P);
  back.dimaginary = make_view(out.dimaginary.data(), m.D, m.P);
  back.dB = make_view(out.dB.data(), m.D, m.P, int64_t{2});
  back.dC = make_view(out.dC.data(), m.D, m.P, int64_t{2});
  back.da = make_view<const double>(da.data(), m.D, m.P, int64_t{2});
  back.dc = make_view<const double>(dc.data(), m.D, m.P, int64_t{2});
  kernels::cpu::s4d_discretize_backward(back);
  return out;
}

void check_all(const Outputs& found, const Expected& expected) {
  CHECK(compare("a", found.a, expected.a, kFloat32));
  CHECK(compare("c", found.c, expected.c, kFloat32));
  CHECK(compare("dlog_dt", found.dlog_dt, expected.dlog_dt, kFloat32));
  CHECK(compare("dlog_real", found.dlog_real, expected.dlog_real, kFloat32));
  CHECK(compare("dimaginary", found.dimaginary, expected.dimaginary, kFloat32));
  CHECK(compare("dB", found.dB, expected.dB, kFloat32));
  CHECK(compare("dC", found.dC, expected.dC, kFloat32));
}

}  // namespace

TEST_CASE("s4d_discretize on a GPU equals the CPU in double, and its gradients add", "[s4d_discretize]") {
  for (const auto& [D, P] : {std::pair<int64_t, int64_t>{1, 1}, {3, 8}, {17, 32}, {40, 5}, {5, 100}, {0, 4}, {4, 0}}) {
    CAPTURE(D, P);
    const Modes modes(D, P, 251);
    const Outputs found = run_gpu(modes, 0);
    check_all(found, run_double(modes, 0));
    check_all(run_gpu(modes, 3), run_double(modes, 3));
    const Outputs again = run_gpu(modes, 0);
    CHECK(same_bits("dlog_dt", again.dlog_dt, found.dlog_dt));
    CHECK(same_bits("dB", again.dB, found.dB));
  }
}

TEST_CASE("s4d_discretize on a GPU: tiny and large dt * lambda", "[s4d_discretize]") {
  Modes modes(5, 1, 252);
  modes.log_dt = {-27.6f, -11.5f, -60, -2.3f, 3.4f};
  modes.imaginary = {1e-3f, 2, 5, 1300, 0};
  check_all(run_gpu(modes, 0), run_double(modes, 0));
}

TEST_CASE("s4d_discretize on a GPU never rounds a decay above 1", "[s4d_discretize]") {
  Modes modes(64, 64, 253);
  for (float& x : modes.log_real) {
    x -= 25;  // |a| = 1 - 1e-13: rounding alone would put about half of them outside the circle
  }
  const Outputs found = run_gpu(modes, 0);
  const Expected exact = run_double(modes, 0);
  int64_t rounded_up = 0;
  for (size_t i = 0; i < found.a.size(); i += 2) {
    REQUIRE(std::hypot(static_cast<double>(found.a[i]), static_cast<double>(found.a[i + 1])) <= 1);
    rounded_up += std::hypot(static_cast<double>(static_cast<float>(exact.a[i])),
                             static_cast<double>(static_cast<float>(exact.a[i + 1]))) > 1;
  }
  CHECK(compare("a", found.a, exact.a, {2e-7, 2e-7}));
  CHECK(rounded_up > 1000);  // so the test could have failed
}

}  // namespace blockstate::test
