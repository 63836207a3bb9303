// SPDX-License-Identifier: Apache-2.0
#include "kernels/causal_conv1d_step.cuh"
#include "kernels/gemm.h"
#include "kernels/gemm_few_rows.cuh"
#include "kernels/projected_conv_step_check.h"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kTaps = 4;

/// What becomes of the product's sums: p, and for the first channels the convolution.
struct ConvResults {
  using Prepared = ConvStep<BFloat16, kTaps, 1>;
  View<BFloat16, 2> p;
  CausalConv1dForward<BFloat16, float> conv;

  __device__ void prefetch(int64_t m, int64_t n) const {
    if (n < conv.weight.size[0]) {
      prefetch_to_l2(&conv.weight(n, 0));
      if (conv.initial) {
        for (int64_t k = 0; k < conv.initial.size[1]; ++k) {
          prefetch_to_l2(&conv.initial(m, k, n));
        }
      }
    }
  }
  __device__ Prepared prepare(int64_t m, int64_t n) const {
    Prepared step = {};
    if (n < conv.weight.size[0]) {
      step.load(conv, m, n);
    }
    return step;
  }
  __device__ void finish(Prepared& step, int64_t m, int64_t n, float sum) const {
    const BFloat16 rounded = from_float<BFloat16>(sum);
    p.data[m * p.stride[0] + n] = rounded;
    if (n < conv.weight.size[0]) {
      const float x[1] = {to_float(rounded)};
      step.finish(conv, m, n, x);
    }
  }
};

bool serves(const ProjectedConvStep<BFloat16, float>& args) {
  return has_few_rows(args.input, args.weight) && args.conv.weight.size[1] <= kTaps;
}

}  // namespace

template <class T>
void projected_conv_step(const Exec& exec, const ProjectedConvStep<T, float>& args) {
  check_projected_conv_step(args);
  if constexpr (std::is_same_v<T, BFloat16>) {
    if (args.p.elements() > 0 && args.input.size[1] > 0 && serves(args)) {
      few_rows(exec, "projected_conv_step", args.input, args.weight, ConvResults{args.p, args.conv});
      return;
    }
  }
  gemm<T, T>(exec, product_of(args));
  causal_conv1d_forward<T>(exec, conv_of(args));
}

template void projected_conv_step<float>(const Exec&, const ProjectedConvStep<float, float>&);
template void projected_conv_step<BFloat16>(const Exec&, const ProjectedConvStep<BFloat16, float>&);

}  // namespace blockstate::kernels::cuda
