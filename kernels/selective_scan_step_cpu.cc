// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "kernels/gemm.h"
#include "kernels/selective_scan_step_check.h"

namespace blockstate::kernels::cpu {

template <class T>
void selective_scan_step(const SelectiveScanStep<T>& args) {
  check_selective_scan_step(args);
  const int64_t batch = args.scan.u.size[0], width = args.scan.u.size[2];
  std::vector<T> delta(static_cast<size_t>(batch * width));
  Gemm<T> product;
  product.c = make_view(delta.data(), batch, width);
  product.a = args.low;
  product.b = args.delta_weight;
  product.transpose_b = true;
  gemm(product);
  SelectiveScanForward<T> scan = args.scan;
  scan.delta = make_view<const T>(delta.data(), batch, int64_t{1}, width);
  selective_scan_forward(scan);
}

template void selective_scan_step<float>(const SelectiveScanStep<float>&);
template void selective_scan_step<double>(const SelectiveScanStep<double>&);

}  // namespace blockstate::kernels::cpu
