// SPDX-License-Identifier: Apache-2.0
#include "kernels/scan_windows_cpu.h"
#include "kernels/selective_scan_states_check.h"

namespace blockstate::kernels::cpu {

template <class T>
void selective_scan_states_forward(const SelectiveScanStatesForward<T>& args) {
  check_selective_scan_states(args, kScanCheckpoint);
  const int64_t batch = args.u.size[0], width = args.u.size[2];
  std::vector<T> outputs(static_cast<size_t>(batch * args.windows.longest() * width));
  scan_in_order<T, 3>(args.windows, args.states, args.final, args.initial,
                      [&](const WindowGroup& group, const View<const T, 3>& before, const View<T, 3>& after) {
                        SelectiveScanForward<T> scan = scan_of(args, group);
                        scan.y = make_view(outputs.data(), batch, group.steps, width);
                        scan.initial = before;
                        scan.final = after;
                        scan.checkpoint = checkpoint_of(args.checkpoint, group, kScanCheckpoint);
                        selective_scan_forward(scan);
                      });
}

template <class T>
void selective_scan_states_backward(const SelectiveScanStatesBackward<T>& args) {
  check_selective_scan_states(args, kScanCheckpoint);
  const SelectiveScanStatesForward<T>& f = args.forward;
  const int64_t batch = f.u.size[0], width = f.u.size[2], states = f.A.size[1];
  std::vector<T> zeros(static_cast<size_t>(width)), dC(static_cast<size_t>(batch * f.windows.longest() * states));
  scan_back_in_order<T, 3>(f.windows, {batch, width, states}, args.dstates, args.dfinal, args.dinitial,
                           [&](const WindowGroup& group, const View<T, 3>& after, const View<T, 3>& before) {
                             SelectiveScanBackward<T> scan;
                             scan.forward = scan_of(f, group);
                             scan.forward.checkpoint = checkpoint_of(f.checkpoint, group, kScanCheckpoint);
                             scan.du = group.steps_of(args.du);
                             scan.ddelta = group.steps_of(args.ddelta);
                             scan.dA = args.dA;
                             scan.dB = group.steps_of(args.dB);
                             scan.dC = make_view(dC.data(), batch, group.steps, states);
                             scan.ddelta_bias = args.ddelta_bias;
                             scan.dy = {zeros.data(), {batch, group.steps, width}, {0, 0, 1}};
                             scan.dfinal = after;
                             scan.dinitial = before;
                             selective_scan_backward(scan);
                           });
}

#define BLOCKSTATE_INSTANTIATE(T)                                                            \
  template void selective_scan_states_forward<T>(const SelectiveScanStatesForward<T>& args); \
  template void selective_scan_states_backward<T>(const SelectiveScanStatesBackward<T>& args);
BLOCKSTATE_INSTANTIATE(float)
BLOCKSTATE_INSTANTIATE(double)
#undef BLOCKSTATE_INSTANTIATE

}  // namespace blockstate::kernels::cpu
