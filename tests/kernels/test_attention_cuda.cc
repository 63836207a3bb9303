// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <type_traits>

#include "tests/support/attention_case.h"
#include "tests/support/compare.h"
#include "tests/support/cuda_array.h"

namespace blockstate::test {
namespace {

// Around tiles of 64 keys and of 32, 64, 128 and 192 queries; widths that the copy engine takes (multiples of 8) and
// others.
constexpr AttentionShape kShapes[] = {
    {1, 1, 1, 1, 1, 0},       {2, 63, 63, 1, 8, 0},     {1, 64, 64, 3, 17, 5},   {1, 65, 65, 2, 16, 65},
    {1, 67, 130, 3, 64, 1},   {1, 131, 131, 1, 5, 40},  {2, 3, 200, 2, 33, 7},   {1, 129, 191, 1, 1, 3},
    {1, 17, 17, 2, 2, 90},    {2, 193, 193, 2, 64, 0},  {1, 385, 400, 2, 64, 9}, {1, 300, 300, 2, 32, 0},
    {1, 257, 257, 2, 128, 0}, {1, 130, 259, 1, 96, 30}, {1, 70, 70, 2, 136, 0},  {1, 97, 101, 1, 256, 3},
    {3, 1, 333, 2, 64, 0},    {1, 5, 700, 3, 128, 0},   {2, 128, 128, 1, 48, 0}, {1, 500, 500, 1, 80, 0}};
constexpr AttentionShape kEmptyShapes[] = {
    {0, 4, 4, 2, 3, 0}, {2, 0, 4, 2, 3, 2}, {2, 4, 4, 0, 3, 0}, {1, 4, 0, 2, 3, 2}, {1, 4, 0, 2, 64, 0}};

/// How rows lie: `start` elements before the first, `gap` elements after each row of all heads.
struct Layout {
  int64_t start = 0;
  int64_t gap = 0;
};

struct Found {
  std::vector<float> y;
  std::vector<float> log_sum_exp;
};

template <class T>
std::vector<T> laid_out(const std::vector<float>& values, int64_t row, Layout layout) {
  const int64_t rows = row == 0 ? 0 : static_cast<int64_t>(values.size()) / row;
  std::vector<T> out(static_cast<size_t>(layout.start + rows * (row + layout.gap)), static_cast<T>(NAN));
  for (int64_t i = 0; i < rows * row; ++i) {
    out[static_cast<size_t>(layout.start + i / row * (row + layout.gap) + i % row)] =
        static_cast<T>(values[static_cast<size_t>(i)]);
  }
  return out;
}

template <class T>
View<T, 4> strided(T* data, int64_t B, int64_t L, int64_t H, int64_t P, Layout layout) {
  View<T, 4> view = make_view(data + layout.start, B, L, H, P);
  view.stride[1] = H * P + layout.gap;
  view.stride[0] = L * view.stride[1];
  return view;
}

template <class T>
Found run(const AttentionCase<float>& one, Layout layout = {}, bool want_sums = true) {
  const auto [B, L, J, H, P, M] = one.shape;
  const int64_t row = H * P;
  const CudaArray<T> q(laid_out<T>(one.q, row, layout)), k(laid_out<T>(one.k, row, layout)),
      v(laid_out<T>(one.v, row, layout));
  const CudaArray<T> y(layout.start + B * L * (row + layout.gap));
  const CudaArray<float> sums(B * H * L), bias(one.bias);
  const CudaArray<int64_t> begin(one.begin), end(one.end);
  kernels::AttentionForward<T, float> args;
  args.y = strided(y.data(), B, L, H, P, layout);
  if (want_sums) {
    args.log_sum_exp = sums.view(B, H, L);
  }
  args.q = strided(q.data(), B, L, H, P, layout);
  args.k = strided(k.data(), B, J, H, P, layout);
  args.v = strided(v.data(), B, J, H, P, layout);
  args.begin = begin.cview(B, L);
  args.end = end.cview(B, L);
  if (M > 0) {
    args.bias = bias.cview(H, M);
  }
  args.scale = one.scale;
  args.offset = one.offset;
  kernels::cuda::attention_forward(gpu(), args);
  kernels::cuda::synchronize(gpu());
  Found found;
  const std::vector<float> rows = as_float(y.host());
  for (int64_t i = 0; i < B * L * (row + layout.gap) + layout.start; ++i) {
    const int64_t at = i - layout.start;
    if (at >= 0 && at % (row + layout.gap) < row) {
      found.y.push_back(rows[static_cast<size_t>(i)]);
    } else if (!std::isnan(rows[static_cast<size_t>(i)])) {
      fail("attention wrote between the rows of y");
    }
  }
  found.log_sum_exp = sums.host();
  return found;
}

void round_inputs(AttentionCase<float>* one) {
  one->q = rounded_to<BFloat16>(one->q);
  one->k = rounded_to<BFloat16>(one->k);
  one->v = rounded_to<BFloat16>(one->v);
}

/// A plain implementation in bfloat16: scores, weights and y each rounded when stored, sums in float.
std::vector<float> naive_bfloat16(const AttentionCase<float>& one) {
  const auto [B, L, J, H, P, M] = one.shape;
  const auto rounded = [](double x) { return static_cast<float>(BFloat16(static_cast<float>(x))); };
  std::vector<float> y(one.q.size(), 0);
  for (int64_t row = 0; row < B * L * H; ++row) {
    const int64_t b = row / (L * H), i = row / H % L, h = row % H;
    const int64_t first = one.begin[static_cast<size_t>(b * L + i)], last = one.end[static_cast<size_t>(b * L + i)];
    std::vector<float> score;
    float high = -INFINITY;
    double sum = 0;
    for (int64_t j = first; j < last; ++j) {
      double dot = 0;
      for (int64_t p = 0; p < P; ++p) {
        dot += static_cast<double>(one.q[static_cast<size_t>(row * P + p)]) *
               static_cast<double>(one.k[static_cast<size_t>(((b * J + j) * H + h) * P + p)]);
      }
      score.push_back(rounded(rounded(dot) * one.scale));
      if (M > 0) {
        score.back() =
            rounded(score.back() + one.bias[static_cast<size_t>(h * M + std::min(i + one.offset - j, M - 1))]);
      }
      high = std::max(high, score.back());
    }
    for (float& s : score) {
      s = std::exp(s - high);
      sum += static_cast<double>(s);
    }
    for (int64_t p = 0; p < P && first < last; ++p) {
      double total = 0;
      for (int64_t j = first; j < last; ++j) {
        total += static_cast<double>(rounded(static_cast<double>(score[static_cast<size_t>(j - first)]) / sum)) *
                 static_cast<double>(one.v[static_cast<size_t>(((b * J + j) * H + h) * P + p)]);
      }
      y[static_cast<size_t>(row * P + p)] = rounded(total);
    }
  }
  return y;
}

/// Errors of a weighted mean are relative to the size of what it averages, not to the mean: floor for the comparison.
Comparison close(const std::string& name, const std::vector<float>& found, const std::vector<double>& expected,
                 double factor = 1) {
  std::vector<double> magnitude;
  for (const double value : expected) {
    magnitude.push_back(std::max(std::abs(value), 1.0));
  }
  return compare_scaled(name, found, expected, magnitude, {kFloat32.rel * factor, kFloat32.abs * factor});
}

template <class T>
void check_definition(AttentionCase<float> one, Layout layout = {}) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    round_inputs(&one);
  }
  const NaiveAttention naive = one.naive();
  const Found found = run<T>(one, layout);
  CHECK(close("log_sum_exp", found.log_sum_exp, naive.log_sum_exp));
  if constexpr (std::is_same_v<T, BFloat16>) {
    CHECK(compare_twice_naive("y", found.y, naive.y, naive_bfloat16(one), kFloat32.rel));
  } else {
    CHECK(close("y", found.y, naive.y));
  }
}

}  // namespace

TEMPLATE_TEST_CASE("attention on a GPU equals its definition", "[attention]", float, BFloat16) {
  for (const AttentionShape shape : kShapes) {
    for (const int window : {0, 1, 20, 64, 200, 1000}) {
      CAPTURE(shape.B, shape.L, shape.J, shape.H, shape.P, shape.M, window);
      AttentionCase<float> one(shape, 31);
      if (window == 0) {
        one.see_random_ranges(32);
      } else {
        one.see_window(window);
      }
      check_definition<TestType>(one);
    }
  }
}

TEMPLATE_TEST_CASE("attention on a GPU reads and writes through strides", "[attention]", float, BFloat16) {
  for (const AttentionShape shape : kShapes) {
    for (const Layout layout : {Layout{0, 2 * shape.H * shape.P}, Layout{8, 16}, Layout{1, 0}, Layout{0, 3}}) {
      CAPTURE(shape.B, shape.L, shape.J, shape.H, shape.P, shape.M, layout.start, layout.gap);
      AttentionCase<float> one(shape, 41);
      one.see_random_ranges(42);
      check_definition<TestType>(one, layout);
    }
  }
}

TEMPLATE_TEST_CASE("attention on a GPU walks many tiles", "[attention]", float, BFloat16) {
  AttentionCase<float> causal({4, 600, 600, 9, 64, 0}, 51);  // more tiles than a GPU runs at once
  check_definition<TestType>(causal);
  causal.see_window(130);
  check_definition<TestType>(causal);
  AttentionCase<float> wide({2, 700, 900, 3, 128, 0}, 52);
  check_definition<TestType>(wide);
}

TEMPLATE_TEST_CASE("attention on a GPU of nothing is exactly 0", "[attention]", float, BFloat16) {
  for (const AttentionShape shape : kEmptyShapes) {
    CAPTURE(shape.B, shape.L, shape.J, shape.H, shape.P);
    const AttentionCase<float> one(shape, 33);
    const Found found = run<TestType>(one);
    CHECK(same_bits("y", found.y, std::vector<float>(one.q.size(), 0)));
    CHECK(std::all_of(found.log_sum_exp.begin(), found.log_sum_exp.end(), [](float x) { return x == -INFINITY; }));
  }
  for (const int64_t P : {9, 64}) {
    AttentionCase<float> one({1, 70, 70, 2, P, 3}, 34);  // one query sees something, the others nothing
    std::fill(one.begin.begin(), one.begin.end(), 0);
    std::fill(one.end.begin(), one.end.end(), 0);
    one.begin[50] = 20;
    one.end[50] = 40;
    for (int64_t j = 0; j < 70; ++j) {  // keys that nobody sees may hold anything
      for (int64_t x = 0; x < 2 * P && (j < 20 || j >= 40); ++x) {
        one.k[static_cast<size_t>(j * 2 * P + x)] = one.v[static_cast<size_t>(j * 2 * P + x)] = NAN;
      }
    }
    for (const int64_t M : {int64_t{0}, int64_t{3}}) {
      one.shape.M = M;
      const Found found = run<TestType>(one);
      for (int64_t i = 0; i < 70; ++i) {
        for (int64_t x = 0; x < 2 * P; ++x) {
          const float y = found.y[static_cast<size_t>(i * 2 * P + x)];
          REQUIRE_FALSE(std::isnan(y));
          REQUIRE((y != 0) == (i == 50));
        }
        REQUIRE((found.log_sum_exp[static_cast<size_t>(i)] == -INFINITY) == (i != 50));
      }
    }
  }
}

TEMPLATE_TEST_CASE("attention on a GPU survives large scores", "[attention]", float, BFloat16) {
  for (const int64_t P : {4, 64}) {
    AttentionCase<float> one({1, 280, 280, 1, P, 0}, 35);
    for (float& x : one.q) {
      x *= 300;  // exp of a score overflows without the maximum; most of the weight lies on one key
    }
    round_inputs(&one);
    const Found found = run<TestType>(one);
    const NaiveAttention naive = one.naive();
    // A score of 1e3 carries an absolute error of about 1e3 * 6e-8 * 2, and so does its weight, relatively.
    if (std::is_same_v<TestType, float>) {
      CHECK(close("y", found.y, naive.y, 30));
    } else {
      CHECK(compare_twice_naive("y", found.y, naive.y, naive_bfloat16(one), 30 * kFloat32.rel));
    }
    CHECK(close("log_sum_exp", found.log_sum_exp, naive.log_sum_exp));
  }
}

TEMPLATE_TEST_CASE("attention on a GPU gives the same bits again, with or without log_sum_exp", "[attention]", float,
                   BFloat16) {
  for (const int64_t P : {64, 20}) {
    AttentionCase<float> one({3, 400, 400, 4, P, 0}, 46);
    one.see_random_ranges(47);
    const Found first = run<TestType>(one), second = run<TestType>(one), third = run<TestType>(one, {}, false);
    CHECK(same_bits("y", second.y, first.y));
    CHECK(same_bits("log_sum_exp", second.log_sum_exp, first.log_sum_exp));
    CHECK(same_bits("y", third.y, first.y));
    CHECK(std::isnan(third.log_sum_exp[0]));
    one.k[5] += 1;
    CHECK_FALSE(same_bits("y", run<TestType>(one).y, first.y));
  }
}

TEMPLATE_TEST_CASE("attention on a GPU in chunks with carried keys equals one pass", "[attention][law]", float,
                   BFloat16) {
  const int64_t window = 100, cuts[] = {0, 190, 191, 400};
  AttentionCase<float> whole({2, 400, 400, 2, 64, 12}, 43);
  whole.see_window(window);
  round_inputs(&whole);
  const Found expected = run<TestType>(whole);
  for (int c = 0; c < 3; ++c) {
    const int64_t oldest = std::max<int64_t>(0, cuts[c] - window + 1), row = 2 * 64;
    AttentionCase<float> one = whole.chunk(cuts[c], cuts[c + 1], oldest);
    const Found found = run<TestType>(one);
    std::vector<double> part;
    for (int64_t b = 0; b < 2; ++b) {
      part.insert(part.end(), expected.y.begin() + (b * 400 + cuts[c]) * row,
                  expected.y.begin() + (b * 400 + cuts[c + 1]) * row);
    }
    // Tiles fall elsewhere, and so do the roundings of weights and y to bfloat16.
    const double factor = std::is_same_v<TestType, float> ? 1 : 1000;
    CHECK(close("y", found.y, part, factor));
    if (one.offset > 0) {
      std::fill_n(one.v.begin(), one.offset * row, 0.0f);
      CHECK_FALSE(close("y", run<TestType>(one).y, part, factor));
    }
  }
}

TEMPLATE_TEST_CASE("attention on a GPU is causal where its ranges are", "[attention]", float, BFloat16) {
  AttentionCase<float> one({1, 290, 290, 1, 64, 0}, 47);
  one.see_window(125);
  const Found before = run<TestType>(one);
  for (const int64_t j : {0, 40, 64, 127, 191, 289}) {
    AttentionCase<float> other = one;
    for (int64_t p = 0; p < 64; ++p) {
      other.k[static_cast<size_t>(j * 64 + p)] += 5;
      other.v[static_cast<size_t>(j * 64 + p)] += 5;
    }
    const Found after = run<TestType>(other);
    for (int64_t i = 0; i < 290; ++i) {
      const bool changed =
          !std::equal(after.y.begin() + i * 64, after.y.begin() + (i + 1) * 64, before.y.begin() + i * 64);
      REQUIRE(changed == (i >= j && i < j + 125));
    }
  }
}

TEMPLATE_TEST_CASE("attention on a GPU reads and writes beyond 2^31 elements", "[attention][large]", float, BFloat16) {
  AttentionCase<float> one({1, 70, 70, 2, 64, 0}, 48);
  round_inputs(&one);
  const Found expected = run<TestType>(one);
  const int64_t stride = (int64_t{1} << 25) + 8, row = 128;  // of steps: 70 of them reach 2.3e9 elements
  const auto exec = gpu();
  const int64_t bytes = 70 * stride * static_cast<int64_t>(sizeof(TestType));
  std::byte* const memory = kernels::cuda::take_memory(exec, bytes);
  if (memory == nullptr) {
    WARN("the GPU has no " << bytes << " bytes free: not checked");
    return;
  }
  auto* const data = reinterpret_cast<TestType*>(memory);
  const CudaArray<int64_t> begin(one.begin), end(one.end);
  kernels::AttentionForward<TestType, float> args;
  const auto far = [&](int64_t start) {
    View<TestType, 4> view = make_view(data + start, 1, 70, 2, 64);
    view.stride[1] = stride;
    return view;
  };
  args.q = far(0);
  args.k = far(row);
  args.v = far(2 * row);
  args.y = far(3 * row);
  args.begin = begin.cview(1, 70);
  args.end = end.cview(1, 70);
  args.scale = one.scale;
  const std::vector<float>* const inputs[] = {&one.q, &one.k, &one.v};
  for (int x = 0; x < 3; ++x) {
    const std::vector<TestType> values = stored_as<TestType>(*inputs[x]);
    for (int64_t i = 0; i < 70; ++i) {
      kernels::cuda::copy_to_device(exec, data + i * stride + x * row, values.data() + i * row,
                                    row * static_cast<int64_t>(sizeof(TestType)));
    }
  }
  kernels::cuda::attention_forward(exec, args);
  std::vector<TestType> y(70 * 128);
  for (int64_t i = 0; i < 70; ++i) {
    kernels::cuda::copy_to_host(exec, y.data() + i * row, data + i * stride + 3 * row,
                                row * static_cast<int64_t>(sizeof(TestType)));
  }
  kernels::cuda::give_memory(exec, memory);
  CHECK(same_bits("y", as_float(y), expected.y));
}

TEST_CASE("attention on a GPU names what does not fit", "[attention]") {
  const CudaArray<float> x(64);
  kernels::AttentionForward<float, float> args;
  args.q = args.k = args.v = x.cview(1, 2, 1, 8);
  args.y = x.view(1, 2, 1, 8);
  args.k = x.cview(1, 2, 1, 4);
  CHECK_THROWS_WITH(kernels::cuda::attention_forward(gpu(), args), Catch::Contains("attention: k must have shape"));
}

}  // namespace blockstate::test
