// SPDX-License-Identifier: Apache-2.0
// Shapes of the functions of elementwise.h.
#pragma once

#include "core/base/check.h"
#include "kernels/elementwise.h"

namespace blockstate::kernels {

template <class T, class U>
void check_pair(const char* op, const char* name, View<T, 2> view, const char* like_name, View<U, 2> like) {
  require(view.size[0] == like.size[0] && view.size[1] == like.size[1], op, ": ", name, " is (", view.size[0], ", ",
          view.size[1], "), ", like_name, " is (", like.size[0], ", ", like.size[1], ")");
  require((view.size[1] <= 1 || view.stride[1] == 1) && (like.size[1] <= 1 || like.stride[1] == 1), op,
          ": the last stride of ", name, " and ", like_name, " must be 1, found ", view.stride[1], " and ",
          like.stride[1]);
}

template <class T, class P>
void check_column_sums(View<P, 1> sum, View<const T, 2> x) {
  require(sum.size[0] == x.size[1], "add_column_sums: sum holds ", sum.size[0], " elements, x has ", x.size[1],
          " columns");
  require(x.size[1] <= 1 || x.stride[1] == 1, "add_column_sums: the last stride of x must be 1, found ", x.stride[1]);
}

template <class T>
void check_dropout(const Dropout<T>& args) {
  const int64_t rows = args.x.size[0], columns = args.x.size[1];
  require(args.rate >= 0 && args.rate < 1, "dropout: rate must be in [0, 1), found ", double{args.rate});
  require(args.y.size[0] == rows && args.y.size[1] == columns, "dropout: y is (", args.y.size[0], ", ", args.y.size[1],
          "), x is (", rows, ", ", columns, ")");
  require(columns <= 1 || (args.y.stride[1] == 1 && args.x.stride[1] == 1),
          "dropout: the last stride of y and x must be 1, found ", args.y.stride[1], " and ", args.x.stride[1]);
  require(args.record.size[0] == rows && args.position.size[0] == rows, "dropout: x has ", rows, " rows, record ",
          args.record.size[0], ", position ", args.position.size[0]);
}

}  // namespace blockstate::kernels
