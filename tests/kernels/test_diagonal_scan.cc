// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <complex>
#include <functional>
#include <unsupported/Eigen/FFT>

#include "core/base/parallel.h"
#include "tests/support/compare.h"
#include "tests/support/diagonal_case.h"
#include "tests/support/gradcheck.h"
#include "tests/support/guard_buffer.h"
#include "tests/support/sparse_buffer.h"

namespace blockstate::test {
namespace {

using kernels::kDiagonalCheckpoint;

constexpr DiagonalShape kShapes[] = {{1, 1, 1, 1},    {2, 63, 3, 8},  {1, 64, 16, 4}, {2, 65, 17, 5}, {1, 127, 31, 17},
                                     {2, 130, 8, 64}, {3, 200, 1, 3}, {1, 2, 33, 2},  {1, 61, 133, 6}};
constexpr DiagonalShape kEmptyShapes[] = {{0, 5, 3, 2}, {2, 0, 3, 2}, {2, 5, 0, 2}, {1, 70, 3, 0}};

/// Two records, padding inside and at the end, a record of one step.
std::vector<int64_t> packed_positions(int64_t B, int64_t L) {
  std::vector<int64_t> position;
  for (int64_t b = 0; b < B; ++b) {
    const int64_t first = L / 3 + b, pause = L / 2 + b, second = (2 * L) / 3;
    for (int64_t t = 0; t < L; ++t) {
      const bool padding = (t >= pause && t < second) || t >= L - 2;
      position.push_back(padding ? -1 : t < first ? 7 + t : t == first ? 0 : t == second ? 0 : t - first);
    }
  }
  return position;
}

/// The case run through buffers with guard bands and rows wider than the data.
template <class T>
void check_guarded(const DiagonalCase<T>& expected_from) {
  DiagonalCase<T> plain = expected_from;
  plain.forward();
  plain.backward();
  const auto [B, L, D, P] = plain.shape;
  const int64_t tiles = (L + kDiagonalCheckpoint - 1) / kDiagonalCheckpoint;
  GuardBuffer<T, 3> u({B, L, D}, 5), y({B, L, D}, 3), dy({B, L, D}, 1), du({B, L, D}, 7), a({D, P, 2}), c({D, P, 2});
  GuardBuffer<T, 3> da({D, P, 2}, 1), dc({D, P, 2}, 2);
  GuardBuffer<T, 4> final({B, D, P, 2}, 1), dinitial({B, D, P, 2}, 2);
  GuardBuffer<T, 5> checkpoint({B, tiles, P, 2, D}, 3);
  u.assign(plain.u);
  dy.assign(plain.dy);
  a.assign(plain.a);
  c.assign(plain.c);
  da.assign(std::vector<T>(plain.a.size(), T(2)));  // gradients of parameters add to what is there
  dc.assign(std::vector<T>(plain.a.size(), T(-3)));
  kernels::DiagonalScanBackward<T> args;
  DiagonalCase<T> sources = plain;
  args.forward = sources.arguments();
  args.forward.u = u.cview();
  args.forward.y = y.view();
  args.forward.a = a.cview();
  args.forward.c = c.cview();
  args.forward.final = final.view();
  args.forward.checkpoint = checkpoint.view();
  kernels::cpu::diagonal_scan_forward(args.forward);
  CHECK(y.fully_written("y"));
  CHECK(final.fully_written("final"));
  CHECK(checkpoint.fully_written("checkpoint"));
  CHECK(same_bits("y", y.elements(), plain.y));
  CHECK(same_bits("final", final.elements(), plain.final));
  y.poison();
  final.poison();
  args.du = du.view();
  args.da = da.view();
  args.dc = dc.view();
  args.dinitial = dinitial.view();
  args.dy = dy.cview();
  args.dfinal = make_view<const T>(plain.dfinal.data(), B, D, P, 2);
  kernels::cpu::diagonal_scan_backward(args);
  CHECK(du.fully_written("du"));
  CHECK(dinitial.fully_written("dinitial"));
  CHECK(da.fully_written("da"));
  CHECK(dc.fully_written("dc"));
  for (const auto* buffer : {&u, &y, &dy, &a, &c}) {
    CHECK(buffer->bands_intact());
  }
  CHECK(same_bits("du", du.elements(), plain.du));
  CHECK(same_bits("dinitial", dinitial.elements(), plain.dinitial));
  std::vector<double> da_expected, dc_expected;
  for (size_t i = 0; i < plain.a.size(); ++i) {
    da_expected.push_back(2 + static_cast<double>(plain.da[i]));
    dc_expected.push_back(-3 + static_cast<double>(plain.dc[i]));
  }
  CHECK(compare("da", da.elements(), da_expected, tolerance_of<T>()));
  CHECK(compare("dc", dc.elements(), dc_expected, tolerance_of<T>()));
}

template <class T>
std::vector<double> magnitude(const std::vector<T>& values, double floor) {
  std::vector<double> out;
  for (const T value : values) {
    out.push_back(std::max(std::abs(static_cast<double>(value)), floor));
  }
  return out;
}

/// All gradients of a float case against the same kernel in double, whose own gradients are checked numerically.
void check_float_gradients(const DiagonalCase<float>& single, const DiagonalCase<double>& twice) {
  const double steps = static_cast<double>(single.shape.L * single.shape.P);
  // A sum of n random terms of size s rounds to about s * sqrt(n) * epsilon: elements far below that carry no digits.
  const double floor = 4 * std::sqrt(steps);
  CHECK(compare_scaled("du", single.du, twice.du, magnitude(twice.du, floor), kFloat32));
  CHECK(compare_scaled("da", single.da, twice.da, magnitude(twice.da, 10 * floor), kFloat32));
  CHECK(compare_scaled("dc", single.dc, twice.dc, magnitude(twice.dc, 4 * floor), kFloat32));
  CHECK(compare_scaled("dD", single.dD, twice.dD, magnitude(twice.dD, floor), kFloat32));
  CHECK(compare_scaled("dinitial", single.dinitial, twice.dinitial, magnitude(twice.dinitial, floor), kFloat32));
}

DiagonalCase<double> in_double(const DiagonalCase<float>& from) {
  DiagonalCase<double> to({from.shape.B, 0, from.shape.D, from.shape.P}, 0);
  to.shape = from.shape;
  to.u = converted<double>(from.u);
  to.a = converted<double>(from.a);
  to.c = converted<double>(from.c);
  to.skip = converted<double>(from.skip);
  to.initial = converted<double>(from.initial);
  to.dy = converted<double>(from.dy);
  to.dfinal = converted<double>(from.dfinal);
  to.position = from.position;
  return to;
}

/// Runs `whole` as pieces cut at `cuts`, carrying the state forward and its gradient back. `spoil` may damage a carry.
template <class T>
DiagonalCase<T> in_pieces(const DiagonalCase<T>& whole, const std::vector<int64_t>& cuts,
                          const std::function<void(std::vector<T>& state, bool gradient)>& spoil = {}) {
  const auto [B, L, D, P] = whole.shape;
  std::vector<DiagonalCase<T>> pieces;
  DiagonalCase<T> out = whole;
  out.y.assign(whole.u.size(), T(0));
  out.du = out.y;
  out.da.assign(whole.a.size(), T(0));
  out.dc = out.da;
  out.dD.assign(whole.skip.size(), T(0));
  std::vector<T> carry = whole.initial;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    pieces.push_back(whole.piece(cuts[i], cuts[i + 1]));
    pieces.back().initial = carry;
    pieces.back().forward();
    paste(pieces.back().y, B, L, D, cuts[i], out.y);
    carry = pieces.back().final;
    if (spoil && i + 2 < cuts.size()) {
      spoil(carry, false);
    }
  }
  out.final = carry;
  carry = whole.dfinal;
  for (size_t i = pieces.size(); i-- > 0;) {
    pieces[i].dfinal = carry;
    pieces[i].backward();
    paste(pieces[i].du, B, L, D, cuts[i], out.du);
    for (size_t k = 0; k < out.da.size(); ++k) {
      out.da[k] += pieces[i].da[k];
      out.dc[k] += pieces[i].dc[k];
    }
    for (size_t k = 0; k < out.dD.size(); ++k) {
      out.dD[k] += pieces[i].dD[k];
    }
    carry = pieces[i].dinitial;
    if (spoil && i > 0) {
      spoil(carry, true);
    }
  }
  out.dinitial = carry;
  return out;
}

}  // namespace

TEMPLATE_TEST_CASE("diagonal_scan equals the naive recurrence in double", "[diagonal_scan]", float, double) {
  for (const DiagonalShape shape : kShapes) {
    for (const bool packed : {false, true}) {
      CAPTURE(shape.B, shape.L, shape.D, shape.P, packed);
      DiagonalCase<TestType> one(shape, 11);
      if (packed && shape.L > 8) {
        one.position = packed_positions(shape.B, shape.L);
      }
      one.forward();
      const NaiveDiagonalScan naive = one.naive();
      CHECK(compare_scaled("y", one.y, naive.y, naive.scale, tolerance_of<TestType>()));
      CHECK(compare_scaled("final", one.final, naive.final, magnitude(naive.final, 8), tolerance_of<TestType>()));
      one.skip.clear();
      one.initial.clear();
      one.forward();
      const NaiveDiagonalScan bare = one.naive();
      CHECK(compare_scaled("y, no D, no initial", one.y, bare.y, bare.scale, tolerance_of<TestType>()));
    }
  }
}

TEST_CASE("diagonal_scan of nothing", "[diagonal_scan]") {
  for (const DiagonalShape shape : kEmptyShapes) {
    CAPTURE(shape.B, shape.L, shape.D, shape.P);
    DiagonalCase<float> one(shape, 12);
    one.forward();
    one.backward();
    CHECK(compare("y", one.y, one.naive().y, kFloat32));
    if (shape.L == 0) {
      CHECK(same_bits("final", one.final, one.initial));
      CHECK(same_bits("dinitial", one.dinitial, one.dfinal));
    }
  }
}

TEMPLATE_TEST_CASE("diagonal_scan writes what it should, through strides, and adds parameter gradients",
                   "[diagonal_scan]", float, double) {
  for (const DiagonalShape shape : kShapes) {
    CAPTURE(shape.B, shape.L, shape.D, shape.P);
    DiagonalCase<TestType> one(shape, 13);
    if (shape.L > 8) {
      one.position = packed_positions(shape.B, shape.L);
    }
    check_guarded(one);
  }
}

TEST_CASE("diagonal_scan gradients equal central differences", "[diagonal_scan]") {
  for (const bool packed : {false, true}) {
    DiagonalCase<double> one({2, 67, 3, 5}, 14);
    if (packed) {
      one.position = packed_positions(2, 67);
    }
    one.forward();
    one.backward();
    CHECK(gradcheck(
        {{"u", &one.u, &one.du},
         {"a", &one.a, &one.da},
         {"c", &one.c, &one.dc},
         {"D", &one.skip, &one.dD},
         {"initial", &one.initial, &one.dinitial}},
        [&] { return one.loss(); }, kGradient, 1e-4));  // y holds a^66: the step must be well below 1 / 66
  }
}

TEST_CASE("diagonal_scan gradients in float equal those in double", "[diagonal_scan]") {
  for (const DiagonalShape shape : kShapes) {
    CAPTURE(shape.B, shape.L, shape.D, shape.P);
    DiagonalCase<float> single(shape, 15);
    if (shape.B > 1) {
      single.position = packed_positions(shape.B, shape.L);
    }
    DiagonalCase<double> twice = in_double(single);
    single.forward();
    single.backward();
    twice.forward();
    twice.backward();
    check_float_gradients(single, twice);
  }
}

TEMPLATE_TEST_CASE("diagonal_scan: chunks with carry equal one pass", "[diagonal_scan][law]", float, double) {
  using T = TestType;
  const DiagonalShape shape{2, 150, 18, 5};
  DiagonalCase<T> whole(shape, 16, 0.005);
  whole.forward();
  whole.backward();
  const auto agrees = [&](const DiagonalCase<T>& other, double factor) {
    const Tolerance tolerance{tolerance_of<T>().rel * factor, tolerance_of<T>().abs * factor};
    const double floor = 4 * std::sqrt(150.0 * 5);  // as in check_float_gradients
    std::vector<Comparison> all;
    all.push_back(compare_scaled("y", other.y, whole.y, magnitude(whole.y, floor), tolerance));
    all.push_back(compare_scaled("final", other.final, whole.final, magnitude(whole.final, floor), tolerance));
    all.push_back(compare_scaled("du", other.du, whole.du, magnitude(whole.du, floor), tolerance));
    all.push_back(compare_scaled("da", other.da, whole.da, magnitude(whole.da, 10 * floor), tolerance));
    all.push_back(compare_scaled("dc", other.dc, whole.dc, magnitude(whole.dc, 4 * floor), tolerance));
    all.push_back(compare_scaled("dD", other.dD, whole.dD, magnitude(whole.dD, floor), tolerance));
    all.push_back(
        compare_scaled("dinitial", other.dinitial, whole.dinitial, magnitude(whole.dinitial, floor), tolerance));
    return all;
  };
  RandomStream stream(17);
  for (int round = 0; round < 6; ++round) {
    std::vector<int64_t> cuts{0, shape.L};
    for (int i = 0; i < 1 + 2 * round; ++i) {
      cuts.push_back(static_cast<int64_t>(stream.below(static_cast<uint64_t>(shape.L + 1))));  // may repeat: empty
    }
    std::sort(cuts.begin(), cuts.end());
    for (const Comparison& one : agrees(in_pieces(whole, cuts), 1)) {
      CHECK(one);
    }
  }
  // The same comparison must see a damaged carry, by ten times its tolerance.
  const std::vector<int64_t> cuts{0, 70, 150};
  const auto zeroed = in_pieces<T>(whole, cuts, [](std::vector<T>& state, bool gradient) {
    if (!gradient) {
      std::fill(state.begin(), state.end(), T(0));
    }
  });
  CHECK_FALSE(agrees(zeroed, 10)[0]);
  CHECK_FALSE(agrees(zeroed, 10)[3]);
  const auto dropped = in_pieces<T>(whole, cuts, [](std::vector<T>& state, bool gradient) {
    if (gradient) {
      std::fill(state.begin(), state.end(), T(0));
    }
  });
  CHECK(agrees(dropped, 1)[0]);
  for (const size_t i : {2, 3, 6}) {
    CHECK_FALSE(agrees(dropped, 10)[i]);
  }
  // A carry of one step too early: the state of the step before, run on as if it were the last.
  DiagonalCase<T> early = whole.piece(0, 69);
  early.initial = whole.initial;
  early.forward();
  const auto shifted = in_pieces<T>(whole, cuts, [&](std::vector<T>& state, bool gradient) {
    if (!gradient) {
      state = early.final;
    }
  });
  CHECK_FALSE(agrees(shifted, 10)[0]);
  CHECK_FALSE(agrees(shifted, 10)[1]);
}

TEST_CASE("diagonal_scan: packed records equal separate ones, padding changes nothing", "[diagonal_scan]") {
  const int64_t D = 7, P = 3;
  DiagonalCase<double> packed({1, 100, D, P}, 18);
  packed.position.assign(100, 5);
  packed.position[40] = 0;
  for (int64_t t = 70; t < 80; ++t) {
    packed.position[static_cast<size_t>(t)] = -1;
  }
  packed.forward();
  packed.backward();
  DiagonalCase<double> first = packed.piece(0, 40), second = packed.piece(40, 90);  // 50 valid steps
  // The second record without its padding: steps 40..69 and 80..99.
  const auto without = [&](const std::vector<double>& values) {
    std::vector<double> out(values.begin() + 40 * D, values.begin() + 70 * D);
    out.insert(out.end(), values.begin() + 80 * D, values.end());
    return out;
  };
  first.position.clear();
  first.initial = packed.initial;
  second.u = without(packed.u);
  second.dy = without(packed.dy);
  second.position.clear();
  second.dfinal = packed.dfinal;
  first.forward();
  first.backward();
  second.forward();
  second.backward();
  CHECK(compare("y of the first", std::vector<double>(packed.y.begin(), packed.y.begin() + 40 * D), first.y, kFloat64));
  CHECK(compare("y of the second", without(packed.y), second.y, kFloat64));
  CHECK(compare("final", packed.final, second.final, kFloat64));
  CHECK(compare("du of the first", std::vector<double>(packed.du.begin(), packed.du.begin() + 40 * D), first.du,
                kFloat64));
  CHECK(compare("du of the second", without(packed.du), second.du, kFloat64));
  CHECK(compare("dinitial", packed.dinitial, first.dinitial, kFloat64));
  std::vector<double> da = first.da, dc = first.dc;
  for (size_t i = 0; i < da.size(); ++i) {
    da[i] += second.da[i];
    dc[i] += second.dc[i];
  }
  CHECK(compare("da", packed.da, da, kFloat64));
  CHECK(compare("dc", packed.dc, dc, kFloat64));
  for (int64_t i = 70 * D; i < 80 * D; ++i) {
    REQUIRE(packed.y[static_cast<size_t>(i)] == 0);
    REQUIRE(packed.du[static_cast<size_t>(i)] == 0);
  }
}

TEST_CASE("diagonal_scan does not depend on the thread count", "[diagonal_scan]") {
  const int restore = thread_count();
  DiagonalCase<float> one({3, 140, 70, 9}, 19);
  set_thread_count(1);
  one.forward();
  one.backward();
  for (const int threads : {2, 5}) {
    set_thread_count(threads);
    DiagonalCase<float> other = one;
    other.forward();
    other.backward();
    CHECK(same_bits("y", other.y, one.y));
    CHECK(same_bits("du", other.du, one.du));
    CHECK(same_bits("da", other.da, one.da));
    CHECK(same_bits("dc", other.dc, one.dc));
    CHECK(same_bits("dD", other.dD, one.dD));
    CHECK(same_bits("dinitial", other.dinitial, one.dinitial));
  }
  set_thread_count(restore);
}

TEST_CASE("diagonal_scan is causal", "[diagonal_scan]") {
  DiagonalCase<float> one({1, 90, 5, 4}, 20);
  one.forward();
  for (const int64_t t : {0, 1, 63, 64, 89}) {
    DiagonalCase<float> other = one;
    for (int64_t d = 0; d < 5; ++d) {
      other.u[static_cast<size_t>(t * 5 + d)] += 1;
    }
    other.forward();
    for (int64_t i = 0; i < 90 * 5; ++i) {
      const bool changed = other.y[static_cast<size_t>(i)] != one.y[static_cast<size_t>(i)];
      REQUIRE(changed == (i >= t * 5));  // every later output: the memory is long here
    }
  }
}

TEST_CASE("diagonal_scan: a = 1 sums, a = 0 forgets", "[diagonal_scan]") {
  DiagonalCase<double> one({1, 100, 2, 1}, 21);
  one.skip.clear();
  one.initial.clear();
  one.a = {1, 0, 0, 0};
  one.c = {1, 5, 3, 7};
  one.forward();
  double sum = 0;
  for (int64_t t = 0; t < 100; ++t) {
    sum += one.u[static_cast<size_t>(2 * t)];
    CHECK(one.y[static_cast<size_t>(2 * t)] == Approx(sum).margin(1e-12));
    CHECK(one.y[static_cast<size_t>(2 * t + 1)] == 3 * one.u[static_cast<size_t>(2 * t + 1)]);
  }
}

TEST_CASE("diagonal_scan does not crawl through denormal numbers in silence", "[diagonal_scan]") {
  DiagonalCase<float> one({1, 3, 1, 1}, 24);
  one.u = {0, 0, 0};
  one.a = {0.5f, 0};
  one.initial = {2e-38f, 0};
  one.forward();
  CHECK(one.final[0] == 0);
  one.initial = {2e-30f, 0};
  one.forward();
  CHECK(one.final[0] == 2.5e-31f);
}

TEST_CASE("diagonal_scan equals the convolution with its kernel by FFT", "[diagonal_scan]") {
  const int64_t L = 301, P = 6;
  DiagonalCase<double> one({1, L, 1, P}, 22);
  one.initial.clear();
  one.forward();
  // K[l] = Re(sum_p c a^l), plus D at l = 0; both padded to 2L so that the circle does not close.
  std::vector<double> kernel(static_cast<size_t>(2 * L), 0), input(static_cast<size_t>(2 * L), 0), output;
  for (int64_t l = 0; l < L; ++l) {
    for (size_t p = 0; p < static_cast<size_t>(P); ++p) {
      const std::complex<double> a(one.a[2 * p], one.a[2 * p + 1]), c(one.c[2 * p], one.c[2 * p + 1]);
      kernel[static_cast<size_t>(l)] += (c * std::pow(a, static_cast<double>(l))).real();
    }
    input[static_cast<size_t>(l)] = one.u[static_cast<size_t>(l)];
  }
  kernel[0] += one.skip[0];
  Eigen::FFT<double> fft;
  std::vector<std::complex<double>> kernel_spectrum, spectrum;
  fft.fwd(kernel_spectrum, kernel);
  fft.fwd(spectrum, input);
  for (size_t i = 0; i < spectrum.size(); ++i) {
    spectrum[i] *= kernel_spectrum[i];
  }
  fft.inv(output, spectrum);
  output.resize(static_cast<size_t>(L));
  CHECK(compare("y", one.y, output, {1e-10, 1e-10}));  // a transform mixes all sizes: absolute error
}

TEST_CASE("diagonal_scan reads and writes beyond 2^31 elements", "[diagonal_scan]") {
  DiagonalCase<float> one({1, 70, 3, 2}, 23);
  one.forward();
  one.backward();
  const int64_t stride = (int64_t{1} << 25) + 3;  // 70 rows reach 2.3e9 elements
  const SparseBuffer<float> u(70 * stride), y(70 * stride), dy(70 * stride), du(70 * stride);
  for (int64_t i = 0; i < 70 * 3; ++i) {
    u.data()[i / 3 * stride + i % 3] = one.u[static_cast<size_t>(i)];
    dy.data()[i / 3 * stride + i % 3] = one.dy[static_cast<size_t>(i)];
  }
  DiagonalCase<float> other = one;
  kernels::DiagonalScanBackward<float> args;
  args.forward = other.arguments();
  args.forward.u.data = u.data();
  args.forward.u.stride[1] = stride;
  args.forward.y.data = y.data();
  args.forward.y.stride[1] = stride;
  kernels::cpu::diagonal_scan_forward(args.forward);
  args.du = make_view(du.data(), 1, 70, 3);
  args.du.stride[1] = stride;
  args.dy = make_view<const float>(dy.data(), 1, 70, 3);
  args.dy.stride[1] = stride;
  args.da = make_view(other.da.data(), 3, 2, 2);
  args.dc = make_view(other.dc.data(), 3, 2, 2);
  args.dfinal = make_view<const float>(other.dfinal.data(), 1, 3, 2, 2);
  kernels::cpu::diagonal_scan_backward(args);
  for (int64_t i = 0; i < 70 * 3; ++i) {
    REQUIRE(y.data()[i / 3 * stride + i % 3] == one.y[static_cast<size_t>(i)]);
    REQUIRE(du.data()[i / 3 * stride + i % 3] == one.du[static_cast<size_t>(i)]);
  }
}

}  // namespace blockstate::test
