// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <vector>

#include "kernels/tail.h"
#include "tests/support/cuda_rows.h"
#include "tests/support/fill.h"

namespace blockstate::test {
namespace {

struct TailCase {
  int64_t B, P, L, Y, C;
  std::vector<int64_t> end, known;
};

const TailCase kTailCases[] = {{1, 0, 5, 3, 2, {5}, {5}},
                               {2, 3, 5, 3, 8, {2, 5}, {9, 9}},
                               {3, 3, 5, 3, 1, {0, 1, 4}, {8, 1, 2}},
                               {2, 7, 2, 4, 3, {2, 0}, {100, 0}},
                               {1, 2, 3, 8, 2, {3}, {100}},
                               {2, 4, 70, 65, 17, {70, 63}, {1000, 1000}},
                               {2, 4, 70, 65, 264, {70, 63}, {1000, 50}},
                               {1, 2, 3, 0, 2, {3}, {5}},
                               {0, 2, 3, 2, 2, {}, {}},
                               {1, 2, 0, 2, 3, {0}, {2}},
                               {1, 2, 3, 2, 0, {3}, {5}}};

}  // namespace

TEMPLATE_TEST_CASE("tail on CUDA equals the CPU's", "[tail][cuda]", float, BFloat16) {
  using T = TestType;
  for (const TailCase& s : kTailCases) {
    for (const Lie lie : {Lie{}, Lie{8, 0}, Lie{3, 1}}) {
      CAPTURE(s.B, s.P, s.L, s.Y, s.C, lie.gap, lie.offset);
      const auto past = rounded_to<T>(random_normal<float>(71, s.B * s.P * s.C)),
                 x = rounded_to<T>(random_normal<float>(72, s.B * s.L * s.C)),
                 dy = rounded_to<T>(random_normal<float>(73, s.B * s.Y * s.C));
      const CudaRows<T> past_rows(past, s.B * s.P, s.C, lie), x_rows(x, s.B * s.L, s.C, lie), y(s.B * s.Y, s.C),
          dy_rows(dy, s.B * s.Y, s.C, lie), dpast(s.B * s.P, s.C, lie), dx(s.B * s.L, s.C, lie);
      const CudaArray<int64_t> end(s.end), known(s.known);
      const auto host_end = make_view<const int64_t>(s.end.data(), s.B),
                 host_known = make_view<const int64_t>(s.known.data(), s.B);
      std::vector<float> expected(dy.size()), expected_past(past.size()), expected_x(x.size());
      const bool has_past = s.P > 0;
      kernels::cpu::tail_forward<float>(make_view(expected.data(), s.B, s.Y, s.C),
                                        has_past ? make_view(past.data(), s.B, s.P, s.C) : View<const float, 3>(),
                                        make_view(x.data(), s.B, s.L, s.C), host_end, host_known);
      kernels::cuda::tail_forward<T>(gpu(), y.view(s.B, s.Y), has_past ? past_rows.cview(s.B, s.P) : View<const T, 3>(),
                                     x_rows.cview(s.B, s.L), end.cview(s.B), known.cview(s.B));
      CHECK(same_bits("y", y.host(), expected));
      kernels::cpu::tail_backward<float>(has_past ? make_view(expected_past.data(), s.B, s.P, s.C) : View<float, 3>(),
                                         make_view(expected_x.data(), s.B, s.L, s.C),
                                         make_view(dy.data(), s.B, s.Y, s.C), host_end, host_known);
      kernels::cuda::tail_backward<T>(gpu(), has_past ? dpast.view(s.B, s.P) : View<T, 3>(), dx.view(s.B, s.L),
                                      dy_rows.cview(s.B, s.Y), end.cview(s.B), known.cview(s.B));
      CHECK(same_bits("dx", dx.host(), expected_x));
      if (has_past) {
        CHECK(same_bits("dpast", dpast.host(), expected_past));
      }
    }
  }
}

TEST_CASE("tail on CUDA reads and writes beyond 2^31 elements", "[tail][cuda][large]") {
  const int64_t stride = (int64_t{1} << 31) + 9;
  const CudaSpace<BFloat16> far(2 * stride + 4);
  const View<BFloat16, 3> x{far.data(), {1, 3, 4}, {0, stride, 1}};
  const CudaArray<int64_t> end(std::vector<int64_t>{3}), known(std::vector<int64_t>{3});
  const CudaRows<BFloat16> dy({1, 2, 3, 4, 5, 6, 7, 8}, 2, 4), y(2, 4);
  kernels::cuda::tail_backward<BFloat16>(gpu(), {}, x, dy.cview(1, 2), end.cview(1), known.cview(1));
  kernels::cuda::tail_forward<BFloat16>(gpu(), y.view(1, 2), {}, x, end.cview(1), known.cview(1));
  CHECK(y.host() == std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8});
}

}  // namespace blockstate::test
