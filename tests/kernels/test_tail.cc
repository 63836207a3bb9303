// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "core/base/parallel.h"
#include "kernels/tail.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/guard_buffer.h"
#include "tests/support/sparse_buffer.h"

namespace blockstate::test {
namespace {

struct TailCase {
  int64_t B, P, L, Y, C;
  std::vector<int64_t> end, known;
};

const TailCase kCases[] = {{1, 0, 5, 3, 2, {5}, {5}},              // the last three of one chunk
                           {2, 3, 5, 3, 4, {2, 5}, {9, 9}},        // reaching into the past
                           {3, 3, 5, 3, 1, {0, 1, 4}, {8, 1, 2}},  // nothing new; young records
                           {2, 7, 2, 4, 3, {2, 0}, {100, 0}},      // longer past; no history at all
                           {1, 2, 3, 8, 2, {3}, {100}},            // more wanted than there is
                           {2, 4, 70, 65, 17, {70, 63}, {1000, 1000}},
                           {1, 2, 3, 0, 2, {3}, {5}},
                           {0, 2, 3, 2, 2, {}, {}},
                           {1, 2, 0, 2, 3, {0}, {2}},
                           {1, 2, 3, 2, 0, {3}, {5}}};

/// Row i of the tail by its definition: history written out, then its last Y rows.
template <class T>
std::vector<T> naive_tail(const TailCase& s, const std::vector<T>& past, const std::vector<T>& x) {
  std::vector<T> y;
  for (int64_t b = 0; b < s.B; ++b) {
    std::vector<T> history(past.begin() + b * s.P * s.C, past.begin() + (b + 1) * s.P * s.C);
    const int64_t end = s.end[static_cast<size_t>(b)];
    history.insert(history.end(), x.begin() + b * s.L * s.C, x.begin() + (b * s.L + end) * s.C);
    const int64_t rows = s.P + end, known = std::min(s.known[static_cast<size_t>(b)], rows);
    std::fill(history.begin(), history.begin() + (rows - known) * s.C, T(0));
    history.insert(history.begin(), static_cast<size_t>(s.Y * s.C), T(0));
    y.insert(y.end(), history.end() - s.Y * s.C, history.end());
  }
  return y;
}

}  // namespace

TEMPLATE_TEST_CASE("tail equals its definition and writes nothing else", "[tail]", float, double) {
  using T = TestType;
  for (const TailCase& s : kCases) {
    CAPTURE(s.B, s.P, s.L, s.Y, s.C);
    const auto past = random_normal<T>(71, s.B * s.P * s.C), x = random_normal<T>(72, s.B * s.L * s.C);
    GuardBuffer<T, 3> from_past({s.B, s.P, s.C}, 2), from_x({s.B, s.L, s.C}, 1), y({s.B, s.Y, s.C}, 3);
    from_past.assign(past);
    from_x.assign(x);
    const auto end = make_view<const int64_t>(s.end.data(), s.B), known = make_view<const int64_t>(s.known.data(), s.B);
    kernels::cpu::tail_forward(y.view(), s.P > 0 ? from_past.cview() : View<const T, 3>{}, from_x.cview(), end, known);
    CHECK(y.fully_written("y"));
    CHECK(same_bits("y", y.elements(), naive_tail(s, past, x)));
    // Linear, with entries 0 and 1: the gradient is the transposed copy, <dy, y(x)> = <dx, x> for every x.
    const auto dy = random_normal<T>(73, s.B * s.Y * s.C);
    GuardBuffer<T, 3> given({s.B, s.Y, s.C}, 1), dpast({s.B, s.P, s.C}, 3), dx({s.B, s.L, s.C}, 2);
    given.assign(dy);
    kernels::cpu::tail_backward(s.P > 0 ? dpast.view() : View<T, 3>{}, dx.view(), given.cview(), end, known);
    CHECK(dx.fully_written("dx"));
    CHECK((s.P == 0 || dpast.fully_written("dpast")));
    const std::vector<T> gradient_past = s.P == 0 ? std::vector<T>() : dpast.elements(), gradient_x = dx.elements();
    const auto unit = [&](size_t i, bool in_past) {
      std::vector<T> p(past.size(), T(0)), q(x.size(), T(0));
      (in_past ? p : q)[i] = 1;
      const std::vector<T> out = naive_tail(s, p, q);
      T sum = 0;
      for (size_t k = 0; k < out.size(); ++k) {
        sum += out[k] * dy[k];
      }
      return sum;
    };
    for (size_t i = 0; i < std::min<size_t>(300, gradient_past.size()); ++i) {
      REQUIRE(gradient_past[i] == unit(i, true));
    }
    for (size_t i = 0; i < std::min<size_t>(1200, gradient_x.size()); ++i) {
      REQUIRE(gradient_x[i] == unit(i, false));
    }
  }
}

TEST_CASE("tail of chunks equals the tail of the whole", "[tail][law]") {
  const int64_t B = 2, L = 40, Y = 7, C = 3;
  const auto x = random_normal<double>(74, B * L * C);
  const std::vector<int64_t> end{40, 33};  // the second row ends early
  std::vector<double> whole(static_cast<size_t>(B * Y * C));
  kernels::cpu::tail_forward(make_view(whole.data(), B, Y, C), {}, make_view<const double>(x.data(), B, L, C),
                             make_view<const int64_t>(end.data(), B), make_view<const int64_t>(end.data(), B));
  for (const int64_t cut : {0, 1, 6, 7, 20, 35, 40}) {
    std::vector<double> carry(whole.size()), out(whole.size());
    const auto first = make_view<const double>(x.data(), B, L, C);
    auto left = first, right = first;
    left.size[1] = cut;
    right.size[1] = L - cut;
    right.data += cut * C;
    const std::vector<int64_t> left_end{std::min(cut, end[0]), std::min(cut, end[1])};
    const std::vector<int64_t> right_end{end[0] - left_end[0], end[1] - left_end[1]};
    kernels::cpu::tail_forward(make_view(carry.data(), B, Y, C), {}, left, make_view<const int64_t>(left_end.data(), B),
                               make_view<const int64_t>(left_end.data(), B));
    const auto kept = make_view<const double>(carry.data(), B, Y, C);
    kernels::cpu::tail_forward(make_view(out.data(), B, Y, C), kept, right,
                               make_view<const int64_t>(right_end.data(), B), make_view<const int64_t>(end.data(), B));
    CHECK(same_bits("y", out, whole));
    kernels::cpu::tail_forward(make_view(out.data(), B, Y, C), {}, right, make_view<const int64_t>(right_end.data(), B),
                               make_view<const int64_t>(end.data(), B));
    CHECK(static_cast<bool>(same_bits("y", out, whole)) == (cut == 0 || cut <= 26));  // without the carry
  }
}

TEST_CASE("tail reads and writes beyond 2^31 elements", "[tail]") {
  const int64_t stride = (int64_t{1} << 31) + 9;
  const SparseBuffer<float> x(3 * stride), y(2 * stride), dx(3 * stride);
  View<float, 3> from = make_view(x.data(), 1, 3, 4), to = make_view(y.data(), 1, 2, 4), gradient = from;
  from.stride[1] = to.stride[1] = gradient.stride[1] = stride;
  gradient.data = dx.data();
  for (int64_t i = 0; i < 12; ++i) {
    from(0, i / 4, i % 4) = static_cast<float>(i + 1);
  }
  const std::vector<int64_t> end{3}, known{3};
  const auto at = make_view<const int64_t>(end.data(), 1), all = make_view<const int64_t>(known.data(), 1);
  kernels::cpu::tail_forward<float>(to, {}, from, at, all);
  CHECK(same_bits("y", elements_of(to), std::vector<float>{5, 6, 7, 8, 9, 10, 11, 12}));
  kernels::cpu::tail_backward<float>({}, gradient, to, at, all);
  CHECK(same_bits("dx", elements_of(gradient), std::vector<float>{0, 0, 0, 0, 5, 6, 7, 8, 9, 10, 11, 12}));
}

}  // namespace blockstate::test
