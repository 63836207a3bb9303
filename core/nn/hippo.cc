// SPDX-License-Identifier: Apache-2.0
#include "core/nn/hippo.h"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <numbers>

#include "core/base/check.h"

namespace blockstate::nn {

DiagonalHippo hippo_legs(int64_t N) {
  require(N >= 2 && N % 2 == 0, "HiPPO-LegS needs an even state size of at least 2, found ", N);
  using Complex = std::complex<double>;
  Eigen::MatrixXd skew(N, N);
  Eigen::VectorXd b(N);
  for (int64_t n = 0; n < N; ++n) {
    b(n) = std::sqrt(2.0 * n + 1);
    for (int64_t k = 0; k < N; ++k) {
      // A + P P^T + 1/2 I with P_n = sqrt(n + 1/2): the lower triangle of A is halved, the upper filled in.
      const double magnitude = 0.5 * std::sqrt((2.0 * n + 1) * (2.0 * k + 1));
      skew(n, k) = n > k ? -magnitude : (n < k ? magnitude : 0);
    }
  }
  // -i * skew is Hermitian: its eigenvalues w are exact to rounding where a general solver would lose digits.
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXcd> solver(Complex(0, -1) * skew.cast<Complex>());
  DiagonalHippo result;
  for (int64_t i = 0; i < N; ++i) {
    if (solver.eigenvalues()(i) > 0) {
      result.eigenvalues.emplace_back(-0.5, solver.eigenvalues()(i));
      result.B.push_back(solver.eigenvectors().col(i).dot(b.cast<Complex>()));
    }
  }
  return result;
}

std::vector<std::complex<double>> s4d_poles(const std::string& name, int64_t N) {
  if (name == "legs") {
    return hippo_legs(N).eigenvalues;
  }
  require(N >= 2 && N % 2 == 0, "S4D needs an even state size of at least 2, found ", N);
  std::vector<std::complex<double>> poles;
  for (int64_t n = 0; n < N / 2; ++n) {
    const double size = static_cast<double>(N);
    if (name == "lin") {
      poles.emplace_back(-0.5, std::numbers::pi * static_cast<double>(n));
    } else if (name == "inv") {
      poles.emplace_back(-0.5, size / std::numbers::pi * (size / (2.0 * static_cast<double>(n) + 1) - 1));
    } else {
      require(name == "real", "S4D initialisation \"", name, "\" is not known; choose legs, inv, lin or real");
      poles.emplace_back(-static_cast<double>(n + 1), 0);
    }
  }
  return poles;
}

}  // namespace blockstate::nn
