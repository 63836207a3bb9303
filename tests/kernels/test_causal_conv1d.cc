// SPDX-License-Identifier: Apache-2.0
// The causal convolution against its naive reference and numeric gradients, with the identities of its header.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "core/base/parallel.h"
#include "kernels/causal_conv1d.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradcheck.h"
#include "tests/support/guard_buffer.h"
#include "tests/support/naive_causal_conv1d.h"
#include "tests/support/sparse_buffer.h"

namespace blockstate::test {
namespace {

template <class T>
ConvInputs<T> random_conv(uint64_t key, int64_t B, int64_t L, int64_t D, int64_t K, bool carried = true) {
  ConvInputs<T> in;
  in.B = B;
  in.L = L;
  in.D = D;
  in.K = K;
  in.x = random_normal<T>(key + 1, B * L * D);
  in.weight = random_normal<T>(key + 2, D * K);
  in.bias = random_normal<T>(key + 3, D);
  in.dy = random_normal<T>(key + 4, B * L * D);
  if (carried) {
    in.initial = random_normal<T>(key + 5, B * (K - 1) * D);
    in.dfinal = random_normal<T>(key + 6, B * (K - 1) * D);
  }
  return in;
}

ConvInputs<double> in_double(const ConvInputs<float>& in) {
  ConvInputs<double> out;
  out.B = in.B;
  out.L = in.L;
  out.D = in.D;
  out.K = in.K;
  out.silu = in.silu;
  out.x = converted<double>(in.x);
  out.weight = converted<double>(in.weight);
  out.bias = converted<double>(in.bias);
  out.initial = converted<double>(in.initial);
  out.dy = converted<double>(in.dy);
  out.dfinal = converted<double>(in.dfinal);
  out.position = in.position;
  return out;
}

template <class T, int R>
View<const T, R> given(GuardBuffer<T, R>& buffer, const std::vector<T>& values) {
  if (values.empty()) {
    return {};
  }
  buffer.assign(values);
  return buffer.cview();
}

// Runs both directions on guarded buffers with `gap` poisoned elements after every row.
template <class T>
ConvResults<T> run_conv(const ConvInputs<T>& in, int64_t gap = 0) {
  GuardBuffer<T, 3> x({in.B, in.L, in.D}, gap), y({in.B, in.L, in.D}, gap), dx({in.B, in.L, in.D}, gap);
  GuardBuffer<T, 3> dy({in.B, in.L, in.D}, gap);
  GuardBuffer<T, 3> initial({in.B, in.K - 1, in.D}, gap), final({in.B, in.K - 1, in.D}, gap);
  GuardBuffer<T, 3> dinitial({in.B, in.K - 1, in.D}, gap), dfinal({in.B, in.K - 1, in.D}, gap);
  GuardBuffer<T, 2> weight({in.D, in.K}, gap), dweight({in.D, in.K}, gap);
  GuardBuffer<T, 1> bias({in.D}), dbias({in.D});
  kernels::CausalConv1dForward<T> forward;
  x.assign(in.x);
  weight.assign(in.weight);
  forward.y = y.view();
  forward.final = final.view();
  forward.x = x.cview();
  forward.weight = weight.cview();
  forward.bias = given(bias, in.bias);
  forward.initial = given(initial, in.initial);
  forward.silu = in.silu;
  if (!in.position.empty()) {
    forward.position = make_view(in.position.data(), in.B, in.L);
  }
  kernels::cpu::causal_conv1d_forward(forward);
  REQUIRE(y.fully_written("y"));
  REQUIRE(final.fully_written("final"));
  kernels::CausalConv1dBackward<T> args;
  args.dx = dx.view();
  args.dweight = dweight.view();
  args.dinitial = dinitial.view();
  dy.assign(in.dy);
  args.dy = dy.cview();
  args.dfinal = given(dfinal, in.dfinal);
  args.x = forward.x;
  args.weight = forward.weight;
  args.bias = forward.bias;
  args.initial = forward.initial;
  args.position = forward.position;
  args.silu = in.silu;
  dweight.assign(std::vector<T>(in.weight.size(), T{0}));
  if (!in.bias.empty()) {
    dbias.assign(std::vector<T>(in.bias.size(), T{0}));
    args.dbias = dbias.view();
  }
  kernels::cpu::causal_conv1d_backward(args);
  REQUIRE(dx.fully_written("dx"));
  REQUIRE(dweight.fully_written("dweight"));
  REQUIRE(dinitial.fully_written("dinitial"));
  return {y.elements(),
          final.elements(),
          dx.elements(),
          dweight.elements(),
          in.bias.empty() ? std::vector<T>() : dbias.elements(),
          dinitial.elements()};
}

double objective(const ConvInputs<double>& in) {
  const ConvResults<double> out = naive_causal_conv1d(in);
  double sum = 0;
  for (size_t i = 0; i < out.y.size(); ++i) {
    sum += out.y[i] * in.dy[i];
  }
  for (size_t i = 0; i < in.dfinal.size(); ++i) {
    sum += out.final[i] * in.dfinal[i];
  }
  return sum;
}

void check_gradients(ConvInputs<double> in) {
  const ConvResults<double> found = run_conv(in, 3);
  std::vector<GradientInput> inputs{{"x", &in.x, &found.dx}, {"weight", &in.weight, &found.dweight}};
  if (!in.bias.empty()) {
    inputs.push_back({"bias", &in.bias, &found.dbias});
  }
  if (!in.initial.empty()) {
    inputs.push_back({"initial", &in.initial, &found.dinitial});
  }
  CHECK(gradcheck(inputs, [&in] { return objective(in); }));
}

// Records of `length` steps, one or more in a row of the batch, and two steps of padding after each; the first goes on
// from an earlier chunk.
std::vector<int64_t> packed_positions(int64_t B, int64_t L, int64_t length) {
  std::vector<int64_t> position;
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t t = 0; t < L; ++t) {
      const int64_t phase = (t + b + 1) % (length + 2);
      position.push_back(phase < length ? phase : -1);
    }
  }
  return position;
}

// Sums of at most 8 products of normal numbers: an absolute error of an ulp of their size.
constexpr Tolerance kConvFloat{1e-5, 4e-6};

TEST_CASE("causal conv1d forward equals the naive loop", "[cpu]") {
  const int64_t L = GENERATE(1, 2, 3, 31, 32, 33, 257, 523);
  const int64_t D = GENERATE(1, 7, 16, 17, 40);
  const int64_t K = GENERATE(1, 2, 3, 4, 8);
  INFO("L " << L << " D " << D << " K " << K);
  for (const bool carried : {false, true}) {
    for (const int64_t record : {int64_t{0}, int64_t{2}, int64_t{9}}) {
      ConvInputs<float> in = random_conv<float>(10, 2, L, D, K, carried);
      in.silu = record != 2;
      if (record > 0) {
        in.position = packed_positions(2, L, record);
      }
      const ConvResults<double> expected = naive_causal_conv1d(in_double(in));
      const ConvResults<float> found = run_conv(in, L % 3);
      CHECK(compare("y", found.y, expected.y, kConvFloat));
      CHECK(compare("final", found.final, expected.final, Tolerance{0, 0}));
    }
  }
}

TEST_CASE("causal conv1d backward equals numeric gradients", "[cpu]") {
  const int64_t L = GENERATE(1, 2, 3, 5, 11);
  const int64_t K = GENERATE(1, 2, 4, 8);
  INFO("L " << L << " K " << K);
  for (const bool carried : {false, true}) {
    for (const int64_t record : {int64_t{0}, int64_t{1}, int64_t{2}, int64_t{4}, int64_t{30}}) {
      INFO("records of " << record);
      ConvInputs<double> in = random_conv<double>(20, 2, L, 3, K, carried);
      in.silu = record != 4;
      if (record > 0) {
        in.position = packed_positions(2, L, record);
      }
      if (record == 1) {
        in.bias.clear();
      }
      check_gradients(in);
    }
  }
}

TEST_CASE("causal conv1d backward over several blocks of time", "[cpu]") {
  // Tiles of 32 and blocks of 256 steps meet at 256 and 512: numeric gradients there, and all of float against double.
  check_gradients(random_conv<double>(30, 1, 515, 1, 4));
  const ConvInputs<float> in = random_conv<float>(31, 3, 600, 35, 4);
  const ConvResults<float> found = run_conv(in, 1);
  const ConvResults<double> expected = run_conv(in_double(in));
  CHECK(compare("y", found.y, expected.y, kConvFloat));
  CHECK(compare("dx", found.dx, expected.dx, kConvFloat));
  CHECK(compare("dinitial", found.dinitial, expected.dinitial, kConvFloat));
  // 1800 signed terms of size 1: rounding of about sqrt(1800) * 6e-8 * their sum's size.
  CHECK(compare("dweight", found.dweight, expected.dweight, Tolerance{1e-5, 1e-4}));
  CHECK(compare("dbias", found.dbias, expected.dbias, Tolerance{1e-5, 1e-4}));
}

ConvInputs<double> slice_conv(const ConvInputs<double>& in, int64_t t0, int64_t t1) {
  ConvInputs<double> out = in;
  out.L = t1 - t0;
  out.x.clear();
  out.dy.clear();
  out.position.clear();
  for (int64_t b = 0; b < in.B; ++b) {
    const int64_t first = (b * in.L + t0) * in.D, last = (b * in.L + t1) * in.D;
    out.x.insert(out.x.end(), in.x.begin() + first, in.x.begin() + last);
    out.dy.insert(out.dy.end(), in.dy.begin() + first, in.dy.begin() + last);
    if (!in.position.empty()) {
      out.position.insert(out.position.end(), in.position.begin() + b * in.L + t0, in.position.begin() + b * in.L + t1);
    }
  }
  return out;
}

enum class Carry { kRight, kZeroed, kNoGradient };

// Chunks of one row, forward with carry and backward in reverse.
ConvResults<double> run_in_chunks(const ConvInputs<double>& in, int64_t steps, Carry carry) {
  std::vector<ConvInputs<double>> chunks;
  ConvResults<double> all;
  all.final = in.initial;
  for (int64_t t0 = 0; t0 < in.L; t0 += steps) {
    chunks.push_back(slice_conv(in, t0, std::min(in.L, t0 + steps)));
    chunks.back().initial = all.final;
    if (carry == Carry::kZeroed && t0 > 0) {
      std::fill(chunks.back().initial.begin(), chunks.back().initial.end(), 0.0);
    }
    const ConvResults<double> part = run_conv(chunks.back());
    all.y.insert(all.y.end(), part.y.begin(), part.y.end());
    all.final = part.final;
  }
  all.dinitial = in.dfinal;
  all.dweight.assign(in.weight.size(), 0);
  all.dbias.assign(in.bias.size(), 0);
  for (size_t i = chunks.size(); i-- > 0;) {
    chunks[i].dfinal = all.dinitial;
    if (carry == Carry::kNoGradient && i + 1 < chunks.size()) {
      chunks[i].dfinal.clear();
    }
    const ConvResults<double> part = run_conv(chunks[i]);
    all.dx.insert(all.dx.begin(), part.dx.begin(), part.dx.end());
    all.dinitial = part.dinitial;
    for (size_t k = 0; k < part.dweight.size(); ++k) {
      all.dweight[k] += part.dweight[k];
    }
    for (size_t k = 0; k < part.dbias.size(); ++k) {
      all.dbias[k] += part.dbias[k];
    }
  }
  return all;
}

TEST_CASE("causal conv1d in chunks with carry equals one pass", "[cpu]") {
  const int64_t steps = GENERATE(1, 2, 3, 5, 13, 256);
  const bool packed = GENERATE(false, true);
  ConvInputs<double> in = random_conv<double>(40, 1, 300, 5, 4);
  if (packed) {
    in.position = packed_positions(1, 300, 7);
  }
  INFO("chunks of " << steps << " packed " << packed);
  const ConvResults<double> whole = run_conv(in);
  const ConvResults<double> chunks = run_in_chunks(in, steps, Carry::kRight);
  CHECK(compare("y", chunks.y, whole.y, kFloat64));
  CHECK(compare("final", chunks.final, whole.final, kFloat64));
  CHECK(compare("dx", chunks.dx, whole.dx, kFloat64));
  CHECK(compare("dweight", chunks.dweight, whole.dweight, kFloat64));
  CHECK(compare("dbias", chunks.dbias, whole.dbias, kFloat64));
  CHECK(compare("dinitial", chunks.dinitial, whole.dinitial, kFloat64));
  if (!packed) {
    const Tolerance wide{10 * kFloat64.rel, 10 * kFloat64.abs};
    CHECK_FALSE(compare("y", run_in_chunks(in, steps, Carry::kZeroed).y, whole.y, wide));
    CHECK_FALSE(compare("dx", run_in_chunks(in, steps, Carry::kNoGradient).dx, whole.dx, wide));
    ConvInputs<double> shifted = in;
    std::rotate(shifted.initial.begin(), shifted.initial.begin() + 5, shifted.initial.end());
    CHECK_FALSE(compare("y", run_conv(shifted).y, whole.y, wide));
  }
}

TEST_CASE("causal conv1d: shifting the input shifts the output", "[cpu]") {
  const ConvInputs<double> in = random_conv<double>(50, 1, 40, 6, 4, false);
  ConvInputs<double> shifted = in;
  std::fill(shifted.x.begin(), shifted.x.begin() + 3 * 6, 0.0);
  std::copy(in.x.begin(), in.x.end() - 3 * 6, shifted.x.begin() + 3 * 6);
  const ConvResults<double> before = run_conv(in);
  const ConvResults<double> after = run_conv(shifted);
  CHECK(same_bits("y", std::vector<double>(after.y.begin() + 18, after.y.end()),
                  std::vector<double>(before.y.begin(), before.y.end() - 18)));
}

TEST_CASE("causal conv1d output at a step ignores later steps, and padding may hold anything", "[cpu]") {
  ConvInputs<float> in = random_conv<float>(60, 1, 30, 17, 4);
  const ConvResults<float> before = run_conv(in);
  in.x[12 * 17 + 5] += 1;
  const ConvResults<float> after = run_conv(in);
  for (size_t i = 0; i < before.y.size(); ++i) {
    const size_t t = i / 17;
    const bool reached = i % 17 == 5 && t >= 12 && t < 16;
    CHECK((before.y[i] != after.y[i]) == reached);
  }
  in.position = packed_positions(1, 30, 9);
  const ConvResults<float> clean = run_conv(in);
  for (size_t t = 0; t < 30; ++t) {
    if (in.position[t] < 0) {
      std::fill_n(in.x.begin() + static_cast<int64_t>(t) * 17, 17, std::numeric_limits<float>::quiet_NaN());
      std::fill_n(in.dy.begin() + static_cast<int64_t>(t) * 17, 17, std::numeric_limits<float>::quiet_NaN());
    }
  }
  const ConvResults<float> poisoned = run_conv(in);
  CHECK(same_bits("y", poisoned.y, clean.y));
  CHECK(same_bits("dx", poisoned.dx, clean.dx));
  CHECK(same_bits("dweight", poisoned.dweight, clean.dweight));
}

TEST_CASE("causal conv1d hands the state of a row without a valid step on", "[cpu]") {
  ConvInputs<double> in = random_conv<double>(70, 2, 3, 5, 4);
  in.position.assign(6, -1);
  const ConvResults<double> out = run_conv(in);
  CHECK(same_bits("final", out.final, in.initial));
  CHECK(same_bits("dinitial", out.dinitial, in.dfinal));
  const ConvInputs<double> none = random_conv<double>(71, 2, 0, 5, 4);
  CHECK(same_bits("final", run_conv(none).final, none.initial));
  CHECK(same_bits("dinitial", run_conv(none).dinitial, none.dfinal));
}

TEST_CASE("causal conv1d writes the new state over the old one", "[cpu]") {
  ConvInputs<float> in = random_conv<float>(80, 2, 1, 19, 4);
  const ConvResults<float> apart = run_conv(in);
  std::vector<float> y(in.x.size());
  kernels::CausalConv1dForward<float> args;
  args.y = make_view(y.data(), 2, 1, 19);
  args.x = make_view(in.x.data(), 2, 1, 19);
  args.weight = make_view(in.weight.data(), 19, 4);
  args.bias = make_view(in.bias.data(), 19);
  args.initial = make_view(in.initial.data(), 2, 3, 19);
  args.final = make_view(in.initial.data(), 2, 3, 19);
  kernels::cpu::causal_conv1d_forward(args);
  CHECK(same_bits("y", y, apart.y));
  CHECK(same_bits("final", in.initial, apart.final));
}

TEST_CASE("causal conv1d gives the same bits on one thread and on three", "[cpu]") {
  const int threads = thread_count();
  const ConvInputs<float> in = random_conv<float>(90, 3, 1000, 70, 4);
  set_thread_count(1);
  const ConvResults<float> one = run_conv(in);
  set_thread_count(3);
  const ConvResults<float> three = run_conv(in);
  set_thread_count(threads);
  CHECK(same_bits("y", three.y, one.y));
  CHECK(same_bits("dx", three.dx, one.dx));
  CHECK(same_bits("dweight", three.dweight, one.dweight));
  CHECK(same_bits("dbias", three.dbias, one.dbias));
}

TEST_CASE("causal conv1d adds to the gradients of the weights", "[cpu]") {
  const ConvInputs<double> in = random_conv<double>(100, 1, 9, 3, 4);
  const ConvResults<double> once = run_conv(in);
  std::vector<double> dx(in.x.size()), dweight(in.weight.size(), 1), dbias(in.bias.size(), 2);
  kernels::CausalConv1dBackward<double> args;
  args.dx = make_view(dx.data(), 1, 9, 3);
  args.dweight = make_view(dweight.data(), 3, 4);
  args.dbias = make_view(dbias.data(), 3);
  args.dy = make_view(in.dy.data(), 1, 9, 3);
  args.x = make_view(in.x.data(), 1, 9, 3);
  args.weight = make_view(in.weight.data(), 3, 4);
  args.bias = make_view(in.bias.data(), 3);
  args.initial = make_view(in.initial.data(), 1, 3, 3);
  kernels::cpu::causal_conv1d_backward(args);
  for (size_t i = 0; i < dweight.size(); ++i) {
    CHECK(dweight[i] == Approx(once.dweight[i] + 1).epsilon(1e-12));
  }
  for (size_t i = 0; i < dbias.size(); ++i) {
    CHECK(dbias[i] == Approx(once.dbias[i] + 2).epsilon(1e-12));
  }
}

TEST_CASE("causal conv1d reaches rows beyond 2^31 elements and refuses wrong shapes", "[cpu]") {
  constexpr int64_t kFar = (int64_t{1} << 31) + 999;
  const ConvInputs<float> in = random_conv<float>(110, 1, 3, 5, 4, false);
  SparseBuffer<float> far_x(3 * kFar), far_y(3 * kFar);
  kernels::CausalConv1dForward<float> args;
  args.y = make_view(far_y.data(), 1, 3, 5);
  args.y.stride[1] = kFar;
  for (int64_t i = 0; i < 15; ++i) {
    far_x.data()[i / 5 * kFar + i % 5] = in.x[static_cast<size_t>(i)];
  }
  args.x = make_view(const_cast<const float*>(far_x.data()), 1, 3, 5);
  args.x.stride[1] = kFar;
  args.weight = make_view(in.weight.data(), 5, 4);
  args.bias = make_view(in.bias.data(), 5);
  kernels::cpu::causal_conv1d_forward(args);
  CHECK(same_bits("y", elements_of(args.y), run_conv(in).y));
  args.weight = make_view(in.weight.data(), 2, 10);
  CHECK_THROWS_WITH(kernels::cpu::causal_conv1d_forward(args),
                    "causal_conv1d takes a kernel of 1 to 8 steps, found 10");
}

}  // namespace
}  // namespace blockstate::test
