// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "tests/support/attention_case.h"
#include "tests/support/compare.h"
#include "tests/support/cuda_array.h"
#include "tests/support/fill.h"

namespace blockstate::test {
namespace {

// Around the tiles of 16, 32, 64 and 128 queries and keys, widths around vectors and those of the fast kernels.
constexpr AttentionShape kShapes[] = {
    {1, 1, 1, 1, 1, 0},      {2, 63, 63, 1, 8, 0},     {1, 64, 64, 3, 17, 5},   {1, 65, 65, 2, 16, 65},
    {1, 67, 130, 3, 64, 1},  {1, 131, 131, 1, 5, 40},  {2, 3, 200, 2, 33, 7},   {1, 129, 191, 1, 1, 3},
    {1, 17, 17, 2, 2, 90},   {1, 127, 127, 2, 64, 0},  {2, 128, 128, 1, 64, 0}, {1, 129, 129, 3, 64, 0},
    {2, 300, 421, 2, 64, 0}, {1, 641, 641, 2, 64, 0},  {2, 257, 257, 2, 48, 0}, {1, 140, 301, 2, 128, 0},
    {1, 70, 70, 2, 100, 9},  {1, 150, 150, 1, 256, 0}, {1, 33, 49, 2, 199, 11}, {2, 1, 513, 2, 64, 0}};
constexpr AttentionShape kEmptyShapes[] = {
    {0, 4, 4, 2, 3, 0}, {2, 0, 4, 2, 3, 2}, {2, 4, 4, 0, 3, 0}, {1, 4, 0, 2, 3, 2}, {2, 0, 200, 2, 64, 0}};

template <class T>
AttentionCase<double> in_double(const AttentionCase<T>& from) {
  AttentionCase<double> to({0, 0, 0, 1, 1, 0}, 0);
  to.shape = from.shape;
  to.offset = from.offset;
  to.scale = static_cast<double>(from.scale);
  to.q = converted<double>(from.q);
  to.k = converted<double>(from.k);
  to.v = converted<double>(from.v);
  to.bias = converted<double>(from.bias);
  to.dy = converted<double>(from.dy);
  to.begin = from.begin;
  to.end = from.end;
  return to;
}

/// Inputs that T can hold.
template <class T>
AttentionCase<float> case_for(AttentionShape shape, uint64_t key) {
  AttentionCase<float> one(shape, key);
  for (auto* values : {&one.q, &one.k, &one.v, &one.dy}) {
    *values = rounded_to<T>(*values);
  }
  return one;
}

/// Where the heads of a (B, steps, H, P) array lie in memory: `gap` elements after each, the first `shift` from the
/// allocation's start.
struct Placement {
  int64_t gap = 0;
  int64_t shift = 0;
};

template <class T>
class PlacedArray {
 public:
  PlacedArray(int64_t B, int64_t steps, int64_t H, int64_t P, Placement place)
      : PlacedArray(B, steps, H, P, place, std::vector<float>()) {}
  PlacedArray(int64_t B, int64_t steps, int64_t H, int64_t P, Placement place, const std::vector<float>& values)
      : place_(place), width_(P), array_(spread(B * steps * H, values)) {
    view_ = make_view(array_.data() + place.shift, B, steps, H, P);
    const int64_t pitch = P + place.gap;
    view_.stride[0] = steps * H * pitch;
    view_.stride[1] = H * pitch;
    view_.stride[2] = pitch;
  }
  View<T, 4> view() const { return view_; }
  /// Row-major. Error where something outside of the view was written.
  std::vector<float> host() const {
    const std::vector<float> all = as_float(array_.host());
    std::vector<float> values;
    for (int64_t i = 0; i < static_cast<int64_t>(all.size()); ++i) {
      const int64_t at = i - place_.shift;
      if (at >= 0 && at % (width_ + place_.gap) < width_) {
        values.push_back(all[static_cast<size_t>(i)]);
      } else {
        require(std::isnan(all[static_cast<size_t>(i)]), "a kernel wrote between the rows of its array");
      }
    }
    return values;
  }

 private:
  std::vector<T> spread(int64_t rows, const std::vector<float>& values) const {
    const int64_t pitch = width_ + place_.gap;
    std::vector<float> all(static_cast<size_t>(place_.shift + rows * pitch), std::numeric_limits<float>::quiet_NaN());
    for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i) {
      all[static_cast<size_t>(place_.shift + i / width_ * pitch + i % width_)] = values[static_cast<size_t>(i)];
    }
    return stored_as<T>(all);
  }

  Placement place_;
  int64_t width_;
  CudaArray<T> array_;
  View<T, 4> view_;
};

struct Gradients {
  std::vector<float> dq, dk, dv, dbias;
};

/// y and log_sum_exp (as T and float hold them) are those of `reference`; dbias starts from `dbias_before`.
template <class T>
Gradients on_gpu(const AttentionCase<float>& one, const AttentionCase<double>& reference, Placement place = {},
                 float dbias_before = 0) {
  const auto [B, L, J, H, P, M] = one.shape;
  const PlacedArray<T> q(B, L, H, P, place, one.q), k(B, J, H, P, place, one.k), v(B, J, H, P, place, one.v);
  const PlacedArray<T> dy(B, L, H, P, place, one.dy), y(B, L, H, P, place, converted<float>(reference.y));
  const PlacedArray<T> dq(B, L, H, P, place), dk(B, J, H, P, place), dv(B, J, H, P, place);
  const CudaArray<float> log_sum_exp(converted<float>(reference.log_sum_exp)), bias(one.bias);
  const CudaArray<float> dbias(std::vector<float>(one.bias.size(), dbias_before));
  const CudaArray<int64_t> begin(one.begin), end(one.end);
  kernels::AttentionBackward<T, float> args;
  args.forward.q = q.view();
  args.forward.k = k.view();
  args.forward.v = v.view();
  args.forward.y = y.view();
  args.forward.log_sum_exp = log_sum_exp.view(B, H, L);
  args.forward.begin = begin.cview(B, L);
  args.forward.end = end.cview(B, L);
  args.forward.scale = one.scale;
  args.forward.offset = one.offset;
  args.dy = dy.view();
  args.dq = dq.view();
  args.dk = dk.view();
  args.dv = dv.view();
  if (M > 0) {
    args.forward.bias = bias.cview(H, M);
    args.dbias = dbias.view(H, M);
  }
  kernels::cuda::attention_backward(gpu(), args);
  return {dq.host(), dk.host(), dv.host(), dbias.host()};
}

double bf16(double value) { return static_cast<double>(static_cast<float>(BFloat16(static_cast<float>(value)))); }

/// The definition of the backward pass as a plain implementation in bfloat16 computes it: probabilities and the
/// gradients of the scores are rounded before the products, and so are y and the results; sums are exact. dbias alone
/// is what exact arithmetic makes of the rounded y.
Gradients naive_bfloat16(const AttentionCase<double>& one) {
  const auto [B, L, J, H, P, M] = one.shape;
  std::vector<double> dq(one.q.size()), dk(one.k.size()), dv(one.v.size()), dbias(one.bias.size());
  const auto query = [&, L = L, H = H, P = P](int64_t b, int64_t i, int64_t h) { return ((b * L + i) * H + h) * P; };
  const auto key = [&, J = J, H = H, P = P](int64_t b, int64_t j, int64_t h) { return ((b * J + j) * H + h) * P; };
  const auto dot = [P = P](const double* a, const double* b) {
    double sum = 0;
    for (int64_t p = 0; p < P; ++p) {
      sum += a[p] * b[p];
    }
    return sum;
  };
  std::vector<double> y;
  for (const double value : one.y) {
    y.push_back(bf16(value));
  }
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t h = 0; h < H; ++h) {
      for (int64_t i = 0; i < L; ++i) {
        const int64_t at = query(b, i, h);
        const double projection = dot(&one.dy[static_cast<size_t>(at)], &y[static_cast<size_t>(at)]);
        for (int64_t j = one.begin[static_cast<size_t>(b * L + i)]; j < one.end[static_cast<size_t>(b * L + i)]; ++j) {
          const int64_t from = key(b, j, h), distance = std::min(i + one.offset - j, M - 1);
          double score = one.scale * dot(&one.q[static_cast<size_t>(at)], &one.k[static_cast<size_t>(from)]);
          score += M > 0 ? one.bias[static_cast<size_t>(h * M + distance)] : 0.0;
          const double p = std::exp(score - one.log_sum_exp[static_cast<size_t>((b * H + h) * L + i)]);
          const double exact =
              p * (dot(&one.dy[static_cast<size_t>(at)], &one.v[static_cast<size_t>(from)]) - projection);
          const double slope = bf16(exact);
          for (int64_t x = 0; x < P; ++x) {
            dq[static_cast<size_t>(at + x)] += one.scale * slope * one.k[static_cast<size_t>(from + x)];
            dk[static_cast<size_t>(from + x)] += one.scale * slope * one.q[static_cast<size_t>(at + x)];
            dv[static_cast<size_t>(from + x)] += bf16(p) * one.dy[static_cast<size_t>(at + x)];
          }
          if (M > 0) {
            dbias[static_cast<size_t>(h * M + distance)] += exact;
          }
        }
      }
    }
  }
  return {rounded_to<BFloat16>(converted<float>(dq)), rounded_to<BFloat16>(converted<float>(dk)),
          rounded_to<BFloat16>(converted<float>(dv)), converted<float>(dbias)};
}

/// Errors of a weighted sum are relative to the size of what it adds, not to the sum: at least 1.
Comparison close(const std::string& name, const std::vector<float>& found, const std::vector<double>& expected,
                 double factor = 1) {
  std::vector<double> scale;
  for (const double value : expected) {
    scale.push_back(std::max(std::abs(value), 1.0));
  }
  return compare_scaled(name, found, expected, scale, {factor * kFloat32.rel, factor * kFloat32.abs});
}

void check_float(const AttentionCase<float>& one, Placement place = {}) {
  AttentionCase<double> reference = in_double(one);
  reference.forward();
  reference.backward();
  const Gradients found = on_gpu<float>(one, reference, place, 2);
  CHECK(close("dq", found.dq, reference.dq));
  CHECK(close("dk", found.dk, reference.dk));
  CHECK(close("dv", found.dv, reference.dv));
  std::vector<double> dbias = reference.dbias;
  for (double& value : dbias) {
    value += 2;  // dbias adds
  }
  CHECK(close("dbias", found.dbias, dbias, 4));  // sums over all queries of terms that nearly cancel
}

/// Where all terms cancel (a query that sees one key moves nothing) the naive error is 0, and so may be the reference:
/// what is left is the noise of float32 sums, relative to their terms.
Comparison twice_naive(const std::string& name, const std::vector<float>& found, const std::vector<double>& reference,
                       const std::vector<float>& naive) {
  const bool cancels =
      std::all_of(reference.begin(), reference.end(), [](double value) { return std::abs(value) < 1e-9; });
  return cancels ? close(name, found, reference, 4) : compare_twice_naive(name, found, reference, naive, 1e-5);
}

void check_bfloat16(const AttentionCase<float>& one, Placement place = {}) {
  AttentionCase<double> reference = in_double(one);
  reference.forward();
  reference.backward();
  const Gradients found = on_gpu<BFloat16>(one, reference, place);
  const Gradients naive = naive_bfloat16(reference);
  CHECK(twice_naive("dq", found.dq, reference.dq, naive.dq));
  CHECK(twice_naive("dk", found.dk, reference.dk, naive.dk));
  CHECK(twice_naive("dv", found.dv, reference.dv, naive.dv));
  CHECK(close("dbias", found.dbias, converted<double>(naive.dbias), 4));  // in float32 throughout
}

template <class T>
void check(const AttentionCase<float>& one, Placement place = {}) {
  if constexpr (std::is_same_v<T, float>) {
    check_float(one, place);
  } else {
    check_bfloat16(one, place);
  }
}

/// Block-state ranges: each block of `window` queries sees the `states` keys of its group, the first block none.
void see_context_states(AttentionCase<float>& one, int64_t window, int64_t states) {
  for (int64_t b = 0; b < one.shape.B; ++b) {
    for (int64_t i = 0; i < one.shape.L; ++i) {
      const size_t at = static_cast<size_t>(b * one.shape.L + i);
      const int64_t group = i / window;
      one.begin[at] = i < window ? 0 : std::min(one.shape.J, group * states);
      one.end[at] = i < window ? 0 : std::min(one.shape.J, (group + 1) * states);
    }
  }
}

}  // namespace

TEMPLATE_TEST_CASE("attention backward on CUDA equals the reference in double", "[attention][cuda]", float, BFloat16) {
  for (const AttentionShape shape : kShapes) {
    for (const int window : {0, 1, 20, 150, 1000}) {
      CAPTURE(shape.B, shape.L, shape.J, shape.H, shape.P, shape.M, window);
      AttentionCase<float> one = case_for<TestType>(shape, 51);
      if (window == 0) {
        one.see_random_ranges(52);
      } else {
        one.see_window(window);
      }
      check<TestType>(one);
    }
  }
}

TEMPLATE_TEST_CASE("attention backward on CUDA of long rows", "[attention][cuda]", float, BFloat16) {
  for (const int window : {0, 300, 512, 5000}) {
    CAPTURE(window);
    AttentionCase<float> one = case_for<TestType>({2, 1100, 1100, 2, 64, 0}, 53);
    if (window == 0) {
      one.see_random_ranges(54);
    } else {
      one.see_window(window);
    }
    check<TestType>(one);
  }
}

TEMPLATE_TEST_CASE("attention backward on CUDA: other keys than queries", "[attention][cuda]", float, BFloat16) {
  AttentionCase<float> states = case_for<TestType>({2, 700, 200, 2, 64, 0}, 55);  // cross-attention to few states
  states.offset = 0;
  see_context_states(states, 130, 30);
  check<TestType>(states);
  AttentionCase<float> all = case_for<TestType>({1, 150, 270, 2, 64, 0}, 56);  // every query sees every key
  std::fill(all.begin.begin(), all.begin.end(), 0);
  std::fill(all.end.begin(), all.end.end(), 270);
  check<TestType>(all);
  AttentionCase<float> leap = case_for<TestType>({1, 300, 1500, 1, 64, 0}, 57);  // keys between are seen by nobody
  for (int64_t i = 0; i < 300; ++i) {
    leap.begin[static_cast<size_t>(i)] = i < 150 ? 5 : 1300;
    leap.end[static_cast<size_t>(i)] = i < 150 ? 9 : 1404;
  }
  check<TestType>(leap);
}

TEMPLATE_TEST_CASE("attention backward on CUDA: packed records and padding", "[attention][cuda]", float, BFloat16) {
  for (const int64_t P : {64, 24, 7}) {
    AttentionCase<float> packed = case_for<TestType>({2, 600, 600, 2, P, 0}, 58);
    const int64_t starts[] = {0, 45, 300, 301, 540};  // the last sixty steps are padding
    for (int64_t b = 0; b < 2; ++b) {
      for (int64_t i = 0; i < 600; ++i) {
        int64_t start = 0;
        for (const int64_t one : starts) {
          start = i >= one ? one : start;
        }
        const size_t at = static_cast<size_t>(b * 600 + i);
        const bool padding = i >= 540 || (b == 1 && i >= 128 && i < 256);  // a whole tile in the middle
        packed.begin[at] = padding ? 0 : start;
        packed.end[at] = padding ? 0 : i + 1;
      }
    }
    check<TestType>(packed);
  }
}

TEMPLATE_TEST_CASE("attention backward on CUDA of nothing is exactly 0", "[attention][cuda]", float, BFloat16) {
  const auto all_zero = [](const std::vector<float>& values) {
    return std::all_of(values.begin(), values.end(), [](float x) { return x == 0; });
  };
  for (const AttentionShape shape : kEmptyShapes) {
    CAPTURE(shape.B, shape.L, shape.J, shape.H);
    AttentionCase<float> one = case_for<TestType>(shape, 59);
    AttentionCase<double> reference = in_double(one);
    reference.forward();
    const Gradients found = on_gpu<TestType>(one, reference);
    CHECK(all_zero(found.dq));
    CHECK(all_zero(found.dk));
    CHECK(all_zero(found.dv));
  }
  for (const int64_t P : {9, 64}) {
    AttentionCase<float> one = case_for<TestType>({1, 400, 400, 2, P, 0}, 60);  // one query sees something
    std::fill(one.begin.begin(), one.begin.end(), 0);
    std::fill(one.end.begin(), one.end.end(), 0);
    one.begin[350] = 120;
    one.end[350] = 140;
    AttentionCase<double> reference = in_double(one);
    reference.forward();
    const Gradients found = on_gpu<TestType>(one, reference);
    for (int64_t i = 0; i < 400; ++i) {
      for (int64_t x = i * 2 * P; x < (i + 1) * 2 * P; ++x) {
        REQUIRE((found.dq[static_cast<size_t>(x)] != 0) == (i == 350));
        REQUIRE((found.dk[static_cast<size_t>(x)] != 0) == (i >= 120 && i < 140));
        REQUIRE((found.dv[static_cast<size_t>(x)] != 0) == (i >= 120 && i < 140));
      }
    }
  }
}

TEMPLATE_TEST_CASE("attention backward on CUDA writes what it should, through strides", "[attention][cuda]", float,
                   BFloat16) {
  const Placement places[] = {{8, 0}, {64, 8}, {1, 0}, {3, 5}, {0, 1}, {128, 3}, {4, 2}};
  for (const Placement place : places) {
    CAPTURE(place.gap, place.shift);
    AttentionCase<float> one = case_for<TestType>({2, 200, 260, 2, 64, 0}, 61);
    one.see_random_ranges(62);
    check<TestType>(one, place);
    AttentionCase<float> narrow = case_for<TestType>({1, 70, 70, 3, 17, 30}, 63);
    narrow.see_random_ranges(64);
    check<TestType>(narrow, place);
  }
}

TEMPLATE_TEST_CASE("attention backward on CUDA gives the same bits again", "[attention][cuda]", float, BFloat16) {
  for (const int window : {0, 200, 5000}) {
    for (const AttentionShape shape :
         {AttentionShape{2, 1500, 1500, 5, 64, 0}, AttentionShape{2, 300, 300, 2, 20, 50}}) {
      AttentionCase<float> one = case_for<TestType>(shape, 65);
      if (window == 0) {
        one.see_random_ranges(66);
      } else {
        one.see_window(window);
      }
      AttentionCase<double> reference = in_double(one);
      reference.forward();
      const Gradients first = on_gpu<TestType>(one, reference);
      for (int again = 0; again < 3; ++again) {
        const Gradients other = on_gpu<TestType>(one, reference);
        CHECK(same_bits("dq", other.dq, first.dq));
        CHECK(same_bits("dk", other.dk, first.dk));
        CHECK(same_bits("dv", other.dv, first.dv));
        CHECK(same_bits("dbias", other.dbias, first.dbias));
      }
    }
  }
}

TEST_CASE("attention backward on CUDA names what is wrong", "[attention][cuda]") {
  const CudaArray<float> some(64);
  kernels::AttentionBackward<float, float> args;
  args.forward.q = some.view(1, 4, 1, 4);
  args.forward.k = some.view(1, 4, 1, 4);
  args.forward.v = some.view(1, 4, 1, 5);
  CHECK_THROWS_WITH(kernels::cuda::attention_backward(gpu(), args),
                    "attention: v must have shape (1, 4, 1, 4), found (1, 4, 1, 5)");
}

TEMPLATE_TEST_CASE("attention backward on CUDA beyond 2^31 elements", "[attention][cuda][large]", float, BFloat16) {
  AttentionCase<float> one = case_for<TestType>({1, 140, 140, 2, 64, 0}, 67);
  AttentionCase<double> reference = in_double(one);
  reference.forward();
  const Gradients near = on_gpu<TestType>(one, reference);
  const int64_t stride = (int64_t{1} << 24) + 8;  // of steps: 140 of them reach 2.3e9 elements
  const CudaArray<float> log_sum_exp(converted<float>(reference.log_sum_exp));
  const CudaArray<int64_t> begin(one.begin), end(one.end);
  // All tensors lie interleaved in one buffer, 128 elements each.
  TestType* const buffer = reinterpret_cast<TestType*>(
      kernels::cuda::take_memory(gpu(), 140 * stride * static_cast<int64_t>(sizeof(TestType))));
  REQUIRE(buffer != nullptr);
  const auto far = [&](int64_t slot, const std::vector<float>& values) {
    View<TestType, 4> view = make_view(buffer + slot * 128, 1, 140, 2, 64);
    view.stride[1] = stride;
    const std::vector<TestType> stored = stored_as<TestType>(values);
    for (int64_t i = 0; i < 140 && !values.empty(); ++i) {
      kernels::cuda::copy_to_device(gpu(), &view(0, i, 0, 0), stored.data() + i * 128, 128 * sizeof(TestType));
    }
    return view;
  };
  kernels::AttentionBackward<TestType, float> args;
  args.forward.q = far(0, one.q);
  args.forward.k = far(1, one.k);
  args.forward.v = far(2, one.v);
  args.forward.y = far(3, converted<float>(reference.y));
  args.forward.log_sum_exp = log_sum_exp.view(1, 2, 140);
  args.forward.begin = begin.cview(1, 140);
  args.forward.end = end.cview(1, 140);
  args.forward.scale = one.scale;
  args.dy = far(4, one.dy);
  args.dq = far(5, {});
  args.dk = far(6, {});
  args.dv = far(7, {});
  kernels::cuda::attention_backward(gpu(), args);
  const auto fetched = [&](View<TestType, 4> view) {
    std::vector<TestType> values(140 * 128);
    for (int64_t i = 0; i < 140; ++i) {
      kernels::cuda::copy_to_host(gpu(), values.data() + i * 128, &view(0, i, 0, 0), 128 * sizeof(TestType));
    }
    return as_float(values);
  };
  CHECK(same_bits("dq", fetched(args.dq), near.dq));
  CHECK(same_bits("dk", fetched(args.dk), near.dk));
  CHECK(same_bits("dv", fetched(args.dv), near.dv));
  kernels::cuda::give_memory(gpu(), reinterpret_cast<std::byte*>(buffer));
  kernels::cuda::release_memory(gpu());
}

}  // namespace blockstate::test
