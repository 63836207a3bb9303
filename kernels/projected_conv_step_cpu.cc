// SPDX-License-Identifier: Apache-2.0
#include "kernels/projected_conv_step_check.h"

namespace blockstate::kernels::cpu {

template <class T>
void projected_conv_step(const ProjectedConvStep<T>& args) {
  check_projected_conv_step(args);
  gemm(product_of(args));
  causal_conv1d_forward(conv_of(args));
}

template void projected_conv_step<float>(const ProjectedConvStep<float>&);
template void projected_conv_step<double>(const ProjectedConvStep<double>&);

}  // namespace blockstate::kernels::cpu
