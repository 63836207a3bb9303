// SPDX-License-Identifier: Apache-2.0
// Random single steps whose delta is a product.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/support/fill.h"
#include "tests/support/naive_selective_scan.h"

namespace blockstate::test {

template <class T>
struct StepInputs {
  ScanInputs<T> scan;  ///< L = 1, without delta
  int64_t rank = 1;
  std::vector<T> low, weight;
};

/// `absent`: bits that leave out z, D, delta_bias, initial.
template <class T>
StepInputs<T> random_step(uint64_t key, int64_t B, int64_t D, int64_t N, int64_t rank, int absent = 0) {
  StepInputs<T> in;
  in.rank = rank;
  in.low = random_normal<T>(key + 1, B * rank);
  in.weight = random_normal<T>(key + 2, D * rank, 0.5);
  in.scan.size = {B, 1, D, N};
  in.scan.u = random_normal<T>(key + 3, B * D);
  in.scan.A = random_uniform<T>(key + 4, D * N, -4.0, -0.04);
  in.scan.B = random_normal<T>(key + 5, B * N);
  in.scan.C = random_normal<T>(key + 6, B * N);
  if ((absent & 1) == 0) {
    in.scan.z = random_normal<T>(key + 7, B * D);
  }
  if ((absent & 2) == 0) {
    in.scan.D = random_normal<T>(key + 8, D);
  }
  if ((absent & 4) == 0) {
    in.scan.bias = random_normal<T>(key + 9, D, 0.3, -0.5);
  }
  if ((absent & 8) == 0) {
    in.scan.initial = random_normal<T>(key + 10, B * D * N);
  }
  return in;
}

/// The scan with the product written out. `in` holds what the kernel sees, in double.
inline ScanResults<double> naive_step(const StepInputs<double>& in) {
  ScanInputs<double> scan = in.scan;
  scan.delta.assign(scan.u.size(), 0);
  for (int64_t b = 0; b < scan.size.B; ++b) {
    for (int64_t d = 0; d < scan.size.D; ++d) {
      for (int64_t r = 0; r < in.rank; ++r) {
        scan.delta[static_cast<size_t>(b * scan.size.D + d)] +=
            in.low[static_cast<size_t>(b * in.rank + r)] * in.weight[static_cast<size_t>(d * in.rank + r)];
      }
    }
  }
  return naive_selective_scan(scan);
}

}  // namespace blockstate::test
