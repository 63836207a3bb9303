// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "kernels/state_readout.h"
#include "tests/support/cuda_rows.h"
#include "tests/support/fill.h"

namespace blockstate::test {

TEST_CASE("state_readout on CUDA equals its sums", "[state_readout][cuda]") {
  struct Case {
    int64_t B, S, D, Q;
  };
  for (const Case& s : {Case{1, 1, 1, 1}, Case{2, 3, 5, 7}, Case{3, 4, 33, 16}, Case{70, 2, 9, 64}, Case{0, 2, 3, 4},
                        Case{2, 0, 3, 4}, Case{2, 2, 0, 4}, Case{2, 2, 3, 0}}) {
    CAPTURE(s.B, s.S, s.D, s.Q);
    const auto state = random_normal<float>(1, s.B * s.D * s.Q), weight = random_normal<float>(2, s.S * s.D * s.Q),
               dy = random_normal<float>(3, s.B * s.S * s.D), start = random_normal<float>(4, s.S * s.D * s.Q);
    std::vector<double> y(dy.size()), y_scale(dy.size()), dstate(state.size()), dstate_scale(state.size()),
        dweight = converted<double>(start), dweight_scale;
    for (const double value : dweight) {
      dweight_scale.push_back(std::abs(value));
    }
    for (int64_t b = 0; b < s.B; ++b) {
      for (int64_t r = 0; r < s.S; ++r) {
        for (int64_t d = 0; d < s.D; ++d) {
          for (int64_t q = 0; q < s.Q; ++q) {
            const size_t at = static_cast<size_t>((b * s.S + r) * s.D + d),
                         h = static_cast<size_t>((b * s.D + d) * s.Q + q),
                         w = static_cast<size_t>((r * s.D + d) * s.Q + q);
            y[at] += double{weight[w]} * state[h];
            y_scale[at] += std::abs(double{weight[w]} * state[h]);
            dstate[h] += double{dy[at]} * weight[w];
            dstate_scale[h] += std::abs(double{dy[at]} * weight[w]);
            dweight[w] += double{dy[at]} * state[h];
            dweight_scale[w] += std::abs(double{dy[at]} * state[h]);
          }
        }
      }
    }
    const CudaArray<float> states(state), weights(weight), dweights(start), dweights_again(start);
    const CudaRows<float> out(s.B * s.S, s.D, {2, 0}), given(dy, s.B * s.S, s.D, {1, 0});
    const CudaRows<float> dstates(s.B * s.D, s.Q);
    const auto h = states.cview(s.B, s.D, s.Q), w = weights.cview(s.S, s.D, s.Q);
    kernels::cuda::state_readout_forward(gpu(), out.view(s.B, s.S), h, w);
    CHECK(compare_scaled("y", out.host(), y, y_scale, kFloat32));
    kernels::cuda::state_readout_backward(gpu(), dstates.view(s.B, s.D), dweights.view(s.S, s.D, s.Q),
                                          given.cview(s.B, s.S), h, w);
    CHECK(compare_scaled("dstate", dstates.host(), dstate, dstate_scale, kFloat32));
    CHECK(compare_scaled("dweight", dweights.host(), dweight, dweight_scale, kFloat32));
    const std::vector<float> before = dstates.host();
    kernels::cuda::state_readout_backward(gpu(), dstates.view(s.B, s.D), dweights_again.view(s.S, s.D, s.Q),
                                          given.cview(s.B, s.S), h, w);
    CHECK(same_bits("dstate again", dstates.host(), before));
    CHECK(same_bits("dweight again", dweights_again.host(), dweights.host()));
  }
}

TEST_CASE("state_readout on CUDA names shapes that do not fit", "[state_readout][cuda]") {
  const CudaArray<float> data(64);
  CHECK_THROWS_WITH(
      kernels::cuda::state_readout_forward(gpu(), data.view(2, 3, 4), data.cview(2, 4, 2), data.cview(2, 4, 2)),
      "state_readout_forward: y must have shape (2, 2, 4), found (2, 3, 4)");
}

}  // namespace blockstate::test
