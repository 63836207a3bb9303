// SPDX-License-Identifier: Apache-2.0
// HiPPO matrices in diagonal form, in double. Gu et al. 2022 (arXiv 2206.11893, 2206.12037).
#pragma once

#include <complex>
#include <cstdint>
#include <string>
#include <vector>

namespace blockstate::nn {

/// The N/2 eigenvalues of one imaginary sign (here positive, ascending), and B in that basis.
struct DiagonalHippo {
  std::vector<std::complex<double>> eigenvalues;
  std::vector<std::complex<double>> B;
};

/// HiPPO-LegS: A + P P^T = -1/2 I + skew, so the eigenvalues are -1/2 + i w. N even.
DiagonalHippo hippo_legs(int64_t N);

/// Initial poles of an S4D layer, N/2 of them: "legs", "inv", "lin" or "real".
std::vector<std::complex<double>> s4d_poles(const std::string& name, int64_t N);

}  // namespace blockstate::nn
