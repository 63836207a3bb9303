// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/base/check.h"
#include "kernels/embedding.h"

namespace blockstate::kernels {

/// y (R, D) and table (V, D): the values or their gradients.
template <class T, class P>
void check_embedding(const char* op, View<const int64_t, 1> ids, View<T, 2> y, View<P, 2> table) {
  require(ids.size[0] == y.size[0] && y.size[1] == table.size[1], op, ": ids holds ", ids.size[0], ", rows are (",
          y.size[0], ", ", y.size[1], "), the table is (", table.size[0], ", ", table.size[1], ")");
  require(y.size[1] <= 1 || (y.stride[1] == 1 && table.stride[1] == 1), op, ": the last stride must be 1, found ",
          y.stride[1], " for the rows and ", table.stride[1], " for the table");
}

}  // namespace blockstate::kernels
