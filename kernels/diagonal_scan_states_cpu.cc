// SPDX-License-Identifier: Apache-2.0
#include "kernels/diagonal_scan_states_check.h"
#include "kernels/scan_windows_cpu.h"

namespace blockstate::kernels::cpu {

template <class T>
void diagonal_scan_states_forward(const DiagonalScanStatesForward<T>& args) {
  check_diagonal_scan_states(args, kDiagonalCheckpoint);
  const int64_t batch = args.u.size[0], width = args.u.size[2];
  std::vector<T> outputs(static_cast<size_t>(batch * args.windows.longest() * width));
  scan_in_order<T, 4>(args.windows, args.states, args.final, args.initial,
                      [&](const WindowGroup& group, const View<const T, 4>& before, const View<T, 4>& after) {
                        DiagonalScanForward<T> scan = scan_of(args, group);
                        scan.y = make_view(outputs.data(), batch, group.steps, width);
                        scan.initial = before;
                        scan.final = after;
                        scan.checkpoint = checkpoint_of(args.checkpoint, group, kDiagonalCheckpoint);
                        diagonal_scan_forward(scan);
                      });
}

template <class T>
void diagonal_scan_states_backward(const DiagonalScanStatesBackward<T>& args) {
  check_diagonal_scan_states(args, kDiagonalCheckpoint);
  const DiagonalScanStatesForward<T>& f = args.forward;
  const int64_t batch = f.u.size[0], width = f.u.size[2], states = f.a.size[1];
  std::vector<T> zeros(static_cast<size_t>(width)), dc(static_cast<size_t>(2 * width * states));
  scan_back_in_order<T, 4>(f.windows, {batch, width, states, 2}, args.dstates, args.dfinal, args.dinitial,
                           [&](const WindowGroup& group, const View<T, 4>& after, const View<T, 4>& before) {
                             DiagonalScanBackward<T> scan;
                             scan.forward = scan_of(f, group);
                             scan.forward.checkpoint = checkpoint_of(f.checkpoint, group, kDiagonalCheckpoint);
                             scan.du = group.steps_of(args.du);
                             scan.da = args.da;
                             scan.dc = make_view(dc.data(), width, states, int64_t{2});
                             scan.dy = {zeros.data(), {batch, group.steps, width}, {0, 0, 1}};
                             scan.dfinal = after;
                             scan.dinitial = before;
                             diagonal_scan_backward(scan);
                           });
}

#define BLOCKSTATE_INSTANTIATE(T)                                                          \
  template void diagonal_scan_states_forward<T>(const DiagonalScanStatesForward<T>& args); \
  template void diagonal_scan_states_backward<T>(const DiagonalScanStatesBackward<T>& args);
BLOCKSTATE_INSTANTIATE(float)
BLOCKSTATE_INSTANTIATE(double)
#undef BLOCKSTATE_INSTANTIATE

}  // namespace blockstate::kernels::cpu
