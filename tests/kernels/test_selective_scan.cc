// SPDX-License-Identifier: Apache-2.0
// The selective scan against its naive reference and numeric gradients, and the identities of its header. What carries
// state from chunk to chunk is in test_selective_scan_carry.cc.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "core/base/parallel.h"
#include "hwy/highway.h"
#include "tests/kernels/selective_scan_case.h"
#include "tests/support/gradcheck.h"
#include "tests/support/sparse_buffer.h"

namespace blockstate::test {
namespace {

constexpr int64_t kTile = kernels::kScanCheckpoint;

template <class T>
void check_forward(const ScanInputs<T>& in, int64_t gap, Tolerance tolerance) {
  const ScanResults<double> expected = naive_selective_scan(converted_scan<double>(in));
  for (const bool training : {false, true}) {
    const ScanResults<T> found = training ? train_scan(in, gap) : infer_scan(in, gap);
    CHECK(compare_scaled("y", found.y, expected.y, expected.y_scale, tolerance));
    CHECK(compare_scaled("final", found.final, expected.final, expected.final_scale, tolerance));
  }
}

// The scalar whose gradients backward computes: y . dy + final . dfinal, by the naive reference.
double objective(const ScanInputs<double>& in) {
  const ScanResults<double> out = naive_selective_scan(in);
  double sum = 0;
  for (size_t i = 0; i < out.y.size(); ++i) {
    sum += out.y[i] * in.dy[i];
  }
  for (size_t i = 0; i < in.dfinal.size(); ++i) {
    sum += out.final[i] * in.dfinal[i];
  }
  return sum;
}

void check_gradients(ScanInputs<double> in) {
  const ScanResults<double> found = train_scan(in, 2);
  std::vector<GradientInput> inputs{{"u", &in.u, &found.du},
                                    {"delta", &in.delta, &found.ddelta},
                                    {"A", &in.A, &found.dA},
                                    {"B", &in.B, &found.dB},
                                    {"C", &in.C, &found.dC}};
  if (!in.D.empty()) {
    inputs.push_back({"D", &in.D, &found.dD});
  }
  if (!in.z.empty()) {
    inputs.push_back({"z", &in.z, &found.dz});
  }
  if (!in.bias.empty()) {
    inputs.push_back({"delta_bias", &in.bias, &found.dbias});
  }
  if (!in.initial.empty()) {
    inputs.push_back({"initial", &in.initial, &found.dinitial});
  }
  CHECK(gradcheck(inputs, [&in] { return objective(in); }));
}

TEST_CASE("selective scan forward equals the naive double loop", "[cpu]") {
  const int64_t L = GENERATE(1, 2, kTile - 1, kTile, kTile + 1, 3 * kTile + 17);
  const int64_t D = GENERATE(1, 7, 16, 17, 37);
  const int64_t N = GENERATE(1, 5, 16, 17);
  const int64_t B = L % 2 + 1;
  INFO("B " << B << " L " << L << " D " << D << " N " << N);
  check_forward(random_scan<float>(100, {B, L, D, N}), L % 3, kFloat32);
  check_forward(random_scan<double>(200, {B, L, D, N}), L % 3, kFloat64);
}

TEST_CASE("selective scan forward with every optional input absent in turn", "[cpu]") {
  for (int absent = 0; absent < 16; ++absent) {
    INFO("absent " << absent);
    const ScanOptions options{(absent & 1) == 0, (absent & 2) == 0, (absent & 4) == 0, (absent & 8) == 0};
    for (const int64_t L : {int64_t{1}, kTile + 3}) {
      check_forward(random_scan<float>(300, {2, L, 19, 6}, options), 1, kFloat32);
    }
  }
}

TEST_CASE("selective scan forward with 256 states and over thousands of steps", "[cpu]") {
  check_forward(random_scan<float>(310, {1, kTile + 1, 17, 256}), 0, kFloat32);
  check_forward(random_scan<float>(320, {1, 5003, 18, 4}, {.delta_shift = -8}), 0, kFloat32LongScan);
}

TEST_CASE("selective scan backward equals numeric gradients", "[cpu]") {
  const int64_t L = GENERATE(1, 5, kTile, kTile + 1, 2 * kTile + 3);
  INFO("L " << L);
  check_gradients(random_scan<double>(400, {1, L, 3, 2}));
  check_gradients(random_scan<double>(410, {2, std::min<int64_t>(L, 5), 17, 5}));
}

TEST_CASE("selective scan backward with every optional input absent in turn", "[cpu]") {
  for (int absent = 0; absent < 16; ++absent) {
    INFO("absent " << absent);
    const ScanOptions options{(absent & 1) == 0, (absent & 2) == 0, (absent & 4) == 0, (absent & 8) == 0,
                              (absent & 1) == 0};
    check_gradients(random_scan<double>(420, {1, 7, 3, 2}, options));
  }
}

TEST_CASE("selective scan backward with records and padding equals numeric gradients", "[cpu]") {
  ScanInputs<double> in = random_scan<double>(430, {2, kTile + 8, 3, 2});
  in.position.resize(static_cast<size_t>(2 * (kTile + 8)));
  for (size_t i = 0; i < in.position.size(); ++i) {
    // Records of 9 steps between two steps of padding: starts at even and odd steps, and over the edge of the tile.
    const int64_t phase = static_cast<int64_t>(i) % 11;
    in.position[i] = phase < 9 ? phase : -1;
  }
  check_gradients(in);
  for (size_t i = 0; i < in.position.size(); ++i) {
    in.position[i] = i % 3 == 1 ? 0 : static_cast<int64_t>(i);
  }
  check_gradients(in);
}

TEST_CASE("selective scan backward in float equals double", "[cpu]") {
  const int64_t L = GENERATE(1, 2, kTile - 1, kTile + 1, 2 * kTile + 5, 1100);
  const int64_t D = GENERATE(1, 16, 33);
  const int64_t N = GENERATE(1, 5, 16);
  INFO("L " << L << " D " << D << " N " << N);
  const ScanInputs<float> in = random_scan<float>(500, {2, L, D, N});
  // Sums over up to 2200 (row, step) pairs: rounding grows with their root.
  check_results(train_scan(in, 3), train_scan(converted_scan<double>(in)), L > 1024 ? Tolerance{5e-5, 1e-6} : kFloat32);
}

TEST_CASE("selective scan adds to the gradients of parameters and overwrites the others", "[cpu]") {
  const ScanInputs<double> in = random_scan<double>(600, {2, 5, 4, 3});
  const ScanResults<double> once = train_scan(in);
  ScanResults<double> out;
  ScanRunner<double> runner(in);
  runner.train(out);
  std::vector<double> dA(once.dA.size(), 1), dD(once.dD.size(), 2), dbias(once.dbias.size(), 3);
  runner.backward_into(dA, dD, dbias);
  for (size_t i = 0; i < dA.size(); ++i) {
    CHECK(dA[i] == Approx(once.dA[i] + 1).epsilon(1e-12));
  }
  for (size_t i = 0; i < dD.size(); ++i) {
    CHECK(dD[i] == Approx(once.dD[i] + 2).epsilon(1e-12));
    CHECK(dbias[i] == Approx(once.dbias[i] + 3).epsilon(1e-12));
  }
}

TEST_CASE("selective scan with A = 0 is a running sum, with A very negative it forgets", "[cpu]") {
  ScanInputs<float> in = random_scan<float>(700, {1, 2 * kTile + 9, 18, 3}, {.z = false, .initial = false});
  std::fill(in.A.begin(), in.A.end(), 0.0f);
  std::fill(in.C.begin(), in.C.end(), 1.0f);
  check_forward(in, 0, kFloat32);
  for (const float very : {-1e4f, -1e20f, -1e38f}) {
    INFO("A " << very);
    std::fill(in.A.begin(), in.A.end(), very);
    const ScanResults<float> out = train_scan(in);
    for (int64_t t = 0; t < in.size.L; ++t) {
      for (int64_t d = 0; d < in.size.D; ++d) {
        const size_t at = static_cast<size_t>(t * in.size.D + d);
        double expected = in.D[d];
        for (int64_t n = 0; n < in.size.N; ++n) {
          expected += naive_softplus(in.delta[at] + in.bias[d]) * in.B[t * in.size.N + n];
        }
        CHECK(out.y[at] == Approx(expected * in.u[at]).epsilon(2e-5).margin(1e-5));
        CHECK(std::isfinite(out.ddelta[at]));
      }
    }
  }
}

TEST_CASE("selective scan output at a step ignores later steps", "[cpu]") {
  const ScanInputs<float> in = random_scan<float>(800, {1, kTile + 20, 17, 5});
  const ScanResults<float> before = infer_scan(in);
  for (const int64_t t : {int64_t{0}, kTile - 1, kTile + 7}) {
    ScanInputs<float> changed = in;
    changed.u[static_cast<size_t>(t * 17 + 3)] += 1;
    changed.B[static_cast<size_t>(t * 5 + 1)] += 1;
    const ScanResults<float> after = infer_scan(changed);
    const std::vector<float> old_past(before.y.begin(), before.y.begin() + t * 17);
    const std::vector<float> new_past(after.y.begin(), after.y.begin() + t * 17);
    CHECK(same_bits("y before the change", new_past, old_past));
    CHECK(after.y[static_cast<size_t>(t * 17 + 3)] != before.y[static_cast<size_t>(t * 17 + 3)]);
  }
}

TEST_CASE("selective scan gives the same bits on one thread and on three", "[cpu]") {
  const int threads = thread_count();
  const ScanInputs<float> in = random_scan<float>(900, {3, 17 * kTile + 5, 150, 16});
  set_thread_count(1);
  const ScanResults<float> one = train_scan(in);
  set_thread_count(3);
  const ScanResults<float> three = train_scan(in);
  set_thread_count(threads);
  CHECK(same_bits("y", three.y, one.y));
  CHECK(same_bits("du", three.du, one.du));
  CHECK(same_bits("dA", three.dA, one.dA));
  CHECK(same_bits("dB", three.dB, one.dB));
  CHECK(same_bits("dC", three.dC, one.dC));
  CHECK(same_bits("dD", three.dD, one.dD));
  CHECK(same_bits("ddelta_bias", three.dbias, one.dbias));
  CHECK(same_bits("dinitial", three.dinitial, one.dinitial));
}

TEST_CASE("selective scan is right on every instruction set of this machine", "[cpu]") {
  const ScanInputs<float> in = random_scan<float>(950, {2, kTile + 9, 19, 5});
  const ScanResults<double> expected = train_scan(converted_scan<double>(in));
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    INFO("target " << hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    check_forward(in, 0, kFloat32);
    check_forward(random_scan<float>(960, {1, 1, 35, 18}), 0, kFloat32);
    check_results(train_scan(in), expected, kFloat32);
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST_CASE("selective scan reaches rows beyond 2^31 elements", "[cpu]") {
  constexpr int64_t kFar = (int64_t{1} << 31) + 12345;
  const ScanInputs<float> in = random_scan<float>(1000, {2, 3, 4, 2}, {.z = false, .bias = false});
  const ScanResults<float> expected = infer_scan(in);
  SparseBuffer<float> far(3 * kFar);
  SparseBuffer<float> far_y(3 * kFar);
  kernels::SelectiveScanForward<float> args;
  args.u = make_view(const_cast<const float*>(far.data()), 2, 3, 4);
  args.u.stride[0] = 17;
  args.u.stride[1] = kFar;
  for (int64_t i = 0; i < 24; ++i) {
    const_cast<float&>(args.u(i / 12, i / 4 % 3, i % 4)) = in.u[static_cast<size_t>(i)];
  }
  args.y = make_view(far_y.data(), 2, 3, 4);
  args.y.stride[0] = 17;
  args.y.stride[1] = kFar;
  args.delta = make_view(in.delta.data(), 2, 3, 4);
  args.A = make_view(in.A.data(), 4, 2);
  args.B = make_view(in.B.data(), 2, 3, 2);
  args.C = make_view(in.C.data(), 2, 3, 2);
  args.D = make_view(in.D.data(), 4);
  args.initial = make_view(in.initial.data(), 2, 4, 2);
  kernels::cpu::selective_scan_forward(args);
  CHECK(same_bits("y", elements_of(args.y), expected.y));
}

TEST_CASE("selective scan takes empty chunks and refuses wrong shapes", "[cpu]") {
  const ScanInputs<float> none = random_scan<float>(1100, {2, 0, 3, 2});
  ScanResults<float> out;
  ScanRunner<float>(none).train(out);
  CHECK(same_bits("final", out.final, none.initial));
  CHECK(same_bits("dinitial", out.dinitial, none.dfinal));

  ScanInputs<float> in = random_scan<float>(1200, {1, 2, 3, 4});
  kernels::SelectiveScanForward<float> args;
  args.y = make_view(in.dy.data(), 1, 2, 3);
  args.u = make_view(in.u.data(), 1, 2, 3);
  args.delta = make_view(in.delta.data(), 1, 2, 3);
  args.A = make_view(in.A.data(), 3, 4);
  args.B = make_view(in.B.data(), 1, 2, 4);
  args.C = make_view(in.C.data(), 1, 4, 2);
  CHECK_THROWS_WITH(kernels::cpu::selective_scan_forward(args),
                    "selective_scan: C must have shape (1, 2, 4), found (1, 4, 2)");
}

}  // namespace
}  // namespace blockstate::test
