// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cross_entropy.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradcheck.h"
#include "tests/support/guard_buffer.h"
#include "tests/support/sparse_buffer.h"
#include "tests/support/threads.h"

namespace blockstate::test {
namespace {

template <class T>
struct Problem {
  int64_t rows, classes;
  T smoothing;
  GuardBuffer<T, 2> logits, dlogits;
  GuardBuffer<T, 1> loss, log_sum_exp, dloss;
  std::vector<int64_t> targets;

  Problem(int64_t rows_given, int64_t classes_given, int64_t gap, double smoothing_given)
      : rows(rows_given),
        classes(classes_given),
        smoothing(static_cast<T>(smoothing_given)),
        logits({rows, classes}, gap),
        dlogits({rows, classes}, gap),
        loss({rows}),
        log_sum_exp({rows}),
        dloss({rows}),
        targets(random_ids(9, rows, -1, classes)) {
    logits.assign(random_normal<T>(1, rows * classes, 3));
    dloss.assign(random_normal<T>(2, rows));
  }

  void forward() {
    kernels::cpu::cross_entropy_forward(kernels::CrossEntropyForward<T>{
        loss.view(), log_sum_exp.view(), logits.cview(), make_view<const int64_t>(targets.data(), rows), smoothing});
  }
  void backward() {
    kernels::cpu::cross_entropy_backward(kernels::CrossEntropyBackward<T>{
        dlogits.view(), dloss.cview(), logits.cview(), make_view<const int64_t>(targets.data(), rows),
        log_sum_exp.cview(), smoothing});
  }
};

}  // namespace

TEMPLATE_TEST_CASE("cross entropy and its gradient equal the formula", "[cross_entropy]", float, double) {
  using T = TestType;
  for (const double smoothing : {0.0, 0.1}) {
    for (const auto& [rows, classes, gap] : {std::array<int64_t, 3>{1, 1, 0},
                                             {40, 4, 0},
                                             {7, 15, 2},
                                             {7, 16, 0},
                                             {7, 17, 1},
                                             {3, 257, 5},
                                             {0, 4, 0},
                                             {2, 70001, 0},
                                             {3000, 5, 0}}) {
      INFO("rows " << rows << " classes " << classes << " smoothing " << smoothing);
      Problem<T> p(rows, classes, gap, smoothing);
      std::vector<double> loss, dlogits;
      for (int64_t r = 0; r < rows; ++r) {
        double sum = 0, plain = 0;
        for (int64_t v = 0; v < classes; ++v) {
          sum += std::exp(double{p.logits.view()(r, v)});
          plain += p.logits.view()(r, v);
        }
        const int64_t target = p.targets[static_cast<size_t>(r)];
        const double lse = std::log(sum), n = static_cast<double>(classes), s = p.smoothing;
        loss.push_back(target < 0 ? 0 : (1 - s) * (lse - p.logits.view()(r, target)) + s * (lse - plain / n));
        for (int64_t v = 0; v < classes; ++v) {
          const double wanted = (v == target ? 1 - s : 0) + s / n;
          dlogits.push_back(target < 0 ? 0
                                       : p.dloss.view()(r) * (std::exp(double{p.logits.view()(r, v)}) / sum - wanted));
        }
      }
      p.forward();
      p.backward();
      CHECK(p.loss.fully_written("loss"));
      CHECK(p.log_sum_exp.fully_written("log_sum_exp"));
      CHECK(p.dlogits.fully_written("dlogits"));
      // The loss is a difference of numbers up to 10.
      CHECK(compare_scaled("loss", p.loss.view(), loss, std::vector<double>(loss.size(), 10), tolerance_of<T>()));
      CHECK(compare("dlogits", p.dlogits.view(), dlogits, tolerance_of<T>()));
    }
  }
}

TEST_CASE("cross entropy gradients agree with differences", "[cross_entropy]") {
  for (const double smoothing : {0.0, 0.2}) {
    Problem<double> p(4, 6, 0, smoothing);
    p.targets = {2, -1, 5, 0};
    std::vector<double> logits = p.logits.elements();
    const std::vector<double> dloss = p.dloss.elements();
    p.forward();
    p.backward();
    const std::vector<double> dlogits = p.dlogits.elements();
    CHECK(gradcheck({{"logits", &logits, &dlogits}}, [&] {
      p.logits.assign(logits);
      p.forward();
      double sum = 0;
      for (int64_t r = 0; r < p.rows; ++r) {
        sum += dloss[static_cast<size_t>(r)] * p.loss.view()(r);
      }
      return sum;
    }));
  }
}

TEST_CASE("rows of the cross entropy gradient sum to zero", "[cross_entropy]") {
  for (const double smoothing : {0.0, 0.1}) {
    Problem<double> p(50, 37, 0, smoothing);
    p.forward();
    p.backward();
    for (int64_t r = 0; r < p.rows; ++r) {
      double sum = 0;
      for (int64_t v = 0; v < p.classes; ++v) {
        sum += p.dlogits.view()(r, v);
      }
      CHECK(std::abs(sum) < 1e-13);
    }
  }
}

TEST_CASE("ignored targets give 0 whatever the logits are", "[cross_entropy]") {
  Problem<float> p(3, 5, 0, 0.1);
  p.targets = {-1, 3, -100};
  std::vector<float> logits = p.logits.elements();
  std::fill(logits.begin(), logits.begin() + 5, std::numeric_limits<float>::quiet_NaN());
  p.logits.assign(logits);
  p.forward();
  p.backward();
  for (const int64_t r : {0, 2}) {
    CHECK(p.loss.view()(r) == 0);
    for (int64_t v = 0; v < 5; ++v) {
      CHECK(p.dlogits.view()(r, v) == 0);
    }
  }
  CHECK(p.loss.view()(1) > 0);
}

TEST_CASE("cross entropy of large and infinite logits, and of NaN", "[cross_entropy]") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  Problem<float> p(3, 3, 0, 0);
  p.targets = {0, 1, 2};
  p.logits.assign({1e4f, -1e4f, 0, -kInfinity, 2, 2, std::nanf(""), 0, 0});
  p.forward();
  p.backward();
  CHECK(p.loss.view()(0) == 0);
  CHECK(std::abs(p.loss.view()(1) - std::log(2.0)) < 1e-6);
  CHECK(p.dlogits.view()(1, 0) == 0);
  CHECK(std::isnan(p.loss.view()(2)));
}

TEST_CASE("cross entropy in place, on more threads and past 2^31 elements", "[cross_entropy]") {
  std::array<std::vector<float>, 2> loss, dlogits;
  for (size_t run = 0; run < 2; ++run) {
    const Threads threads(run == 0 ? 1 : 3);
    Problem<float> p(3000, 11, 0, 0.1);
    p.forward();
    p.backward();
    loss[run] = p.loss.elements(), dlogits[run] = p.dlogits.elements();
  }
  CHECK(same_bits("loss", loss[1], loss[0]));
  CHECK(same_bits("dlogits", dlogits[1], dlogits[0]));

  constexpr int64_t kRows = 4, kClasses = 7, kStride = int64_t{1} << 30;
  Problem<float> p(kRows, kClasses, 0, 0);
  SparseBuffer<float> far(kRows * kStride);
  const View<float, 2> x{far.data(), {kRows, kClasses}, {kStride, 1}};
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t v = 0; v < kClasses; ++v) {
      x(r, v) = p.logits.view()(r, v);
    }
  }
  p.forward();
  p.backward();
  kernels::cpu::cross_entropy_backward(kernels::CrossEntropyBackward<float>{
      x, p.dloss.cview(), x, make_view<const int64_t>(p.targets.data(), kRows), p.log_sum_exp.cview(), 0});
  CHECK(same_bits("dlogits", x, p.dlogits.elements()));
}

TEST_CASE("cross entropy names the row of a bad target", "[cross_entropy]") {
  Problem<float> p(3, 5, 0, 0);
  p.targets = {0, 4, 5};
  CHECK_THROWS_WITH(p.forward(), "cross_entropy_forward: the target of row 2 is 5, but there are 5 classes");
  CHECK_THROWS_WITH(p.backward(), "cross_entropy_backward: the target of row 2 is 5, but there are 5 classes");
  p.targets = {0, 4, 1};
  p.smoothing = 1.5f;
  CHECK_THROWS_WITH(p.forward(), "cross_entropy_forward: label_smoothing must be in [0, 1], found 1.5");
}

}  // namespace blockstate::test
