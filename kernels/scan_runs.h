// SPDX-License-Identifier: Apache-2.0
// Where records start and where padding lies, for the kernels that walk time in tiles.
#pragma once

#include <cstdint>

#include "core/base/view.h"

namespace blockstate::kernels {

/// Neighbouring steps [begin, end) of one tile that belong to one record. `starts` is set where the first of them is a
/// record's first step: what came before does not count.
struct ScanRun {
  int64_t begin;
  int64_t end;
  bool starts;
};

/// The runs of the steps [t0, t0 + steps) of batch row b, in order; steps between them are padding. `runs` has room for
/// `steps` of them. Without positions there is one run. Returns their number.
inline int64_t find_runs(View<const int64_t, 2> position, int64_t b, int64_t t0, int64_t steps, ScanRun* runs) {
  if (!position) {
    runs[0] = {0, steps, false};
    return 1;
  }
  int64_t count = 0;
  bool open = false;
  for (int64_t t = 0; t < steps; ++t) {
    const int64_t at = position(b, t0 + t);
    if (at < 0) {
      open = false;
      continue;
    }
    if (!open || at == 0) {
      runs[count++] = {t, t + 1, at == 0};
    } else {
      runs[count - 1].end = t + 1;
    }
    open = true;
  }
  return count;
}

}  // namespace blockstate::kernels
