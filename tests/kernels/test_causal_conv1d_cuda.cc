// SPDX-License-Identifier: Apache-2.0
// The causal convolution on a GPU against the CPU's, in double (which its own test holds against the formula).
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/causal_conv1d.h"
#include "tests/support/cuda_view.h"
#include "tests/support/fill.h"
#include "tests/support/naive_causal_conv1d.h"

namespace blockstate::test {
namespace {

/// How the views lie.
struct Layout {
  int64_t gap = 0;     // elements between rows
  int64_t offset = 0;  // of the first element from an aligned address
};

ConvInputs<float> random_conv(uint64_t key, int64_t B, int64_t L, int64_t D, int64_t K, bool carried) {
  ConvInputs<float> in;
  in.B = B;
  in.L = L;
  in.D = D;
  in.K = K;
  in.x = random_normal<float>(key + 1, B * L * D);
  in.weight = random_normal<float>(key + 2, D * K);
  in.bias = random_normal<float>(key + 3, D);
  in.dy = random_normal<float>(key + 4, B * L * D);
  if (carried) {
    in.initial = random_normal<float>(key + 5, B * (K - 1) * D);
    in.dfinal = random_normal<float>(key + 6, B * (K - 1) * D);
  }
  return in;
}

/// Records of `length` steps with two steps of padding after each; the first goes on from an earlier chunk.
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

/// What a kernel for T sees of the inputs, in double.
template <class T>
ConvInputs<double> seen_as(const ConvInputs<float>& in) {
  const auto seen = [](const std::vector<float>& values) { return converted<double>(rounded_to<T>(values)); };
  ConvInputs<double> out;
  out.B = in.B, out.L = in.L, out.D = in.D, out.K = in.K, out.silu = in.silu;
  out.x = seen(in.x), out.initial = seen(in.initial), out.dy = seen(in.dy), out.dfinal = seen(in.dfinal);
  out.weight = converted<double>(in.weight), out.bias = converted<double>(in.bias);
  out.position = in.position;
  return out;
}

template <class T, int R>
View<const T, R> given(const std::vector<T>& values, const int64_t (&size)[R]) {
  View<const T, R> view;
  if (!values.empty()) {
    int64_t stride = 1;
    for (int d = R - 1; d >= 0; --d) {
      view.size[d] = size[d];
      view.stride[d] = stride;
      stride *= size[d];
    }
    view.data = values.data();
  }
  return view;
}

ConvResults<double> run_on_cpu(const ConvInputs<double>& in) {
  const int64_t B = in.B, L = in.L, D = in.D, K = in.K;
  ConvResults<double> out;
  out.y.resize(in.x.size()), out.dx.resize(in.x.size()), out.dweight.resize(in.weight.size());
  out.final.resize(static_cast<size_t>(B * (K - 1) * D)), out.dinitial.resize(out.final.size());
  out.dbias.resize(in.bias.size());
  kernels::CausalConv1dForward<double> f;
  f.y = make_view(out.y.data(), B, L, D);
  f.final = make_view(out.final.data(), B, K - 1, D);
  f.x = make_view(in.x.data(), B, L, D);
  f.weight = make_view(in.weight.data(), D, K);
  f.bias = given(in.bias, {D});
  f.initial = given(in.initial, {B, K - 1, D});
  f.position = given(in.position, {B, L});
  f.silu = in.silu;
  kernels::cpu::causal_conv1d_forward(f);
  kernels::CausalConv1dBackward<double> b;
  b.dx = make_view(out.dx.data(), B, L, D);
  b.dweight = make_view(out.dweight.data(), D, K);
  b.dbias = in.bias.empty() ? View<double, 1>() : make_view(out.dbias.data(), D);
  b.dinitial = make_view(out.dinitial.data(), B, K - 1, D);
  b.dy = make_view(in.dy.data(), B, L, D);
  b.dfinal = given(in.dfinal, {B, K - 1, D});
  b.x = f.x, b.weight = f.weight, b.bias = f.bias, b.initial = f.initial, b.position = f.position, b.silu = f.silu;
  kernels::cpu::causal_conv1d_backward(b);
  return out;
}

template <class T>
ConvResults<float> run_on_gpu(const ConvInputs<float>& in, Layout layout = {}) {
  const int64_t B = in.B, L = in.L, D = in.D, K = in.K, gap = layout.gap, offset = layout.offset;
  const CudaView<T, 3> x(in.x, {B, L, D}, gap, offset), dy(in.dy, {B, L, D}, gap, offset);
  const CudaView<T, 3> y({B, L, D}, gap, offset), dx({B, L, D}, gap, offset);
  const CudaView<T, 3> initial(in.initial, {B, K - 1, D}, gap, offset), final({B, K - 1, D}, gap, offset);
  const CudaView<T, 3> dfinal(in.dfinal, {B, K - 1, D}, gap, offset), dinitial({B, K - 1, D}, gap, offset);
  const CudaView<float, 2> weight(in.weight, {D, K}, gap),
      dweight(std::vector<float>(in.weight.size(), 1), {D, K}, gap);
  const CudaArray<float> bias(in.bias), dbias(std::vector<float>(in.bias.size(), 2));
  const CudaArray<int64_t> position(in.position);
  kernels::CausalConv1dForward<T, float> f;
  f.y = y.view(), f.final = final.view(), f.x = x.cview(), f.weight = weight.cview(), f.silu = in.silu;
  kernels::CausalConv1dBackward<T, float> b;
  b.dx = dx.view(), b.dweight = dweight.view(), b.dinitial = dinitial.view(), b.dy = dy.cview();
  if (!in.bias.empty()) {
    f.bias = bias.cview(D);
    b.dbias = dbias.view(D);
  }
  if (!in.initial.empty()) {
    f.initial = initial.cview();
  }
  if (!in.dfinal.empty()) {
    b.dfinal = dfinal.cview();
  }
  if (!in.position.empty()) {
    f.position = position.cview(B, L);
  }
  b.x = f.x, b.weight = f.weight, b.bias = f.bias, b.initial = f.initial, b.position = f.position, b.silu = f.silu;
  kernels::cuda::causal_conv1d_forward<T>(gpu(), f);
  kernels::cuda::causal_conv1d_backward<T>(gpu(), b);
  ConvResults<float> out{y.host(), final.host(), dx.host(), dweight.host(), dbias.host(), dinitial.host()};
  // They are added to: 1 and 2 were there before.
  std::for_each(out.dweight.begin(), out.dweight.end(), [](float& v) { v -= 1; });
  std::for_each(out.dbias.begin(), out.dbias.end(), [](float& v) { v -= 2; });
  return out;
}

// Sums of at most 8 products of normal numbers: an absolute error of an ulp of their size.
constexpr Tolerance kConvFloat{1e-5, 4e-6};

template <class T>
void check_against_cpu(const ConvInputs<float>& in, Layout layout = {}) {
  const ConvResults<double> expected = run_on_cpu(seen_as<T>(in));
  const ConvResults<float> found = run_on_gpu<T>(in, layout);
  // Float sums over all steps, onto 1 or 2: errors are of the size of the sum of the terms' magnitudes.
  const double steps = static_cast<double>(in.B * in.L);
  const Tolerance sums{1e-5, 1e-6 + 4e-7 * (4 + 4 * std::sqrt(steps))};
  CHECK(compare("dweight", found.dweight, expected.dweight, sums));
  CHECK(compare("dbias", found.dbias, expected.dbias, sums));
  if constexpr (std::is_same_v<T, float>) {
    CHECK(compare("y", found.y, expected.y, kConvFloat));
    CHECK(compare("final", found.final, expected.final, Tolerance{0, 0}));
    CHECK(compare("dx", found.dx, expected.dx, kConvFloat));
    CHECK(compare("dinitial", found.dinitial, expected.dinitial, kConvFloat));
  } else {
    const auto once = [](const std::vector<double>& v) { return rounded_to<T>(converted<float>(v)); };
    CHECK(compare_twice_naive("y", found.y, expected.y, once(expected.y), 1e-6));
    CHECK(compare("final", found.final, expected.final, Tolerance{0, 0}));
    CHECK(compare_twice_naive("dx", found.dx, expected.dx, once(expected.dx), 1e-6));
    CHECK(compare_twice_naive("dinitial", found.dinitial, expected.dinitial, once(expected.dinitial), 1e-6));
  }
}

}  // namespace

TEMPLATE_TEST_CASE("causal conv1d on a GPU equals the CPU's on hostile shapes", "[cuda][causal_conv1d]", float,
                   BFloat16) {
  for (const int64_t L : {1, 2, 3, 5, 16, 17, 67, 523}) {
    for (const int64_t D : {1, 8, 24}) {
      for (const int64_t K : {1, 2, 3, 4, 8}) {
        const bool carried = (L + D + K) % 2 == 0;
        for (const int64_t record : {int64_t{0}, int64_t{2}, int64_t{9}}) {
          INFO("L " << L << " D " << D << " K " << K << " carried " << carried << " records of " << record);
          ConvInputs<float> in = random_conv(static_cast<uint64_t>(10 * L + D), 2, L, D, K, carried);
          in.silu = record != 2;
          if (record > 0) {
            in.position = packed_positions(2, L, record);
          }
          if (record == 9) {
            in.bias.clear();
          }
          check_against_cpu<TestType>(in);
        }
      }
    }
  }
}

TEMPLATE_TEST_CASE("causal conv1d on a GPU: wide, long, many rows, strided, unaligned", "[cuda][causal_conv1d]", float,
                   BFloat16) {
  check_against_cpu<TestType>(random_conv(1, 1, 1031, 1536, 4, true));
  check_against_cpu<TestType>(random_conv(2, 1, 20011, 16, 4, true));
  check_against_cpu<TestType>(random_conv(3, 700, 3, 32, 4, true));
  check_against_cpu<TestType>(random_conv(4, 3, 100, 64, 4, true), {64, 0});  // half of each row
  check_against_cpu<TestType>(random_conv(5, 3, 100, 64, 4, true), {1, 0});
  check_against_cpu<TestType>(random_conv(6, 3, 100, 64, 4, true), {0, 3});
  check_against_cpu<TestType>(random_conv(7, 3, 100, 64, 3, true), {8, 8});
  ConvInputs<float> packed = random_conv(8, 2, 3000, 264, 4, true);
  packed.position = packed_positions(2, 3000, 701);
  check_against_cpu<TestType>(packed);
  packed.position.assign(packed.position.size(), -1);  // rows without a step hand their state on
  std::fill_n(packed.position.begin() + 3000, 2, 0);   // and one with a single record, of two steps (positions 0, 1)
  packed.position[3001] = 1;
  check_against_cpu<TestType>(packed);
}

TEMPLATE_TEST_CASE("causal conv1d on a GPU has the same bits again, padding may hold anything", "[cuda][causal_conv1d]",
                   float, BFloat16) {
  ConvInputs<float> in = random_conv(20, 3, 1500, 72, 4, true);
  in.position = packed_positions(3, 1500, 97);
  const ConvResults<float> once = run_on_gpu<TestType>(in);
  for (size_t i = 0; i < in.x.size(); ++i) {
    if (in.position[i / 72] < 0) {
      in.x[i] = in.dy[i] = std::numeric_limits<float>::quiet_NaN();
    }
  }
  const ConvResults<float> again = run_on_gpu<TestType>(in);
  CHECK(same_bits("y", again.y, once.y));
  CHECK(same_bits("dx", again.dx, once.dx));
  CHECK(same_bits("dinitial", again.dinitial, once.dinitial));
  CHECK(same_bits("dweight", again.dweight, once.dweight));
  CHECK(same_bits("dbias", again.dbias, once.dbias));
  in.x[72 * 40] += 1;  // a step that counts: the comparison can fail
  CHECK_FALSE(same_bits("dweight", run_on_gpu<TestType>(in).dweight, once.dweight));
}

TEMPLATE_TEST_CASE("causal conv1d on a GPU in two halves equals one pass", "[cuda][causal_conv1d]", float, BFloat16) {
  const int64_t L = 301, D = 40, cut = GENERATE(1, 2, 150);
  const bool packed = GENERATE(false, true);
  ConvInputs<float> in = random_conv(30, 1, L, D, 4, true);
  if (packed) {
    in.position = packed_positions(1, L, 149);
  }
  const ConvResults<float> whole = run_on_gpu<TestType>(in);
  const auto part = [&](int64_t t0, int64_t t1) {
    ConvInputs<float> out = in;
    out.L = t1 - t0;
    out.x.assign(in.x.begin() + t0 * D, in.x.begin() + t1 * D);
    out.dy.assign(in.dy.begin() + t0 * D, in.dy.begin() + t1 * D);
    if (packed) {
      out.position.assign(in.position.begin() + t0, in.position.begin() + t1);
    }
    return out;
  };
  ConvInputs<float> left = part(0, cut), right = part(cut, L);
  right.initial = run_on_gpu<TestType>(left).final;
  const ConvResults<float> second = run_on_gpu<TestType>(right);
  left.dfinal = second.dinitial;
  const ConvResults<float> first = run_on_gpu<TestType>(left);
  const auto joined = [](std::vector<float> a, const std::vector<float>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  };
  CHECK(same_bits("y", joined(first.y, second.y), whole.y));
  CHECK(same_bits("final", second.final, whole.final));
  // The gradient of the carry is rounded to the activations' type between the halves.
  const Tolerance carried = std::is_same_v<TestType, float> ? kConvFloat : kBFloat16;
  CHECK(compare("dx", joined(first.dx, second.dx), whole.dx, carried));
  CHECK(compare("dinitial", first.dinitial, whole.dinitial, carried));
  if (!packed) {
    right.initial.assign(right.initial.size(), 0);
    CHECK_FALSE(same_bits("y", run_on_gpu<TestType>(right).y, second.y));
  }
}

TEST_CASE("causal conv1d on a GPU writes the new state over the old one", "[cuda][causal_conv1d]") {
  for (const int64_t L : {1, 2, 3, 5000}) {
    const ConvInputs<float> in = random_conv(40, 2, L, 24, 4, true);
    const ConvResults<float> apart = run_on_gpu<float>(in);
    const CudaArray<float> x(in.x), y(static_cast<int64_t>(in.x.size())), weight(in.weight), bias(in.bias),
        state(in.initial);
    kernels::CausalConv1dForward<float, float> args;
    args.y = y.view(2, L, 24);
    args.x = x.cview(2, L, 24);
    args.weight = weight.cview(24, 4);
    args.bias = bias.cview(24);
    args.initial = state.cview(2, 3, 24);
    args.final = state.view(2, 3, 24);
    kernels::cuda::causal_conv1d_forward<float>(gpu(), args);
    CHECK(same_bits("y", y.host(), apart.y));
    CHECK(same_bits("final", state.host(), apart.final));
  }
}

TEST_CASE("causal conv1d on a GPU takes empty chunks and refuses wrong shapes", "[cuda][causal_conv1d]") {
  const ConvInputs<float> none = random_conv(50, 2, 0, 8, 4, true);
  const ConvResults<float> out = run_on_gpu<float>(none);
  CHECK(same_bits("final", out.final, none.initial));
  CHECK(same_bits("dinitial", out.dinitial, none.dfinal));
  CHECK(run_on_gpu<BFloat16>(random_conv(51, 0, 5, 8, 4, false)).y.empty());
  ConvInputs<float> wide = random_conv(52, 1, 5, 8, 9, false);
  CHECK_THROWS_WITH(run_on_gpu<float>(wide), "causal_conv1d takes a kernel of 1 to 8 steps, found 9");
}

TEST_CASE("causal conv1d on a GPU reaches elements beyond 2^31", "[cuda][causal_conv1d][large]") {
  // Rows of one buffer, far apart: nothing but the views is large.
  constexpr int64_t kFar = (int64_t{1} << 30) + 16, L = 4, D = 16;
  const ConvInputs<float> in = random_conv(60, 1, L, D, 4, false);
  const ConvResults<float> near = run_on_gpu<BFloat16>(in);
  const CudaSpace<BFloat16> space(L * kFar);
  const CudaArray<BFloat16> dx(L * D), dy(stored_as<BFloat16>(in.dy));
  const CudaArray<float> weight(in.weight), bias(in.bias), dweight(std::vector<float>(in.weight.size(), 1));
  View<BFloat16, 3> far = make_view(space.data(), 1, L, D);
  far.stride[1] = kFar;
  const std::vector<BFloat16> x = stored_as<BFloat16>(in.x);
  for (int64_t t = 0; t < L; ++t) {
    space.write(t * kFar, x.data() + t * D, D);
  }
  kernels::CausalConv1dForward<BFloat16, float> f;
  f.x = far;
  f.y = far;
  f.y.data += D;  // beside its input
  f.weight = weight.cview(D, 4);
  f.bias = bias.cview(D);
  kernels::cuda::causal_conv1d_forward<BFloat16>(gpu(), f);
  std::vector<BFloat16> y(static_cast<size_t>(L * D));
  for (int64_t t = 0; t < L; ++t) {
    space.read(t * kFar + D, y.data() + t * D, D);
  }
  CHECK(same_bits("y", as_float(y), near.y));
  kernels::CausalConv1dBackward<BFloat16, float> b;
  b.dx = dx.view(1, L, D);
  b.dweight = dweight.view(D, 4);
  b.dy = dy.cview(1, L, D);
  b.x = f.x, b.weight = f.weight, b.bias = f.bias;
  kernels::cuda::causal_conv1d_backward<BFloat16>(gpu(), b);
  CHECK(same_bits("dx", as_float(dx.host()), near.dx));
}

}  // namespace blockstate::test
