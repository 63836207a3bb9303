// SPDX-License-Identifier: Apache-2.0
// Checks of a product, and its sizes.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/base/check.h"
#include "kernels/gemm.h"

namespace blockstate::kernels {

struct GemmSizes {
  int64_t m, n, k;
};

template <class T, class C, class P>
GemmSizes check_gemm(const Gemm<T, C, P>& args) {
  const GemmSizes sizes{args.c.size[0], args.c.size[1], args.a.size[args.transpose_a ? 0 : 1]};
  require(args.a.size[args.transpose_a ? 1 : 0] == sizes.m && args.b.size[args.transpose_b ? 1 : 0] == sizes.k &&
              args.b.size[args.transpose_b ? 0 : 1] == sizes.n,
          "gemm: shapes do not fit: c (", sizes.m, ", ", sizes.n, "), a (", args.a.size[0], ", ", args.a.size[1], ")",
          args.transpose_a ? " transposed" : "", ", b (", args.b.size[0], ", ", args.b.size[1], ")",
          args.transpose_b ? " transposed" : "");
  if (args.bias) {
    require(args.bias.size[0] == sizes.n && (sizes.n <= 1 || args.bias.stride[0] == 1), "gemm: bias must hold ",
            sizes.n, " elements one after the other, found ", args.bias.size[0], " with stride ", args.bias.stride[0]);
  }
  return sizes;
}

/// Elements from one row to the next, as BLAS wants it: rows of a single-row matrix have no stride of their own.
template <class T>
int64_t gemm_row_stride(const char* name, View<T, 2> view) {
  require(view.size[1] <= 1 || view.stride[1] == 1, "gemm: the last stride of ", name, " must be 1, found ",
          view.stride[1]);
  const int64_t minimum = std::max<int64_t>(1, view.size[1]);
  if (view.size[0] <= 1 || view.size[1] == 0) {
    return minimum;
  }
  require(view.stride[0] >= minimum, "gemm: the rows of ", name, " overlap: ", view.size[1], " columns, row stride ",
          view.stride[0]);
  return view.stride[0];
}

}  // namespace blockstate::kernels
