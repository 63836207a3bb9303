// SPDX-License-Identifier: Apache-2.0
#include "kernels/diagonal_scan_check.h"
#include "kernels/diagonal_scan_cuda.cuh"

namespace blockstate::kernels::cuda {

template <class T>
void diagonal_scan_forward(const Exec& exec, const DiagonalScanForward<T, float>& args) {
  check_diagonal_scan(args, kDiagonalCheckpoint);
  const int64_t batch = args.u.size[0], length = args.u.size[1], channels = args.u.size[2];
  if (batch * channels == 0 || !fits_blocks(exec, length, args.a.size[1])) {
    diagonal_scan_forward_direct(exec, args);
    return;
  }
  BlockScan<T> scan{};
  scan.in = args.u;
  scan.out = args.y;
  scan.a = args.a;
  scan.c = args.c;
  scan.D = args.D;
  scan.initial = args.initial;
  scan.final = args.final;
  scan.checkpoint = args.checkpoint;
  scan.segments = plan_segments(exec, batch, length, channels);
  const Scratch<float2> carry(exec, carry_size(batch, channels, scan.segments));
  scan.carry = carry.get();
  run_block_scan(exec, scan, args.position, false);
}

template void diagonal_scan_forward<float>(const Exec&, const DiagonalScanForward<float, float>&);
template void diagonal_scan_forward<BFloat16>(const Exec&, const DiagonalScanForward<BFloat16, float>&);

}  // namespace blockstate::kernels::cuda
