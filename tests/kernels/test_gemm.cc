// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <thread>
#include <vector>

#include "kernels/gemm.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradcheck.h"
#include "tests/support/guard_buffer.h"
#include "tests/support/sparse_buffer.h"
#include "tests/support/threads.h"

namespace blockstate::test {
namespace {

using kernels::Gemm;

struct Case {
  int64_t m, n, k;
  bool transpose_a = false, transpose_b = false, bias = false;
  double alpha = 1, beta = 0;
  int64_t gap = 0;
};

// Inputs of a case in guarded storage, and the naive product in double with the sum of its absolute terms, which
// bounds the rounding of any order of summation.
template <class T>
struct Problem {
  Case shape;
  GuardBuffer<T, 2> a, b, c;
  std::vector<T> bias;
  std::vector<double> expected, magnitude;

  explicit Problem(const Case& s)
      : shape(s),
        a({s.transpose_a ? s.k : s.m, s.transpose_a ? s.m : s.k}, s.gap),
        b({s.transpose_b ? s.n : s.k, s.transpose_b ? s.k : s.n}, s.gap),
        c({s.m, s.n}, s.gap),
        bias(s.bias ? random_normal<T>(4, s.n) : std::vector<T>{}) {
    a.assign(random_normal<T>(1, s.m * s.k));
    b.assign(random_normal<T>(2, s.k * s.n));
    std::vector<T> before(static_cast<size_t>(s.m * s.n), T(0));
    if (s.beta != 0) {  // otherwise c keeps its NaN: it must not be read
      before = random_normal<T>(3, s.m * s.n);
      c.assign(before);
    }
    for (int64_t i = 0; i < s.m; ++i) {
      for (int64_t j = 0; j < s.n; ++j) {
        double sum = 0, scale = 0;
        for (int64_t l = 0; l < s.k; ++l) {
          const double left = s.transpose_a ? a.view()(l, i) : a.view()(i, l);
          const double right = s.transpose_b ? b.view()(j, l) : b.view()(l, j);
          sum += left * right;
          scale += std::abs(left * right);
        }
        const double start = s.beta * before[static_cast<size_t>(i * s.n + j)];
        const double shift = s.bias ? static_cast<double>(bias[static_cast<size_t>(j)]) : 0;
        expected.push_back(s.alpha * sum + start + shift);
        magnitude.push_back(std::abs(s.alpha) * scale + std::abs(start) + std::abs(shift));
      }
    }
  }

  Gemm<T> args() {
    Gemm<T> out;
    out.c = c.view();
    out.a = a.cview();
    out.b = b.cview();
    if (shape.bias) {
      out.bias = make_view<const T>(bias.data(), shape.n);
    }
    out.transpose_a = shape.transpose_a;
    out.transpose_b = shape.transpose_b;
    out.alpha = static_cast<T>(shape.alpha);
    out.beta = static_cast<T>(shape.beta);
    return out;
  }
};

template <class T>
void check(const Case& shape) {
  INFO("m " << shape.m << " n " << shape.n << " k " << shape.k << " ta " << shape.transpose_a << " tb "
            << shape.transpose_b << " bias " << shape.bias << " alpha " << shape.alpha << " beta " << shape.beta);
  Problem<T> problem(shape);
  kernels::cpu::gemm(problem.args());
  CHECK(compare_scaled("c", problem.c.view(), problem.expected, problem.magnitude, tolerance_of<T>()));
  CHECK(problem.c.fully_written("c"));
}

}  // namespace

TEMPLATE_TEST_CASE("gemm equals the naive product for hostile shapes", "[gemm]", float, double) {
  for (const int64_t m : {1, 2, 15, 16, 17, 67}) {
    for (const int64_t n : {1, 3, 16, 37}) {
      for (const int64_t k : {1, 4, 31, 64}) {
        for (const bool transpose_a : {false, true}) {
          for (const bool transpose_b : {false, true}) {
            check<TestType>({m, n, k, transpose_a, transpose_b, m % 2 == 1, 1, 0, n % 3});
          }
        }
      }
    }
  }
}

TEMPLATE_TEST_CASE("gemm scales, accumulates and adds a bias", "[gemm]", float, double) {
  for (const std::array<int64_t, 3> s : {std::array<int64_t, 3>{1, 19, 40}, {23, 1, 40}, {23, 19, 40}}) {
    for (const bool bias : {false, true}) {
      check<TestType>({s[0], s[1], s[2], false, true, bias, 0.5, 1, 5});
      check<TestType>({s[0], s[1], s[2], true, false, bias, -2, 0.25, 5});
      check<TestType>({s[0], s[1], s[2], true, true, bias, 0, 3, 0});
    }
  }
}

TEMPLATE_TEST_CASE("gemm equals the naive product where the work is split", "[gemm]", float, double) {
  check<TestType>({1031, 36, 97, false, true, true, 1, 0, 3});     // panels of rows
  check<TestType>({5, 1543, 521, false, false, true, 1, 0, 0});    // panels of columns
  check<TestType>({521, 1031, 67, false, false, false, 1, 1, 1});  // both
  check<TestType>({36, 29, 9001, true, false, true, 2, 0.5, 2});   // pieces of k
  check<TestType>({1, 2000, 1200, false, true, true, 1, 0, 0});    // one row of generation
}

TEMPLATE_TEST_CASE("gemm of nothing", "[gemm]", float, double) {
  for (const Case& shape : {Case{0, 5, 3}, Case{5, 0, 3}, Case{3, 4, 0}, Case{3, 4, 0, true, true, true, 1, 2, 1}}) {
    check<TestType>(shape);  // k = 0: beta * c + bias is left
  }
}

TEST_CASE("gemm gives the same bits on one and on more threads", "[gemm]") {
  for (const Case& shape : {Case{1031, 256, 64, false, true, true}, Case{64, 36, 16384, true, false, false, 1, 1},
                            Case{513, 1031, 67}, Case{3, 2048, 700}}) {
    Problem<float> one(shape), more(shape);
    {
      const Threads threads(1);
      kernels::cpu::gemm(one.args());
    }
    {
      const Threads threads(3);
      kernels::cpu::gemm(more.args());
    }
    CHECK(same_bits("c", more.c.view(), one.c.elements()));
  }
}

// OpenBLAS's sequential build fails this in about two calls of a hundred when nothing guards it.
TEST_CASE("gemm is safe to call from several threads at once", "[gemm]") {
  constexpr int64_t kSize = 101;
  constexpr int kThreads = 4;
  std::array<int, kThreads> wrong{};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([t, &wrong] {
      // Every thread has its own constant, so that a shared packing buffer shows.
      std::vector<float> a(kSize * kSize, static_cast<float>(t + 1)), b(kSize * kSize, 1), c(kSize * kSize);
      Gemm<float> args;
      args.c = make_view(c.data(), kSize, kSize);
      args.a = make_view<const float>(a.data(), kSize, kSize);
      args.b = make_view<const float>(b.data(), kSize, kSize);
      args.transpose_a = args.transpose_b = true;
      for (int repeat = 0; repeat < 1000; ++repeat) {
        kernels::cpu::gemm(args);
        for (const float value : c) {
          if (value != static_cast<float>((t + 1) * kSize)) {
            ++wrong[static_cast<size_t>(t)];
            break;
          }
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(wrong == std::array<int, kThreads>{});
}

TEST_CASE("the gradients of gemm are products too", "[gemm]") {
  constexpr int64_t kM = 3, kN = 4, kK = 5;
  std::vector<double> a = random_normal<double>(1, kM * kK), b = random_normal<double>(2, kN * kK);
  const std::vector<double> weight = random_normal<double>(3, kM * kN);
  std::vector<double> c(kM * kN), da(a.size()), db(b.size());
  const auto product = [](View<double, 2> out, View<const double, 2> left, View<const double, 2> right, bool ta,
                          bool tb) {
    Gemm<double> args;
    args.c = out;
    args.a = left;
    args.b = right;
    args.transpose_a = ta;
    args.transpose_b = tb;
    kernels::cpu::gemm(args);
  };
  const auto loss = [&] {
    product(make_view(c.data(), kM, kN), make_view(a.data(), kM, kK), make_view(b.data(), kN, kK), false, true);
    double sum = 0;
    for (size_t i = 0; i < c.size(); ++i) {
      sum += weight[i] * c[i];
    }
    return sum;
  };
  const auto dc = make_view(weight.data(), kM, kN);
  product(make_view(da.data(), kM, kK), dc, make_view(b.data(), kN, kK), false, false);
  product(make_view(db.data(), kN, kK), dc, make_view(a.data(), kM, kK), true, false);
  CHECK(gradcheck({{"a", &a, &da}, {"b", &b, &db}}, loss));
}

TEST_CASE("gemm reaches rows past 2^31 elements", "[gemm]") {
  constexpr int64_t kRows = 4, kColumns = 3, kInner = 2;
  constexpr int64_t kStride = int64_t{1} << 30;  // the last row starts at 3 * 2^30
  SparseBuffer<float> far(kRows * kStride);
  View<float, 2> c{far.data(), {kRows, kColumns}, {kStride, 1}};
  const std::vector<float> a = random_normal<float>(1, kRows * kInner), b = random_normal<float>(2, kInner * kColumns);
  std::vector<float> near(kRows * kColumns);
  Gemm<float> args;
  args.a = make_view(a.data(), kRows, kInner);
  args.b = make_view(b.data(), kInner, kColumns);
  args.c = make_view(near.data(), kRows, kColumns);
  kernels::cpu::gemm(args);
  args.c = c;
  kernels::cpu::gemm(args);
  CHECK(compare("c", c, near, {0, 0}));
}

TEST_CASE("gemm refuses what does not fit", "[gemm]") {
  std::vector<float> data(64);
  Gemm<float> args;
  args.c = make_view(data.data(), 2, 3);
  args.a = make_view<const float>(data.data(), 2, 4);
  args.b = make_view<const float>(data.data(), 5, 3);
  CHECK_THROWS_WITH(kernels::cpu::gemm(args), "gemm: shapes do not fit: c (2, 3), a (2, 4), b (5, 3)");
  args.b = make_view<const float>(data.data(), 4, 3);
  args.bias = make_view<const float>(data.data(), 4);
  CHECK_THROWS_WITH(kernels::cpu::gemm(args), Catch::Contains("bias must hold 3 elements"));
  args.bias = {};
  args.a.stride[1] = 2;
  CHECK_THROWS_WITH(kernels::cpu::gemm(args), "gemm: the last stride of a must be 1, found 2");
  args.a.stride[1] = 1;
  args.a.stride[0] = 3;
  CHECK_THROWS_WITH(kernels::cpu::gemm(args), Catch::Contains("the rows of a overlap"));
}

}  // namespace blockstate::test
