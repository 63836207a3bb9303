// SPDX-License-Identifier: Apache-2.0
// Random scans whose states at window ends are asked for, run by their op, or window by window as plain scans.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "core/autograd/ops.h"
#include "tests/support/fill.h"

namespace blockstate::test {

struct StatesCase {
  bool selective = true;  ///< or diagonal
  int64_t B = 1, L = 1, D = 1, N = 1;
  int64_t first = 1, window = 1;
  bool packed = false;  ///< record starts and padding
  bool initial = true;

  std::string text() const {
    return join(selective ? "selective" : "diagonal", " B", B, " L", L, " D", D, " N", N, " first ", first, " window ",
                window, packed ? " packed" : "", initial ? "" : " from zero");
  }
};

/// Outputs, then the gradients of all inputs, for fixed random gradients of the outputs.
struct StatesResult {
  std::vector<std::string> names;
  std::vector<std::vector<double>> values;
};

/// `by_windows`: one plain scan after the other, which share nothing with the op but the plain scan's kernel.
inline StatesResult run_states(const StatesCase& it, DType activations, Device device, bool by_windows = false,
                               bool rounded = false) {
  const auto [selective, B, L, D, N, first, window, packed, initial] = it;
  const DType exact = activations == DType::kBFloat16 ? DType::kFloat32 : activations;
  std::vector<std::string> names;
  std::vector<Variable> leaves;
  const auto leaf = [&](const std::string& name, const Shape& shape, const std::vector<double>& values,
                        bool activation) {
    Tensor tensor = Tensor::from(shape, values);
    if (activation && rounded) {
      tensor = tensor.to(DType::kFloat32).to(DType::kBFloat16).to(DType::kFloat32).to(DType::kFloat64);
    }
    tensor = tensor.to(DType::kFloat32).to(activation ? activations : exact).to(device);
    names.push_back("d" + name);
    leaves.emplace_back(tensor, true);
    return leaves.back();
  };
  const Variable u = leaf("u", {B, L, D}, shared_normal(1, B * L * D), true);
  Variable delta, A, b, bias, h;
  Shape state = {D, N};
  if (selective) {
    delta = leaf("delta", {B, L, D}, shared_normal(2, B * L * D, 0.5, -1.5), true);
    A = leaf("A", {D, N}, random_uniform<double>(3, D * N, -3, -0.02), false);
    b = leaf("B", {B, L, N}, shared_normal(4, B * L * N), true);
    bias = leaf("delta_bias", {D}, shared_normal(5, D, 0.3, -1), false);
  } else {
    state = {D, N, 2};
    std::vector<double> poles;
    const std::vector<double> decay = random_uniform<double>(3, D * N, 1e-3, 0.5);
    const std::vector<double> turn = random_uniform<double>(4, D * N, 0, 3);
    for (size_t i = 0; i < decay.size(); ++i) {
      poles.push_back(std::exp(-decay[i]) * std::cos(turn[i]));
      poles.push_back(std::exp(-decay[i]) * std::sin(turn[i]));
    }
    A = leaf("a", state, poles, false);
  }
  Shape before = state;
  before.insert(before.begin(), B);
  if (initial) {
    h = leaf("initial", before, shared_normal(6, element_count(before)), false);
  }
  Tensor position;
  if (packed) {
    std::vector<int64_t> at;
    const std::vector<int64_t> dice = random_ids(7, B * L, 0, 40);
    for (int64_t i = 0; i < B * L; ++i) {
      const int64_t last = i % L == 0 ? 5 : at.back();
      const bool pads = last < 0 ? dice[static_cast<size_t>(i)] > 4 : dice[static_cast<size_t>(i)] == 1;
      at.push_back(pads ? -1 : last < 0 || dice[static_cast<size_t>(i)] == 2 ? 0 : last + 1);
    }
    position = Tensor::from<int64_t>({B, L}, at).to(device);
  }
  std::vector<Variable> outputs;
  if (!by_windows) {
    const ops::States states =
        selective ? ops::selective_scan_states({u, delta, A, b, {}, {}, {}, bias, h}, position, first, window)
                  : ops::diagonal_scan_states(u, A, h, position, first, window);
    outputs = {states.at_ends, states.final};
  } else {
    std::vector<Variable> ends;
    for (int64_t begin = 0, end = std::min(first, L); begin < L; begin = end, end = std::min(L, end + window)) {
      const auto cut = [&](const Variable& x) { return ops::slice(x, 1, begin, end); };
      const Tensor at = packed ? position.slice(1, begin, end) : Tensor();
      h = selective ? ops::selective_scan({cut(u), cut(delta), A, cut(b), cut(b), {}, {}, bias, h}, at, true).state
                    : ops::diagonal_scan(cut(u), A, A, {}, h, at, true).state;
      if ((end - first) % window == 0 && end >= first) {
        Shape one = before;
        one.insert(one.begin() + 1, 1);
        ends.push_back(ops::reshape(h, one));
      }
    }
    Shape none = before;
    none.insert(none.begin() + 1, 0);
    outputs = {ends.empty() ? Variable(Tensor::empty(none, exact, device)) : ops::concat(ends, 1), h};
  }
  StatesResult result{{"states", "final"}, {}};
  std::vector<Tensor> grads;
  std::vector<Variable> roots;
  const auto values_of = [](const Tensor& tensor) {
    const Tensor doubles = tensor.to(Device{}).to(DType::kFloat32).to(DType::kFloat64).packed();
    const Tensor exactly = tensor.dtype() == DType::kFloat64 ? tensor.packed() : doubles;
    return std::vector<double>(exactly.data<double>(), exactly.data<double>() + exactly.elements());
  };
  for (size_t i = 0; i < outputs.size(); ++i) {
    const int64_t count = outputs[i].value().elements();
    result.values.push_back(values_of(outputs[i].value()));
    if (count > 0) {
      roots.push_back(outputs[i]);
      grads.push_back(
          Tensor::from(outputs[i].shape(), shared_normal(20 + i, count)).to(DType::kFloat32).to(exact).to(device));
    }
  }
  backward(roots, grads);
  for (size_t i = 0; i < leaves.size(); ++i) {
    result.names.push_back(names[i]);
    result.values.push_back(leaves[i].grad().defined() ? values_of(leaves[i].grad()) : std::vector<double>());
  }
  return result;
}

}  // namespace blockstate::test
