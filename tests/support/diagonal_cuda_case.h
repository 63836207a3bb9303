// SPDX-License-Identifier: Apache-2.0
// A diagonal scan run on a GPU: uploads a DiagonalCase, runs it and brings the results back.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/diagonal_scan.h"
#include "tests/support/cuda_view.h"
#include "tests/support/diagonal_case.h"

namespace blockstate::test {

/// How activations lie in memory: `gap` elements after each row of channels, `offset` before the first.
struct Layout {
  int64_t gap = 0;
  int64_t offset = 0;
};

struct DiagonalResults {
  std::vector<float> y, final, checkpoint, du, da, dc, dD, dinitial;
};

/// What T can hold of the activations of a case.
template <class T>
DiagonalCase<float> rounded_case(DiagonalCase<float> one) {
  one.u = rounded_to<T>(one.u);
  one.dy = rounded_to<T>(one.dy);
  return one;
}

/// Runs forward and, unless `forward_only`, backward. Parameter gradients start from `start`.
template <class T>
DiagonalResults run_cuda(const DiagonalCase<float>& one, Layout layout = {}, bool forward_only = false,
                         float start = 0) {
  const auto [B, L, D, P] = one.shape;
  const int64_t tiles = (L + kernels::cuda::kDiagonalCheckpoint - 1) / kernels::cuda::kDiagonalCheckpoint;
  const auto placed = [&, B = B, L = L, D = D](const std::vector<float>& values) {
    return CudaView<T, 3>(values, {B, L, D}, layout.gap, layout.offset);
  };
  const CudaView<T, 3> u = placed(one.u), y = placed({}), dy = placed(one.dy), du = placed({});
  const CudaArray<float> a(one.a), c(one.c), skip(one.skip), initial(one.initial), dfinal(one.dfinal);
  const CudaArray<int64_t> position(one.position);
  const CudaArray<float> final(B * D * P * 2), dinitial(B * D * P * 2), checkpoint(B * tiles * P * 2 * D);
  const CudaArray<float> da(std::vector<float>(one.a.size(), start)), dc(std::vector<float>(one.a.size(), start));
  const CudaArray<float> dD(std::vector<float>(static_cast<size_t>(D), start));
  kernels::DiagonalScanForward<T, float> args;
  args.y = y.view();
  args.final = final.view(B, D, P, int64_t{2});
  args.checkpoint = checkpoint.view(B, tiles, P, int64_t{2}, D);
  args.u = u.view();
  args.a = a.cview(D, P, int64_t{2});
  args.c = c.cview(D, P, int64_t{2});
  if (!one.skip.empty()) {
    args.D = skip.cview(D);
  }
  if (!one.initial.empty()) {
    args.initial = initial.cview(B, D, P, int64_t{2});
  }
  if (!one.position.empty()) {
    args.position = position.cview(B, L);
  }
  kernels::cuda::diagonal_scan_forward(gpu(), args);
  DiagonalResults out;
  out.y = y.host();
  out.final = final.host();
  out.checkpoint = checkpoint.host();
  if (forward_only) {
    return out;
  }
  kernels::DiagonalScanBackward<T, float> back;
  back.forward = args;
  back.forward.y = {};
  back.forward.final = {};
  back.du = du.view();
  back.da = da.view(D, P, int64_t{2});
  back.dc = dc.view(D, P, int64_t{2});
  if (!one.skip.empty()) {
    back.dD = dD.view(D);
  }
  back.dinitial = dinitial.view(B, D, P, int64_t{2});
  back.dy = dy.view();
  if (!one.dfinal.empty()) {
    back.dfinal = dfinal.cview(B, D, P, int64_t{2});
  }
  kernels::cuda::diagonal_scan_backward(gpu(), back);
  out.du = du.host();
  out.da = da.host();
  out.dc = dc.host();
  out.dD = dD.host();
  out.dinitial = dinitial.host();
  return out;
}

inline DiagonalCase<double> in_double(const DiagonalCase<float>& from) {
  DiagonalCase<double> to({from.shape.B, 0, from.shape.D, from.shape.P}, 0);
  to.shape = from.shape;
  to.u = converted<double>(from.u);
  to.a = converted<double>(from.a);
  to.c = converted<double>(from.c);
  to.skip = converted<double>(from.skip);
  to.initial = converted<double>(from.initial);
  to.dy = converted<double>(from.dy);
  to.dfinal = converted<double>(from.dfinal);
  to.position = from.position;
  return to;
}

}  // namespace blockstate::test
