// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/selective_scan_check.h"
#include "kernels/selective_scan_step.h"

namespace blockstate::kernels {

template <class T, class P>
void check_selective_scan_step(const SelectiveScanStep<T, P>& args) {
  const char* op = "selective_scan_step";
  const int64_t batch = args.scan.u.size[0], width = args.scan.u.size[2], rank = args.low.size[1];
  require(args.scan.u.size[1] == 1, op, " makes one step, found ", args.scan.u.size[1]);
  require(!args.scan.delta && !args.scan.checkpoint, op, " takes no delta and keeps no checkpoint");
  check_view(op, "low", args.low, {batch, rank});
  check_view(op, "delta_weight", args.delta_weight, {width, rank});
  require(rank >= 1 && unit_stride(args.low) && unit_stride(args.delta_weight), op,
          " wants low and delta_weight of one column or more, side by side in memory");
  SelectiveScanForward<T, P> scan = args.scan;
  scan.delta = scan.u;  // of the shape that delta would have
  check_selective_scan(scan);
}

}  // namespace blockstate::kernels
