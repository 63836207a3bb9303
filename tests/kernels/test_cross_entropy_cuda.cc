// SPDX-License-Identifier: Apache-2.0
// The cross entropy on a GPU against the CPU's, in double (which its own test holds against the formula).
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "kernels/cross_entropy.h"
#include "tests/support/cuda_view.h"
#include "tests/support/fill.h"

namespace blockstate::test {
namespace {

struct Case {
  int64_t rows, classes;
  double smoothing = 0;
  int64_t gap = 0, offset = 0;
};

struct Inputs {
  std::vector<float> logits, dloss;
  std::vector<int64_t> targets;
};

struct Outputs {
  std::vector<float> loss, log_sum_exp, dlogits;
};

template <class T>
Inputs make_inputs(const Case& c) {
  Inputs in;
  in.logits = rounded_to<T>(random_normal<float>(1, c.rows * c.classes, 3));
  in.dloss = random_normal<float>(2, c.rows);
  in.targets = random_ids(9, c.rows, -1, c.classes);
  return in;
}

template <class T>
Outputs run_on_gpu(const Case& c, const Inputs& in) {
  const CudaView<T, 2> logits(in.logits, {c.rows, c.classes}, c.gap, c.offset);
  const CudaView<T, 2> dlogits({c.rows, c.classes}, c.gap, c.offset);
  const CudaArray<float> loss(c.rows), log_sum_exp(c.rows), dloss(in.dloss);
  const CudaArray<int64_t> targets(in.targets);
  const float smoothing = static_cast<float>(c.smoothing);
  kernels::cuda::cross_entropy_forward<T>(
      gpu(), {loss.view(c.rows), log_sum_exp.view(c.rows), logits.cview(), targets.cview(c.rows), smoothing});
  kernels::cuda::cross_entropy_backward<T>(gpu(), {dlogits.view(), dloss.cview(c.rows), logits.cview(),
                                                   targets.cview(c.rows), log_sum_exp.cview(c.rows), smoothing});
  return {loss.host(), log_sum_exp.host(), dlogits.host()};
}

struct Expected {
  std::vector<double> loss, log_sum_exp, dlogits;
};

Expected run_on_cpu(const Case& c, const Inputs& in) {
  Expected out;
  out.loss.resize(in.targets.size()), out.log_sum_exp = out.loss, out.dlogits.resize(in.logits.size());
  const std::vector<double> logits = converted<double>(in.logits), dloss = converted<double>(in.dloss);
  const double smoothing = static_cast<float>(c.smoothing);
  const auto given_logits = make_view(logits.data(), c.rows, c.classes);
  const auto targets = make_view(in.targets.data(), c.rows);
  kernels::cpu::cross_entropy_forward<double>({make_view(out.loss.data(), c.rows),
                                               make_view(out.log_sum_exp.data(), c.rows), given_logits, targets,
                                               smoothing});
  kernels::cpu::cross_entropy_backward<double>({make_view(out.dlogits.data(), c.rows, c.classes),
                                                make_view(dloss.data(), c.rows), given_logits, targets,
                                                make_view<const double>(out.log_sum_exp.data(), c.rows), smoothing});
  return out;
}

template <class T>
void check_against_cpu(const Case& c) {
  INFO("rows " << c.rows << " classes " << c.classes << " smoothing " << c.smoothing << " gap " << c.gap << " offset "
               << c.offset);
  const Inputs in = make_inputs<T>(c);
  const Outputs found = run_on_gpu<T>(c, in);
  const Expected expected = run_on_cpu(c, in);
  // The loss is a difference of numbers up to 10.
  CHECK(compare_scaled("loss", found.loss, expected.loss, std::vector<double>(expected.loss.size(), 10), kFloat32));
  CHECK(compare("log_sum_exp", found.log_sum_exp, expected.log_sum_exp, kFloat32));
  if (c.classes == 1) {  // softmax and target cancel exactly: what is left is the rounding of numbers up to 4
    CHECK(compare_scaled("dlogits", found.dlogits, expected.dlogits, std::vector<double>(expected.loss.size(), 4),
                         kFloat32));
  } else if constexpr (std::is_same_v<T, float>) {
    CHECK(compare("dlogits", found.dlogits, expected.dlogits, kFloat32));
  } else {
    CHECK(compare_twice_naive("dlogits", found.dlogits, expected.dlogits,
                              rounded_to<T>(converted<float>(expected.dlogits)), 1e-6));
  }
}

}  // namespace

TEMPLATE_TEST_CASE("cross entropy on a GPU equals the CPU's", "[cuda][cross_entropy]", float, BFloat16) {
  for (const double smoothing : {0.0, 0.1}) {
    for (const int64_t classes : {1,  2,   4,   5,   8,   12,  15,  16,   17,   24,   31,   32,    33,   40,
                                  64, 100, 128, 129, 256, 257, 512, 1000, 1024, 2048, 2056, 10007, 50264}) {
      const int64_t rows = classes > 1000 ? 5 : 301;
      check_against_cpu<TestType>({rows, classes, smoothing});
    }
    check_against_cpu<TestType>({70001, 16, smoothing});
    check_against_cpu<TestType>({1, 100000, smoothing});
    for (const int64_t classes : {16, 256, 4096}) {
      check_against_cpu<TestType>({0, classes, smoothing});
      check_against_cpu<TestType>({1, classes, smoothing});
      check_against_cpu<TestType>({33, classes, smoothing, 16, 8});
      check_against_cpu<TestType>({33, classes, smoothing, 1, 0});
      check_against_cpu<TestType>({33, classes, smoothing, 0, 1});
    }
  }
}

TEMPLATE_TEST_CASE("cross entropy on a GPU ignores targets that are no class, whatever the logits are",
                   "[cuda][cross_entropy]", float, BFloat16) {
  for (const int64_t classes : {5, 16, 256, 3000}) {
    const Case c{4, classes, 0.1};
    Inputs in = make_inputs<TestType>(c);
    in.targets = {-1, 3, classes, int64_t{1} << 40};
    std::fill(in.logits.begin(), in.logits.begin() + classes, std::numeric_limits<float>::quiet_NaN());
    const Outputs out = run_on_gpu<TestType>(c, in);
    for (const int64_t r : {0, 2, 3}) {
      CHECK(out.loss[static_cast<size_t>(r)] == 0);
      CHECK(std::all_of(out.dlogits.begin() + r * classes, out.dlogits.begin() + (r + 1) * classes,
                        [](float v) { return v == 0; }));
    }
    CHECK(out.loss[1] > 0);
  }
}

TEST_CASE("cross entropy on a GPU of large and infinite logits, and of NaN", "[cuda][cross_entropy]") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const int64_t classes : {3, 4, 64, 5000, 5001}) {  // by a thread, a few, a warp, a block
    const Case c{3, classes};
    Inputs in = make_inputs<float>(c);
    in.targets = {0, 1, 2};
    std::fill(in.logits.begin(), in.logits.end(), -kInfinity);
    const auto at = [&](int64_t r, int64_t v) -> float& { return in.logits[static_cast<size_t>(r * classes + v)]; };
    at(0, 0) = 1e4f, at(0, 1) = -1e4f, at(0, 2) = 0;
    at(1, 1) = 2, at(1, 2) = 2;
    at(2, 0) = std::nanf(""), at(2, 1) = 0, at(2, 2) = 0;
    const Outputs out = run_on_gpu<float>(c, in);
    INFO("classes " << classes);
    CHECK(out.loss[0] == 0);
    CHECK(std::abs(out.loss[1] - std::log(2.0)) < 1e-6);
    CHECK(out.dlogits[static_cast<size_t>(classes)] == 0);
    CHECK(std::isnan(out.loss[2]));
  }
}

TEMPLATE_TEST_CASE("cross entropy on a GPU has the same bits again", "[cuda][cross_entropy]", float, BFloat16) {
  for (const int64_t classes : {16, 256, 30000}) {
    const Case c{200, classes, 0.1};
    const Inputs in = make_inputs<TestType>(c);
    const Outputs once = run_on_gpu<TestType>(c, in), again = run_on_gpu<TestType>(c, in);
    CHECK(same_bits("loss", again.loss, once.loss));
    CHECK(same_bits("dlogits", again.dlogits, once.dlogits));
  }
}

TEST_CASE("cross entropy on a GPU works in place and past 2^31 elements", "[cuda][cross_entropy][large]") {
  constexpr int64_t kRows = 4, kStride = (int64_t{1} << 30) + 8;
  const CudaSpace<BFloat16> space(kRows * kStride);
  for (const int64_t classes : {7, 16, 6000}) {
    const Case c{kRows, classes};
    const Inputs in = make_inputs<BFloat16>(c);
    const Outputs near = run_on_gpu<BFloat16>(c, in);
    std::vector<BFloat16> x = stored_as<BFloat16>(in.logits);
    for (int64_t r = 0; r < kRows; ++r) {
      space.write(r * kStride, x.data() + r * classes, classes);
    }
    const View<BFloat16, 2> far{space.data(), {kRows, classes}, {kStride, 1}};
    const CudaArray<float> loss(kRows), log_sum_exp(kRows), dloss(in.dloss);
    const CudaArray<int64_t> targets(in.targets);
    kernels::cuda::cross_entropy_forward<BFloat16>(
        gpu(), {loss.view(kRows), log_sum_exp.view(kRows), far, targets.cview(kRows), 0});
    kernels::cuda::cross_entropy_backward<BFloat16>(
        gpu(), {far, dloss.cview(kRows), far, targets.cview(kRows), log_sum_exp.cview(kRows), 0});
    for (int64_t r = 0; r < kRows; ++r) {
      space.read(r * kStride, x.data() + r * classes, classes);
    }
    CHECK(same_bits("loss", loss.host(), near.loss));
    CHECK(same_bits("dlogits", as_float(x), near.dlogits));
  }
}

TEST_CASE("cross entropy on a GPU refuses what does not fit", "[cuda][cross_entropy]") {
  const CudaArray<float> some(15);
  const CudaArray<int64_t> targets(3);
  CHECK_THROWS_WITH(kernels::cuda::cross_entropy_forward<float>(
                        gpu(), {some.view(3), some.view(3), some.cview(3, 5), targets.cview(3), 1.5f}),
                    "cross_entropy_forward: label_smoothing must be in [0, 1], found 1.5");
}

}  // namespace blockstate::test
