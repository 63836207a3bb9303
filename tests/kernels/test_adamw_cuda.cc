// SPDX-License-Identifier: Apache-2.0
// The AdamW step on a GPU against its formula in double.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/adamw.h"
#include "tests/support/cuda_array.h"
#include "tests/support/fill.h"

namespace blockstate::test {
namespace {

using kernels::AdamWOptions;
using kernels::AdamWReport;
using kernels::AdamWTensor;

struct Tracked {
  std::vector<float> start;
  CudaArray<float> p, m, v;
  std::unique_ptr<CudaArray<float>> g;
  std::vector<float> gradient;
  std::vector<double> p64, m64, v64;
  double learning_rate, weight_decay;
  int64_t skew;  // elements from an aligned address

  Tracked(uint64_t key, int64_t count, double rate, double decay, int64_t skew_given = 0)
      : start(random_normal<float>(key, count + skew_given)),
        p(start),
        m(std::vector<float>(start.size())),
        v(std::vector<float>(start.size())),
        p64(start.begin() + skew_given, start.end()),
        m64(p64.size()),
        v64(p64.size()),
        learning_rate(rate),
        weight_decay(decay),
        skew(skew_given) {}

  void draw_gradient(uint64_t key) {
    gradient = random_normal<float>(key, static_cast<int64_t>(start.size()), 0.3);
    g = std::make_unique<CudaArray<float>>(gradient);
  }
  AdamWTensor<float> tensor() const {
    return {p.data() + skew, m.data() + skew, v.data() + skew, g->data() + skew, static_cast<int64_t>(p64.size()),
            learning_rate,   weight_decay};
  }
  double squares() const {
    double sum = 0;
    for (size_t i = static_cast<size_t>(skew); i < gradient.size(); ++i) {
      sum += double{gradient[i]} * double{gradient[i]};
    }
    return sum;
  }
  void reference_step(const AdamWOptions& o, double scale, double t) {
    for (size_t i = 0; i < p64.size(); ++i) {
      const double d = scale * gradient[i + static_cast<size_t>(skew)];
      m64[i] = o.beta1 * m64[i] + (1 - o.beta1) * d;
      v64[i] = o.beta2 * v64[i] + (1 - o.beta2) * d * d;
      const double m_hat = m64[i] / (1 - std::pow(o.beta1, t)), v_hat = v64[i] / (1 - std::pow(o.beta2, t));
      p64[i] -= learning_rate * (weight_decay * p64[i] + m_hat / (std::sqrt(v_hat) + o.epsilon));
    }
  }
  std::vector<float> inside(const CudaArray<float>& array) const {
    const std::vector<float> all = array.host();
    return {all.begin() + skew, all.end()};
  }
};

struct Run {
  std::vector<std::unique_ptr<Tracked>> all;
  CudaArray<AdamWReport> report{std::vector<AdamWReport>{{0, 0}}};

  AdamWReport step(const AdamWOptions& options, double clip) {
    std::vector<AdamWTensor<float>> tensors;
    for (const auto& tracked : all) {
      tensors.push_back(tracked->tensor());
    }
    kernels::cuda::adamw_step<float>(gpu(), tensors.data(), static_cast<int64_t>(tensors.size()), options, clip,
                                     report.data());
    return report.host()[0];
  }
  void draw(uint64_t key) {
    for (size_t i = 0; i < all.size(); ++i) {
      all[i]->draw_gradient(key * 1000 + i);
    }
  }
  double squares() const {
    double sum = 0;
    for (const auto& tracked : all) {
      sum += tracked->squares();
    }
    return sum;
  }
};

std::unique_ptr<Run> make_run(int64_t small_tensors) {
  auto run = std::make_unique<Run>();
  run->all.push_back(std::make_unique<Tracked>(1, 100009, 1e-3, 0.1));
  run->all.push_back(std::make_unique<Tracked>(2, 0, 1e-3, 0.1));
  run->all.push_back(std::make_unique<Tracked>(3, 1, 0.1, 0.5));
  run->all.push_back(std::make_unique<Tracked>(4, 16384, 1e-3, 0));
  run->all.push_back(std::make_unique<Tracked>(5, 8191, 1e-3, 0.1, 3));
  for (int64_t i = 0; i < small_tensors; ++i) {
    run->all.push_back(std::make_unique<Tracked>(static_cast<uint64_t>(10 + i), 1 + i * 7 % 301, 0.01, 0.1, i % 4));
  }
  return run;
}

}  // namespace

TEST_CASE("adamw on a GPU follows the formula, clipped and not", "[cuda][adamw]") {
  const int64_t small_tensors = GENERATE(0, 40, 1300);  // one table, and several
  const auto run = make_run(small_tensors);
  for (int64_t step = 1; step <= 5; ++step) {
    AdamWOptions options;
    options.gradient_scale = step == 3 ? 0.1 : 1;
    options.step = -7;  // not read
    const double clip = step == 2 ? 1.5 : step == 4 ? 1e9 : 0;
    run->draw(static_cast<uint64_t>(step));
    const double norm = std::sqrt(run->squares()) * options.gradient_scale;
    const double scale = options.gradient_scale * (clip > 0 && norm > clip ? clip / norm : 1);
    const AdamWReport report = run->step(options, clip);
    CHECK(report.step == step);
    CHECK(compare("norm", std::vector<double>{report.squared_norm}, std::vector<double>{norm * norm}, kFloat64));
    for (const auto& tracked : run->all) {
      tracked->reference_step(options, scale, static_cast<double>(step));
    }
  }
  bool good = true;
  for (const auto& tracked : run->all) {
    const std::vector<double> unit(tracked->p64.size(), 1);
    // m is a sum of terms of the order of 0.1 that may cancel; so is what was taken from p.
    const Comparison m = compare_scaled("m", tracked->inside(tracked->m), tracked->m64, unit, {1e-6, 0});
    const Comparison v = compare("v", tracked->inside(tracked->v), tracked->v64, kFloat32);
    const Comparison p = compare("p", tracked->inside(tracked->p), tracked->p64, kFloat32);
    if (!m || !v || !p) {
      INFO(tracked->p64.size() << " elements");
      CHECK(m);
      CHECK(v);
      CHECK(p);
      good = false;
      break;
    }
    for (int64_t i = 0; i < tracked->skew; ++i) {
      good = good && tracked->p.host()[static_cast<size_t>(i)] == tracked->start[static_cast<size_t>(i)];
    }
  }
  CHECK(good);
}

TEST_CASE("adamw on a GPU skips a step whose norm is not finite", "[cuda][adamw]") {
  const auto run = make_run(3);
  run->draw(1);
  run->step(AdamWOptions{}, 1);
  const std::vector<float> p = run->all[0]->p.host(), m = run->all[0]->m.host(), v = run->all[0]->v.host();
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    run->draw(2);
    std::vector<float> gradient = run->all[4]->gradient;
    gradient[77] = bad;
    run->all[4]->g = std::make_unique<CudaArray<float>>(gradient);
    const AdamWReport report = run->step(AdamWOptions{}, 1);
    CHECK_FALSE(std::isfinite(report.squared_norm));
    CHECK(report.step == 1);
    CHECK(same_bits("p", run->all[0]->p.host(), p));
    CHECK(same_bits("m", run->all[0]->m.host(), m));
    CHECK(same_bits("v", run->all[0]->v.host(), v));
  }
  run->draw(3);
  CHECK(run->step(AdamWOptions{}, 1).step == 2);
  CHECK_FALSE(same_bits("p", run->all[0]->p.host(), p));
}

TEST_CASE("adamw on a GPU: large gradients do not overflow, the same bits again, no tensors", "[cuda][adamw]") {
  std::vector<float> p[2];
  double norm[2];
  for (size_t i = 0; i < 2; ++i) {
    const auto run = make_run(10);
    run->draw(1);
    run->all[0]->gradient.assign(run->all[0]->gradient.size(), 1e30f);
    run->all[0]->g = std::make_unique<CudaArray<float>>(run->all[0]->gradient);
    norm[i] = run->step(AdamWOptions{}, 1).squared_norm;
    p[i] = run->all[0]->p.host();
  }
  CHECK(norm[0] == Approx(100009e60).epsilon(1e-6));  // 1e30 in float is off by up to 6e-8
  CHECK(norm[0] == norm[1]);
  CHECK(same_bits("p", p[1], p[0]));
  Run none;
  const AdamWReport report = none.step(AdamWOptions{}, 1);
  CHECK(report.squared_norm == 0);
  CHECK(report.step == 1);
}

}  // namespace blockstate::test
