// SPDX-License-Identifier: Apache-2.0
#include "kernels/diagonal_scan_check.h"
#include "kernels/diagonal_scan_cuda.cuh"

namespace blockstate::kernels::cuda {

template <class T>
void diagonal_scan_forward(const Exec& exec, const DiagonalScanForward<T, float>& args) {
  check_diagonal_scan(args, kDiagonalCheckpoint);
  diagonal_scan_forward_direct(exec, args);
}

template void diagonal_scan_forward<float>(const Exec&, const DiagonalScanForward<float, float>&);
template void diagonal_scan_forward<BFloat16>(const Exec&, const DiagonalScanForward<BFloat16, float>&);

}  // namespace blockstate::kernels::cuda
