// SPDX-License-Identifier: Apache-2.0
// Shapes of the cross entropy, checked once a call. Targets are values, not shapes: the CPU checks them.
#pragma once

#include <cstdint>

#include "core/base/check.h"
#include "kernels/cross_entropy.h"

namespace blockstate::kernels {

template <class T, class P>
void check_logits(const char* op, View<const T, 2> logits, View<const int64_t, 1> targets, P label_smoothing) {
  const int64_t rows = logits.size[0], classes = logits.size[1];
  require(classes <= 1 || logits.stride[1] == 1, op, ": the last stride of logits must be 1, found ", logits.stride[1]);
  require(targets.size[0] == rows, op, ": logits has ", rows, " rows, targets ", targets.size[0]);
  require(label_smoothing >= 0 && label_smoothing <= 1, op, ": label_smoothing must be in [0, 1], found ",
          static_cast<double>(label_smoothing));
}

template <class T, class P>
void check_cross_entropy(const CrossEntropyForward<T, P>& args) {
  check_logits("cross_entropy_forward", args.logits, args.targets, args.label_smoothing);
  const int64_t rows = args.logits.size[0];
  require(args.loss.size[0] == rows && args.log_sum_exp.size[0] == rows, "cross_entropy_forward: logits has ", rows,
          " rows, loss ", args.loss.size[0], ", log_sum_exp ", args.log_sum_exp.size[0]);
}

template <class T, class P>
void check_cross_entropy(const CrossEntropyBackward<T, P>& args) {
  check_logits("cross_entropy_backward", args.logits, args.targets, args.label_smoothing);
  const int64_t rows = args.logits.size[0], classes = args.logits.size[1];
  require(
      args.dlogits.size[0] == rows && args.dlogits.size[1] == classes && (classes <= 1 || args.dlogits.stride[1] == 1),
      "cross_entropy_backward: dlogits is (", args.dlogits.size[0], ", ", args.dlogits.size[1], ") with last stride ",
      args.dlogits.stride[1], ", wanted (", rows, ", ", classes, ") with 1");
  require(args.dloss.size[0] == rows && args.log_sum_exp.size[0] == rows, "cross_entropy_backward: logits has ", rows,
          " rows, dloss ", args.dloss.size[0], ", log_sum_exp ", args.log_sum_exp.size[0]);
}

}  // namespace blockstate::kernels
