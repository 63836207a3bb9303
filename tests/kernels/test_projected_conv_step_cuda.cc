// SPDX-License-Identifier: Apache-2.0
// The projection against sums in double, the convolution against the naive one of the projection as it was rounded.
#include <catch2/catch.hpp>

#include "kernels/projected_conv_step.h"
#include "tests/kernels/projected_conv_step_case.h"
#include "tests/support/cuda_view.h"

namespace blockstate::test {
namespace {

struct Outcome {
  std::vector<float> p, y, final;
};

template <class T>
Outcome run(const ProjectedInputs<float>& in, int64_t gap = 0, bool in_place = false) {
  const int64_t B = in.conv.B, D = in.conv.D, K = in.conv.K;
  const CudaView<T, 2> p({B, in.channels}, gap), input(in.input, {B, in.inputs}, gap);
  const CudaView<T, 2> weight(in.weight, {in.channels, in.inputs}, gap);
  const CudaView<T, 3> y({B, 1, D}, gap), initial(in.conv.initial, {B, K - 1, D}, gap), final({B, K - 1, D}, gap);
  const CudaArray<float> taps(in.conv.weight), bias(in.conv.bias);
  const CudaArray<int64_t> position(in.conv.position);
  kernels::ProjectedConvStep<T, float> args;
  args.p = p.view();
  args.input = input.cview();
  args.weight = weight.cview();
  args.conv.y = y.view();
  args.conv.final = in_place ? initial.view() : final.view();
  args.conv.weight = taps.cview(D, K);
  args.conv.silu = in.conv.silu;
  if (!in.conv.bias.empty()) {
    args.conv.bias = bias.cview(D);
  }
  if (!in.conv.initial.empty()) {
    args.conv.initial = initial.cview();
  }
  if (!in.conv.position.empty()) {
    args.conv.position = position.cview(B, 1);
  }
  kernels::cuda::projected_conv_step<T>(gpu(), args);
  return {p.host(), y.host(), in_place ? initial.host() : final.host()};
}

template <class T>
void check(ProjectedInputs<float> in, int64_t gap = 0) {
  for (std::vector<float>* values : {&in.input, &in.weight, &in.conv.initial}) {
    *values = rounded_to<T>(*values);
  }
  const Outcome found = run<T>(in, gap);
  const std::vector<double> p = naive_projection(in);
  CHECK(compare_twice_naive("p", found.p, p, rounded_to<T>(std::vector<float>(p.begin(), p.end())), 2e-6));
  ConvInputs<double> conv;
  conv.B = in.conv.B, conv.D = in.conv.D, conv.K = in.conv.K, conv.silu = in.conv.silu;
  conv.position = in.conv.position;
  conv.x = convolved_channels(in, converted<double>(found.p));
  conv.weight = converted<double>(in.conv.weight), conv.bias = converted<double>(in.conv.bias);
  conv.initial = converted<double>(in.conv.initial);
  const ConvResults<double> wanted = naive_causal_conv1d(conv);
  const std::vector<float> once = rounded_to<T>(std::vector<float>(wanted.y.begin(), wanted.y.end()));
  CHECK(compare_twice_naive("y", found.y, wanted.y, once, 1e-6));
  CHECK(compare("final", found.final, wanted.final, Tolerance{0, 0}));
  const Outcome again = run<T>(in, gap);
  CHECK(same_bits("y", again.y, found.y));
  CHECK(same_bits("final", again.final, found.final));
}

}  // namespace

TEMPLATE_TEST_CASE("projected_conv_step on a GPU equals the product and the naive convolution", "[cuda][causal_conv1d]",
                   float, BFloat16) {
  for (const int64_t K : {1, 2, 4, 5, 8}) {
    for (const int64_t B : {1, 3, 16, 17, 33}) {
      for (const int64_t inputs : {1, 8, 264}) {
        CAPTURE(K, B, inputs);
        ProjectedInputs<float> in = random_projected<float>(10, B, inputs, 37, inputs % 5, K);
        check<TestType>(in);
        for (int64_t b = 0; b < B; ++b) {
          in.conv.position.push_back(b % 5 - 1);
        }
        in.conv.silu = false;
        check<TestType>(in, 8);
        in.conv.bias.clear();
        in.conv.initial.clear();
        check<TestType>(in, 3);
      }
    }
  }
  check<TestType>(random_projected<float>(20, 1, 768, 1536, 1536));
  check<TestType>(random_projected<float>(30, 16, 768, 1536, 1536));
}

TEMPLATE_TEST_CASE("projected_conv_step on a GPU writes the new state over the old one", "[cuda][causal_conv1d]", float,
                   BFloat16) {
  const ProjectedInputs<float> in = random_projected<float>(40, 5, 64, 100, 28);
  const Outcome apart = run<TestType>(in), over = run<TestType>(in, 0, true);
  CHECK(same_bits("y", over.y, apart.y));
  CHECK(same_bits("final", over.final, apart.final));
  ProjectedInputs<float> other = in;
  other.input[3] += 1;
  CHECK_FALSE(same_bits("final", run<TestType>(other).final, apart.final));
}

}  // namespace blockstate::test
