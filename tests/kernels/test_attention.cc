// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>

#include "core/base/parallel.h"
#include "tests/support/attention_case.h"
#include "tests/support/compare.h"
#include "tests/support/gradcheck.h"
#include "tests/support/guard_buffer.h"
#include "tests/support/sparse_buffer.h"

namespace blockstate::test {
namespace {

// Around the tiles of 64 keys and of 8 to 64 queries, widths around vectors, one head and three.
constexpr AttentionShape kShapes[] = {{1, 1, 1, 1, 1, 0},     {2, 63, 63, 1, 8, 0},   {1, 64, 64, 3, 17, 5},
                                      {1, 65, 65, 2, 16, 65}, {1, 67, 130, 3, 64, 1}, {1, 131, 131, 1, 5, 40},
                                      {2, 3, 200, 2, 33, 7},  {1, 129, 191, 1, 1, 3}, {1, 17, 17, 2, 2, 90}};
constexpr AttentionShape kEmptyShapes[] = {
    {0, 4, 4, 2, 3, 0}, {2, 0, 4, 2, 3, 2}, {2, 4, 4, 0, 3, 0}, {1, 4, 0, 2, 3, 2}};

/// Errors of a weighted mean are relative to the size of what it averages, not to the mean: floor for the comparison.
template <class T>
std::vector<double> magnitude(const std::vector<T>& values, double floor) {
  std::vector<double> out;
  for (const T value : values) {
    out.push_back(std::max(std::abs(static_cast<double>(value)), floor));
  }
  return out;
}

template <class T>
Comparison close(const std::string& name, const std::vector<T>& found, const std::vector<double>& expected,
                 double factor = 1) {
  const Tolerance tolerance{tolerance_of<T>().rel * factor, tolerance_of<T>().abs * factor};
  return compare_scaled(name, found, expected, magnitude(expected, 1), tolerance);
}

AttentionCase<double> in_double(const AttentionCase<float>& from) {
  AttentionCase<double> to({0, 0, 0, 1, 1, 0}, 0);
  to.shape = from.shape;
  to.offset = from.offset;
  to.scale = from.scale;
  to.q = converted<double>(from.q);
  to.k = converted<double>(from.k);
  to.v = converted<double>(from.v);
  to.bias = converted<double>(from.bias);
  to.dy = converted<double>(from.dy);
  to.begin = from.begin;
  to.end = from.end;
  return to;
}

/// Chunks with the last `window` - 1 keys carried; gradients of carried keys return to where they came from. `spoil`
/// may damage a chunk before it runs, `keep` says whether gradients of carried keys are returned.
template <class T>
AttentionCase<T> in_chunks(const AttentionCase<T>& whole, const std::vector<int64_t>& cuts, int64_t window,
                           const std::function<void(AttentionCase<T>&, int64_t carried)>& spoil = {},
                           bool keep = true) {
  AttentionCase<T> out = whole;
  const auto [B, L, J, H, P, M] = whole.shape;
  out.y.assign(whole.q.size(), T(0));
  out.dq = out.y;
  out.dk.assign(whole.k.size(), T(0));
  out.dv = out.dk;
  out.dbias.assign(whole.bias.size(), T(0));
  for (size_t c = 0; c + 1 < cuts.size(); ++c) {
    const int64_t first = cuts[c], last = cuts[c + 1];
    const int64_t oldest = std::max<int64_t>(0, first + whole.offset - window + 1);
    AttentionCase<T> one = whole.chunk(first, last, oldest);
    const int64_t carried = one.offset;
    if (spoil) {
      spoil(one, carried);
    }
    one.forward();
    one.backward();
    const int64_t row = H * P;
    for (int64_t b = 0; b < B; ++b) {
      std::copy_n(one.y.begin() + b * one.shape.L * row, one.shape.L * row, out.y.begin() + (b * L + first) * row);
      std::copy_n(one.dq.begin() + b * one.shape.L * row, one.shape.L * row, out.dq.begin() + (b * L + first) * row);
      for (int64_t x = keep ? 0 : carried * row; x < one.shape.J * row; ++x) {
        out.dk[static_cast<size_t>((b * J + oldest) * row + x)] +=
            one.dk[static_cast<size_t>(b * one.shape.J * row + x)];
        out.dv[static_cast<size_t>((b * J + oldest) * row + x)] +=
            one.dv[static_cast<size_t>(b * one.shape.J * row + x)];
      }
    }
    for (size_t m = 0; m < out.dbias.size(); ++m) {
      out.dbias[m] += one.dbias[m];
    }
  }
  return out;
}

}  // namespace

TEMPLATE_TEST_CASE("attention equals its definition in double", "[attention]", float, double) {
  for (const AttentionShape shape : kShapes) {
    for (const int window : {0, 1, 20, 64, 1000}) {
      CAPTURE(shape.B, shape.L, shape.J, shape.H, shape.P, shape.M, window);
      AttentionCase<TestType> one(shape, 31);
      if (window == 0) {
        one.see_random_ranges(32);
      } else {
        one.see_window(window);
      }
      one.forward();
      const NaiveAttention naive = one.naive();
      CHECK(close("y", one.y, naive.y));
      CHECK(close("log_sum_exp", one.log_sum_exp, naive.log_sum_exp));
    }
  }
}

TEST_CASE("attention of nothing is exactly 0", "[attention]") {
  for (const AttentionShape shape : kEmptyShapes) {
    CAPTURE(shape.B, shape.L, shape.J, shape.H);
    AttentionCase<float> one(shape, 33);
    one.forward();
    one.backward();
    CHECK(same_bits("y", one.y, std::vector<float>(one.q.size(), 0)));
    CHECK(same_bits("dq", one.dq, std::vector<float>(one.q.size(), 0)));
    CHECK(same_bits("dk", one.dk, std::vector<float>(one.k.size(), 0)));
    CHECK(same_bits("dv", one.dv, std::vector<float>(one.v.size(), 0)));
  }
  AttentionCase<float> one({1, 70, 70, 2, 9, 3}, 34);  // one query sees something, the others nothing
  std::fill(one.begin.begin(), one.begin.end(), 0);
  std::fill(one.end.begin(), one.end.end(), 0);
  one.begin[50] = 20;
  one.end[50] = 40;
  one.forward();
  one.backward();
  for (int64_t i = 0; i < 70; ++i) {
    for (int64_t x = 0; x < 18; ++x) {
      REQUIRE((one.y[static_cast<size_t>(i * 18 + x)] != 0) == (i == 50));
      REQUIRE((one.dq[static_cast<size_t>(i * 18 + x)] != 0) == (i == 50));
      REQUIRE((one.dk[static_cast<size_t>(i * 18 + x)] != 0) == (i >= 20 && i < 40));
      REQUIRE((one.dv[static_cast<size_t>(i * 18 + x)] != 0) == (i >= 20 && i < 40));
    }
    REQUIRE(std::isinf(one.log_sum_exp[static_cast<size_t>(i)]) == (i != 50));
  }
}

TEST_CASE("attention survives large scores", "[attention]") {
  AttentionCase<float> one({1, 80, 80, 1, 4, 0}, 35);
  for (float& x : one.q) {
    x *= 300;  // exp of a score overflows without the maximum; most of the weight lies on one key
  }
  one.forward();
  // A score of 1e3 carries an absolute error of about 1e3 * 6e-8 * 2, and so does its weight, relatively.
  CHECK(close("y", one.y, one.naive().y, 30));
}

TEST_CASE("attention gradients equal central differences", "[attention]") {
  for (const int64_t M : {0, 4}) {
    for (const bool random : {false, true}) {
      AttentionCase<double> one({2, 19, 23, 2, 3, M}, 36);
      one.see_window(7);
      if (random) {
        one.see_random_ranges(37);
      }
      one.forward();
      one.backward();
      CHECK(gradcheck(
          {{"q", &one.q, &one.dq}, {"k", &one.k, &one.dk}, {"v", &one.v, &one.dv}, {"bias", &one.bias, &one.dbias}},
          [&] { return one.loss(); }));
    }
  }
  AttentionCase<double> tiles({1, 70, 70, 1, 2, 20}, 38);  // several tiles of queries and keys
  tiles.forward();
  tiles.backward();
  CHECK(gradcheck({{"q", &tiles.q, &tiles.dq},
                   {"k", &tiles.k, &tiles.dk},
                   {"v", &tiles.v, &tiles.dv},
                   {"bias", &tiles.bias, &tiles.dbias}},
                  [&] { return tiles.loss(); }));
}

TEST_CASE("attention gradients in float equal those in double", "[attention]") {
  for (const AttentionShape shape : kShapes) {
    for (const int window : {0, 20, 1000}) {
      CAPTURE(shape.B, shape.L, shape.J, shape.H, shape.P, shape.M, window);
      AttentionCase<float> single(shape, 39);
      if (window == 0) {
        single.see_random_ranges(40);
      } else {
        single.see_window(window);
      }
      AttentionCase<double> twice = in_double(single);
      single.forward();
      single.backward();
      twice.forward();
      twice.backward();
      CHECK(close("dq", single.dq, twice.dq));
      CHECK(close("dk", single.dk, twice.dk));
      CHECK(close("dv", single.dv, twice.dv));
      CHECK(close("dbias", single.dbias, twice.dbias, 4));  // sums over all queries of terms that nearly cancel
    }
  }
}

TEMPLATE_TEST_CASE("attention writes what it should, through strides", "[attention]", float, double) {
  using T = TestType;
  for (const AttentionShape shape : kShapes) {
    const auto [B, L, J, H, P, M] = shape;
    CAPTURE(B, L, J, H, P, M);
    AttentionCase<T> plain(shape, 41);
    plain.see_random_ranges(42);
    plain.forward();
    plain.backward();
    // q, k and v as slices of one wide row, as a joint projection leaves them.
    GuardBuffer<T, 4> q({B, L, H, P}, 5), k({B, J, H, P}, 2), v({B, J, H, P}, 1), dy({B, L, H, P}, 3);
    GuardBuffer<T, 4> y({B, L, H, P}, 1), dq({B, L, H, P}, 4), dk({B, J, H, P}, 3), dv({B, J, H, P}, 2);
    GuardBuffer<T, 3> log_sum_exp({B, H, L}, 1);
    q.assign(plain.q);
    k.assign(plain.k);
    v.assign(plain.v);
    dy.assign(plain.dy);
    AttentionCase<T> sources = plain;
    kernels::AttentionBackward<T> args;
    args.forward = sources.arguments();
    args.forward.q = q.cview();
    args.forward.k = k.cview();
    args.forward.v = v.cview();
    args.forward.y = y.view();
    args.forward.log_sum_exp = log_sum_exp.view();
    kernels::cpu::attention_forward(args.forward);
    std::vector<T> dbias(plain.bias.size(), T(2));
    args.dq = dq.view();
    args.dk = dk.view();
    args.dv = dv.view();
    args.dbias = make_view(M > 0 ? dbias.data() : nullptr, H, M);
    args.dy = dy.cview();
    kernels::cpu::attention_backward(args);
    for (const auto* output : {&y, &dq, &dk, &dv}) {
      CHECK(output->fully_written());
    }
    CHECK(log_sum_exp.fully_written());
    for (const auto* input : {&q, &k, &v, &dy}) {
      CHECK(input->bands_intact());
    }
    CHECK(same_bits("y", y.elements(), plain.y));
    CHECK(same_bits("dq", dq.elements(), plain.dq));
    CHECK(same_bits("dk", dk.elements(), plain.dk));
    CHECK(same_bits("dv", dv.elements(), plain.dv));
    for (size_t m = 0; m < dbias.size(); ++m) {
      CHECK(static_cast<double>(dbias[m]) == Approx(2 + static_cast<double>(plain.dbias[m])).margin(1e-6));
    }
  }
}

TEMPLATE_TEST_CASE("attention: chunks with carried keys equal one pass", "[attention][law]", float, double) {
  using T = TestType;
  const int64_t window = 30;
  AttentionCase<T> whole({2, 150, 150, 2, 6, 12}, 43);
  whole.see_window(window);
  whole.forward();
  whole.backward();
  const auto agrees = [&](const AttentionCase<T>& other, double factor) {
    return std::vector<Comparison>{close("y", other.y, converted<double>(whole.y), factor),
                                   close("dq", other.dq, converted<double>(whole.dq), factor),
                                   close("dk", other.dk, converted<double>(whole.dk), factor),
                                   close("dv", other.dv, converted<double>(whole.dv), factor),
                                   close("dbias", other.dbias, converted<double>(whole.dbias), 4 * factor)};
  };
  RandomStream stream(44);
  for (int round = 0; round < 5; ++round) {
    std::vector<int64_t> cuts{0, 150};
    for (int i = 0; i < 1 + 3 * round; ++i) {
      cuts.push_back(static_cast<int64_t>(stream.below(151)));
    }
    std::sort(cuts.begin(), cuts.end());
    for (const Comparison& one : agrees(in_chunks(whole, cuts, window), 1)) {
      CHECK(one);
    }
  }
  const std::vector<int64_t> cuts{0, 70, 150};
  const auto zeroed = in_chunks<T>(whole, cuts, window, [](AttentionCase<T>& one, int64_t carried) {
    for (int64_t b = 0; b < one.shape.B; ++b) {
      const int64_t row = one.shape.H * one.shape.P;
      std::fill_n(one.k.begin() + b * one.shape.J * row, carried * row, T(0));
      std::fill_n(one.v.begin() + b * one.shape.J * row, carried * row, T(0));
    }
  });
  CHECK_FALSE(agrees(zeroed, 10)[0]);
  CHECK_FALSE(agrees(zeroed, 10)[1]);
  const auto shifted = in_chunks<T>(whole, cuts, window, [](AttentionCase<T>& one, int64_t carried) {
    for (int64_t b = 0; b < one.shape.B && carried > 0; ++b) {
      const int64_t row = one.shape.H * one.shape.P;
      for (auto* keys : {&one.k, &one.v}) {
        const auto start = keys->begin() + b * one.shape.J * row;
        std::rotate(start, start + row, start + carried * row);
      }
    }
  });
  CHECK_FALSE(agrees(shifted, 10)[0]);
  const auto dropped = in_chunks<T>(whole, cuts, window, {}, false);
  CHECK(agrees(dropped, 1)[0]);
  CHECK_FALSE(agrees(dropped, 10)[2]);
  CHECK_FALSE(agrees(dropped, 10)[3]);
}

TEST_CASE("attention: packed records equal separate ones, padding is not seen", "[attention]") {
  AttentionCase<double> packed({1, 110, 110, 2, 5, 8}, 45);
  const int64_t starts[] = {0, 45, 100};  // the last ten steps are padding
  for (int64_t i = 0; i < 110; ++i) {
    const bool padding = i >= 100;
    packed.begin[static_cast<size_t>(i)] = padding ? 0 : (i < 45 ? 0 : 45);
    packed.end[static_cast<size_t>(i)] = padding ? 0 : i + 1;
  }
  packed.forward();
  packed.backward();
  for (int r = 0; r < 2; ++r) {
    AttentionCase<double> one = packed.chunk(starts[r], starts[r + 1], starts[r]);
    one.forward();
    one.backward();
    const auto part = [&](const std::vector<double>& from) {
      return std::vector<double>(from.begin() + starts[r] * 10, from.begin() + starts[r + 1] * 10);
    };
    CHECK(close("y", one.y, part(packed.y)));
    CHECK(close("dq", one.dq, part(packed.dq)));
    CHECK(close("dk", one.dk, part(packed.dk)));
    CHECK(close("dv", one.dv, part(packed.dv)));
  }
  for (size_t x = 1000; x < 1100; ++x) {
    REQUIRE(packed.y[x] == 0);
    REQUIRE(packed.dk[x] == 0);
  }
}

TEST_CASE("attention does not depend on the thread count", "[attention]") {
  const int restore = thread_count();
  AttentionCase<float> one({2, 140, 140, 3, 16, 20}, 46);
  set_thread_count(1);
  one.forward();
  one.backward();
  for (const int threads : {2, 5}) {
    set_thread_count(threads);
    AttentionCase<float> other = one;
    other.forward();
    other.backward();
    CHECK(same_bits("y", other.y, one.y));
    CHECK(same_bits("dq", other.dq, one.dq));
    CHECK(same_bits("dk", other.dk, one.dk));
    CHECK(same_bits("dv", other.dv, one.dv));
    CHECK(same_bits("dbias", other.dbias, one.dbias));
  }
  set_thread_count(restore);
}

TEST_CASE("attention is causal where its ranges are", "[attention]") {
  AttentionCase<float> one({1, 90, 90, 1, 4, 0}, 47);
  one.see_window(25);
  one.forward();
  for (const int64_t j : {0, 40, 64, 89}) {
    AttentionCase<float> other = one;
    for (int64_t p = 0; p < 4; ++p) {
      other.k[static_cast<size_t>(j * 4 + p)] += 1;
      other.v[static_cast<size_t>(j * 4 + p)] += 1;
    }
    other.forward();
    for (int64_t x = 0; x < 90 * 4; ++x) {
      const bool changed = other.y[static_cast<size_t>(x)] != one.y[static_cast<size_t>(x)];
      REQUIRE(changed == (x / 4 >= j && x / 4 < j + 25));
    }
  }
}

TEST_CASE("attention reads and writes beyond 2^31 elements", "[attention]") {
  AttentionCase<float> one({1, 70, 70, 2, 3, 0}, 48);
  one.forward();
  one.backward();
  const int64_t stride = (int64_t{1} << 25) + 5;  // of steps: 70 of them reach 2.3e9 elements
  const SparseBuffer<float> q(70 * stride), k(70 * stride), v(70 * stride), dy(70 * stride);
  const SparseBuffer<float> y(70 * stride), dq(70 * stride), dk(70 * stride), dv(70 * stride);
  const auto far = [&](const SparseBuffer<float>& buffer) {
    View<float, 4> view = make_view(buffer.data(), 1, 70, 2, 3);
    view.stride[1] = stride;
    return view;
  };
  const auto fill = [&](const SparseBuffer<float>& buffer, const std::vector<float>& values) {
    for (int64_t i = 0; i < 70 * 6; ++i) {
      buffer.data()[i / 6 * stride + i % 6] = values[static_cast<size_t>(i)];
    }
  };
  fill(q, one.q);
  fill(k, one.k);
  fill(v, one.v);
  fill(dy, one.dy);
  AttentionCase<float> other = one;
  kernels::AttentionBackward<float> args;
  args.forward = other.arguments();
  args.forward.q = far(q);
  args.forward.k = far(k);
  args.forward.v = far(v);
  args.forward.y = far(y);
  kernels::cpu::attention_forward(args.forward);
  args.dq = far(dq);
  args.dk = far(dk);
  args.dv = far(dv);
  args.dy = far(dy);
  kernels::cpu::attention_backward(args);
  CHECK(same_bits("y", elements_of(far(y)), one.y));
  CHECK(same_bits("dq", elements_of(far(dq)), one.dq));
  CHECK(same_bits("dk", elements_of(far(dk)), one.dk));
  CHECK(same_bits("dv", elements_of(far(dv)), one.dv));
}

}  // namespace blockstate::test
