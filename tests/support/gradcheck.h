// SPDX-License-Identifier: Apache-2.0
// Analytic gradients against central differences in double, over any callable.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "tests/support/compare.h"
#include "tests/support/tolerances.h"

namespace blockstate::test {

/// One input of the function: its values (perturbed in place and restored) and the gradient claimed for them.
struct GradientInput {
  std::string name;
  std::vector<double>* value;
  const std::vector<double>* analytic;
};

/// Numeric gradient of `function` for every element of `value`, by the five-point central difference: error of order
/// step^4, so that rounding (about 1e-13 * |f| at step 1e-3) is what remains.
inline std::vector<double> numeric_gradient(std::vector<double>& value, const std::function<double()>& function,
                                            double step = 1e-3) {
  std::vector<double> gradient;
  gradient.reserve(value.size());
  for (double& x : value) {
    const double saved = x;
    const auto at = [&](double shift) {
      x = saved + shift;
      return function();
    };
    const double near = at(step) - at(-step);
    const double far = at(2 * step) - at(-2 * step);
    x = saved;
    gradient.push_back((8 * near - far) / (12 * step));
  }
  return gradient;
}

/// Checks every element of every input. `function` reads the values through the vectors themselves and returns the
/// scalar whose gradients are claimed. The text names the input, the index, the analytic and the numeric value.
inline Comparison gradcheck(const std::vector<GradientInput>& inputs, const std::function<double()>& function,
                            Tolerance tolerance = kGradient, double step = 1e-3) {
  Comparison all;
  all.text = "gradients agree:";
  for (const GradientInput& input : inputs) {
    if (input.analytic->size() != input.value->size()) {
      all.passed = false;
      all.text = join("gradient of ", input.name, " has ", input.analytic->size(), " elements, expected ",
                      input.value->size());
      return all;
    }
    const std::vector<double> numeric = numeric_gradient(*input.value, function, step);
    const Comparison one = compare(input.name, *input.analytic, numeric, tolerance);
    all.count += one.count;
    all.bad += one.bad;
    if (!one.passed) {
      if (all.passed) {
        all.first_bad = one.first_bad;
        all.text = join("analytic against numeric gradient: ", one.text);
      } else {
        all.text += join("; ", one.text);
      }
      all.passed = false;
    } else if (all.passed) {
      all.text += join(" ", one.text, ";");
    }
  }
  return all;
}

}  // namespace blockstate::test
