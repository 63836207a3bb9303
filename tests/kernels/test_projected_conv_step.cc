// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "kernels/projected_conv_step.h"
#include "tests/kernels/projected_conv_step_case.h"
#include "tests/support/compare.h"

namespace blockstate::test {

TEMPLATE_TEST_CASE("projected_conv_step equals the product and the naive convolution", "[causal_conv1d]", float,
                   double) {
  for (const int64_t K : {1, 2, 4, 7}) {
    for (const bool packed : {false, true}) {
      CAPTURE(K, packed);
      ProjectedInputs<TestType> in = random_projected<TestType>(10, 3, 20, 9, 5, K);
      if (packed) {
        in.conv.position = {0, -1, 2};
      }
      std::vector<TestType> p(3 * 14), y(3 * 9), final(static_cast<size_t>(3 * (K - 1) * 9));
      kernels::ProjectedConvStep<TestType> args;
      args.p = make_view(p.data(), 3, 14);
      args.input = make_view(in.input.data(), 3, 20);
      args.weight = make_view(in.weight.data(), 14, 20);
      args.conv.y = make_view(y.data(), 3, 1, 9);
      args.conv.final = make_view(final.data(), 3, K - 1, 9);
      args.conv.weight = make_view(in.conv.weight.data(), 9, K);
      args.conv.bias = make_view(in.conv.bias.data(), 9);
      args.conv.initial = make_view(in.conv.initial.data(), 3, K - 1, 9);
      if (packed) {
        args.conv.position = make_view(in.conv.position.data(), 3, 1);
      }
      kernels::cpu::projected_conv_step(args);
      const std::vector<double> expected = naive_projection(in);
      CHECK(compare("p", p, expected, tolerance_of<TestType>()));
      ConvInputs<double> conv;
      conv.B = 3, conv.D = 9, conv.K = K, conv.position = in.conv.position;
      conv.x = convolved_channels(in, expected);
      conv.weight = converted<double>(in.conv.weight), conv.bias = converted<double>(in.conv.bias);
      conv.initial = converted<double>(in.conv.initial);
      const ConvResults<double> wanted = naive_causal_conv1d(conv);
      CHECK(compare("y", y, wanted.y, tolerance_of<TestType>()));
      CHECK(compare("final", final, wanted.final, tolerance_of<TestType>()));
    }
  }
}

TEST_CASE("projected_conv_step names what does not fit", "[causal_conv1d]") {
  std::vector<float> values(100);
  kernels::ProjectedConvStep<float> args;
  args.p = make_view(values.data(), 2, 4);
  args.input = make_view(values.data(), 2, 5);
  args.weight = make_view(values.data(), 4, 6);
  CHECK_THROWS_WITH(kernels::cpu::projected_conv_step(args),
                    "projected_conv_step: weight must have shape (4, 5), found (4, 6)");
  args.weight = make_view(values.data(), 4, 5);
  args.conv.weight = make_view(values.data(), 5, 4);
  CHECK_THROWS_WITH(kernels::cpu::projected_conv_step(args),
                    "projected_conv_step: a convolution of 5 channels, the projection has 4");
}

}  // namespace blockstate::test
