// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/causal_conv1d_rows.h"
#include "kernels/gemm_check.h"
#include "kernels/projected_conv_step.h"

namespace blockstate::kernels {

/// The product that the step begins with.
template <class T, class P>
Gemm<T, T, P> product_of(const ProjectedConvStep<T, P>& args) {
  Gemm<T, T, P> product;
  product.c = args.p;
  product.a = args.input;
  product.b = args.weight;
  product.transpose_b = true;
  return product;
}

/// The convolution that follows, of p's first channels.
template <class T, class P>
CausalConv1dForward<T, P> conv_of(const ProjectedConvStep<T, P>& args) {
  CausalConv1dForward<T, P> conv = args.conv;
  conv.x.data = args.p.data;
  conv.x.size[0] = args.p.size[0], conv.x.size[1] = 1, conv.x.size[2] = conv.weight.size[0];
  conv.x.stride[0] = conv.x.stride[1] = args.p.stride[0], conv.x.stride[2] = args.p.stride[1];
  return conv;
}

template <class T, class P>
void check_projected_conv_step(const ProjectedConvStep<T, P>& args) {
  const char* op = "projected_conv_step";
  const int64_t batch = args.input.size[0], columns = args.weight.size[0];
  check_view(op, "p", args.p, {batch, columns});
  check_view(op, "weight", args.weight, {columns, args.input.size[1]});
  require(args.conv.weight.size[0] <= columns, op, ": a convolution of ", args.conv.weight.size[0],
          " channels, the projection has ", columns);
  require(!args.conv.x, op, " takes no x: it is the projection");
  check_gemm(product_of(args));
  check_causal_conv1d(conv_of(args));
}

}  // namespace blockstate::kernels
