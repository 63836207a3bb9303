// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/adamw.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/guard_buffer.h"
#include "tests/support/sparse_buffer.h"
#include "tests/support/threads.h"

namespace blockstate::test {
namespace {

// A tensor with its optimiser state, and the same run through the formula in double.
template <class T>
struct Tracked {
  GuardBuffer<T, 1> p, m, v, g;
  std::vector<double> p64, m64, v64;
  double learning_rate, weight_decay;

  Tracked(uint64_t key, int64_t count, double rate, double decay)
      : p({count}),
        m({count}),
        v({count}),
        g({count}),
        m64(static_cast<size_t>(count)),
        v64(static_cast<size_t>(count)),
        learning_rate(rate),
        weight_decay(decay) {
    p.assign(random_normal<T>(key, count));
    m.assign(std::vector<T>(static_cast<size_t>(count)));
    v.assign(std::vector<T>(static_cast<size_t>(count)));
    p64 = converted<double>(p.elements());
  }

  kernels::AdamWTensor<T> tensor() {
    return {p.view().data, m.view().data, v.view().data, g.view().data, p.view().size[0], learning_rate, weight_decay};
  }

  void draw_gradient(uint64_t key) { g.assign(random_normal<T>(key, p.view().size[0], 0.3)); }

  void reference_step(const kernels::AdamWOptions& o) {
    const double t = static_cast<double>(o.step);
    for (size_t i = 0; i < p64.size(); ++i) {
      const double gradient = o.gradient_scale * g.view()(i);
      m64[i] = o.beta1 * m64[i] + (1 - o.beta1) * gradient;
      v64[i] = o.beta2 * v64[i] + (1 - o.beta2) * gradient * gradient;
      const double m_hat = m64[i] / (1 - std::pow(o.beta1, t));
      const double v_hat = v64[i] / (1 - std::pow(o.beta2, t));
      p64[i] -= learning_rate * (weight_decay * p64[i] + m_hat / (std::sqrt(v_hat) + o.epsilon));
    }
  }
};

}  // namespace

TEMPLATE_TEST_CASE("adamw follows the formula over several steps", "[adamw]", float, double) {
  using T = TestType;
  Tracked<T> large(1, 40009, 1e-3, 0.1), small(2, 3, 0.05, 0), one(3, 1, 0.1, 0.5), none(4, 0, 0.1, 0);
  const std::array<Tracked<T>*, 4> all{&large, &small, &one, &none};
  for (int64_t step = 1; step <= 7; ++step) {
    kernels::AdamWOptions options;
    options.step = step;
    options.gradient_scale = step == 3 ? 0.1 : 1;
    std::vector<kernels::AdamWTensor<T>> tensors;
    for (Tracked<T>* tracked : all) {
      tracked->draw_gradient(static_cast<uint64_t>(100 + step));
      tracked->reference_step(options);
      tensors.push_back(tracked->tensor());
    }
    kernels::cpu::adamw(tensors.data(), static_cast<int64_t>(tensors.size()), options);
  }
  for (Tracked<T>* tracked : all) {
    // m is a sum of terms of the order of 0.1 that may cancel; so is what was taken from p.
    const std::vector<double> unit(tracked->p64.size(), 1);
    CHECK(compare_scaled("m", tracked->m.view(), tracked->m64, unit, {tolerance_of<T>().rel / 10, 0}));
    CHECK(compare("v", tracked->v.view(), tracked->v64, tolerance_of<T>()));
    CHECK(compare("p", tracked->p.view(), tracked->p64, tolerance_of<T>()));
    CHECK(tracked->p.bands_intact("p"));
    CHECK(tracked->m.bands_intact("m"));
    CHECK(tracked->v.bands_intact("v"));
  }
}

TEST_CASE("the first step of adamw moves by the learning rate, whatever the gradient's size", "[adamw]") {
  for (const double size : {1e-3, 1.0, 1e3}) {
    std::vector<double> p{0, 0}, m{0, 0}, v{0, 0}, g{size, -size};
    const kernels::AdamWTensor<double> tensor{p.data(), m.data(), v.data(), g.data(), 2, 0.01, 0};
    kernels::AdamWOptions options;
    kernels::cpu::adamw(&tensor, 1, options);
    CHECK(compare("p", p, std::vector<double>{-0.01, 0.01}, {1e-4, 0}));  // epsilon = 1e-8 beside 1e-3
  }
}

TEST_CASE("adamw decays without a gradient and not without decay", "[adamw]") {
  std::vector<float> p{2, -3}, m(2), v(2), g(2);
  kernels::AdamWTensor<float> tensor{p.data(), m.data(), v.data(), g.data(), 2, 0.1, 0.5};
  kernels::cpu::adamw(&tensor, 1, kernels::AdamWOptions{});
  CHECK(compare("p", p, std::vector<double>{1.9, -2.85}, kFloat32));
  const std::vector<float> before = p;
  tensor.weight_decay = 0;
  kernels::cpu::adamw(&tensor, 1, kernels::AdamWOptions{});
  CHECK(same_bits("p", p, before));
}

TEMPLATE_TEST_CASE("squared_norm sums in double over all tensors", "[adamw]", float, double) {
  using T = TestType;
  std::vector<std::vector<T>> data;
  double expected = 0;
  for (const int64_t count : {1, 0, 15, 16, 17, 33, 100003}) {
    data.push_back(random_normal<T>(static_cast<uint64_t>(count), count));
    for (const T value : data.back()) {
      expected += double{value} * double{value};
    }
  }
  std::vector<kernels::NormTensor<T>> tensors;
  for (const auto& values : data) {
    tensors.push_back({values.data(), static_cast<int64_t>(values.size())});
  }
  const auto norm = [&] { return kernels::cpu::squared_norm(tensors.data(), static_cast<int64_t>(tensors.size())); };
  CHECK(compare("norm", std::vector<double>{norm()}, std::vector<double>{expected}, kFloat64));
  double one_thread = 0;
  {
    const Threads threads(1);
    one_thread = norm();
  }
  const Threads threads(3);
  CHECK(same_bits("norm", std::vector<double>{norm()}, std::vector<double>{one_thread}));
  data[5][20] = std::numeric_limits<T>::quiet_NaN();
  CHECK(std::isnan(norm()));
  data[5][20] = std::numeric_limits<T>::infinity();
  CHECK(std::isinf(norm()));
}

TEST_CASE("squared_norm of float does not overflow at large gradients", "[adamw]") {
  const std::vector<float> data(100, 1e30f);
  const kernels::NormTensor<float> tensor{data.data(), 100};
  CHECK(compare("norm", std::vector<double>{kernels::cpu::squared_norm(&tensor, 1)}, std::vector<double>{1e62},
                {1e-6, 0}));  // 1e30 in float is off by up to 6e-8
}

TEST_CASE("squared_norm reaches past 2^31 elements", "[adamw][.slow]") {
  // Reads 8 GiB of zero pages, hence not by default.
  constexpr int64_t kCount = (int64_t{1} << 31) + 5;
  SparseBuffer<float> far(kCount);
  far.data()[kCount - 1] = 3;
  const kernels::NormTensor<float> tensor{far.data(), kCount};
  CHECK(kernels::cpu::squared_norm(&tensor, 1) == 9);
}

TEST_CASE("adamw has the same bits on one and on more threads", "[adamw]") {
  std::array<std::vector<float>, 2> p;
  for (size_t run = 0; run < 2; ++run) {
    const Threads threads(run == 0 ? 1 : 3);
    Tracked<float> tracked(1, 100003, 0.01, 0.1);
    tracked.draw_gradient(5);
    const kernels::AdamWTensor<float> tensor = tracked.tensor();
    kernels::cpu::adamw(&tensor, 1, kernels::AdamWOptions{});
    p[run] = tracked.p.elements();
  }
  CHECK(same_bits("p", p[1], p[0]));
}

TEST_CASE("adamw refuses step 0", "[adamw]") {
  kernels::AdamWOptions options;
  options.step = 0;
  CHECK_THROWS_WITH(kernels::cpu::adamw<float>(nullptr, 0, options), "adamw: steps count from 1, found 0");
}

}  // namespace blockstate::test
