// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "kernels/selective_scan_step.h"
#include "tests/kernels/selective_scan_step_case.h"
#include "tests/support/compare.h"

namespace blockstate::test {
namespace {

template <class T>
StepInputs<double> in_double(const StepInputs<T>& in) {
  const auto& s = in.scan;
  StepInputs<double> out;
  out.rank = in.rank;
  out.low = converted<double>(in.low), out.weight = converted<double>(in.weight);
  out.scan.size = s.size, out.scan.position = s.position;
  out.scan.u = converted<double>(s.u), out.scan.A = converted<double>(s.A);
  out.scan.B = converted<double>(s.B), out.scan.C = converted<double>(s.C);
  out.scan.D = converted<double>(s.D), out.scan.z = converted<double>(s.z);
  out.scan.bias = converted<double>(s.bias), out.scan.initial = converted<double>(s.initial);
  return out;
}

template <class T>
void check(const StepInputs<T>& in) {
  const auto [B, L, D, N] = in.scan.size;
  std::vector<T> y(static_cast<size_t>(B * D)), final(static_cast<size_t>(B * D * N));
  kernels::SelectiveScanStep<T> args;
  args.low = make_view(in.low.data(), B, in.rank);
  args.delta_weight = make_view(in.weight.data(), D, in.rank);
  args.scan.y = make_view(y.data(), B, L, D);
  args.scan.final = make_view(final.data(), B, D, N);
  args.scan.u = make_view(in.scan.u.data(), B, L, D);
  args.scan.A = make_view(in.scan.A.data(), D, N);
  args.scan.B = make_view(in.scan.B.data(), B, L, N);
  args.scan.C = make_view(in.scan.C.data(), B, L, N);
  if (!in.scan.z.empty()) {
    args.scan.z = make_view(in.scan.z.data(), B, L, D);
  }
  if (!in.scan.D.empty()) {
    args.scan.D = make_view(in.scan.D.data(), D);
  }
  if (!in.scan.bias.empty()) {
    args.scan.delta_bias = make_view(in.scan.bias.data(), D);
  }
  if (!in.scan.initial.empty()) {
    args.scan.initial = make_view(in.scan.initial.data(), B, D, N);
  }
  if (!in.scan.position.empty()) {
    args.scan.position = make_view(in.scan.position.data(), B, L);
  }
  kernels::cpu::selective_scan_step(args);
  const ScanResults<double> expected = naive_step(in_double(in));
  CHECK(compare_scaled("y", y, expected.y, expected.y_scale, tolerance_of<T>()));
  CHECK(compare_scaled("final", final, expected.final, expected.final_scale, tolerance_of<T>()));
}

}  // namespace

TEMPLATE_TEST_CASE("selective_scan_step equals the product and the naive scan", "[selective_scan]", float, double) {
  for (const int64_t rank : {1, 3, 48}) {
    for (int absent = 0; absent < 16; ++absent) {
      CAPTURE(rank, absent);
      StepInputs<TestType> in = random_step<TestType>(10, 3, 37, 16, rank, absent);
      check(in);
      in.scan.position = {0, -1, 7};
      check(in);
    }
  }
}

TEST_CASE("selective_scan_step names what does not fit", "[selective_scan]") {
  const std::vector<float> values(100);
  std::vector<float> y(100);
  kernels::SelectiveScanStep<float> args;
  args.scan.u = make_view(values.data(), 2, 3, 4);
  CHECK_THROWS_WITH(kernels::cpu::selective_scan_step(args), "selective_scan_step makes one step, found 3");
  args.scan.u = make_view(values.data(), 2, 1, 4);
  args.low = make_view(values.data(), 2, 5);
  args.delta_weight = make_view(values.data(), 4, 6);
  CHECK_THROWS_WITH(kernels::cpu::selective_scan_step(args),
                    "selective_scan_step: delta_weight must have shape (4, 5), found (4, 6)");
}

}  // namespace blockstate::test
