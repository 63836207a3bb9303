// SPDX-License-Identifier: Apache-2.0
#include "kernels/diagonal_scan_check.h"
#include "kernels/diagonal_scan_cuda.cuh"

namespace blockstate::kernels::cuda {

template <class T>
void diagonal_scan_backward(const Exec& exec, const DiagonalScanBackward<T, float>& args) {
  check_diagonal_scan(args, kDiagonalCheckpoint);
  diagonal_scan_backward_direct(exec, args);
}

template void diagonal_scan_backward<float>(const Exec&, const DiagonalScanBackward<float, float>&);
template void diagonal_scan_backward<BFloat16>(const Exec&, const DiagonalScanBackward<BFloat16, float>&);

}  // namespace blockstate::kernels::cuda
