// SPDX-License-Identifier: Apache-2.0
// One step of the scan with the product before it, against the naive one.
#include <catch2/catch.hpp>

#include "kernels/selective_scan_step.h"
#include "tests/kernels/selective_scan_step_case.h"
#include "tests/support/cuda_view.h"

namespace blockstate::test {
namespace {

struct Layout {
  int64_t gap = 0, offset = 0;
  bool in_place = false;
};

struct Outcome {
  std::vector<float> y, final;
};

template <class T>
Outcome run(const StepInputs<float>& in, Layout layout = {}) {
  const auto [B, L, D, N] = in.scan.size;
  const int64_t gap = layout.gap, offset = layout.offset;
  const CudaView<T, 2> low(in.low, {B, in.rank}, gap, offset), weight(in.weight, {D, in.rank}, gap, offset);
  const CudaView<T, 3> u(in.scan.u, {B, L, D}, gap, offset), z(in.scan.z, {B, L, D}, gap, offset);
  const CudaView<T, 3> b(in.scan.B, {B, L, N}, gap, offset), c(in.scan.C, {B, L, N}, gap, offset);
  const CudaView<T, 3> y({B, L, D}, gap, offset);
  const CudaArray<float> A(in.scan.A), skip(in.scan.D), bias(in.scan.bias), initial(in.scan.initial), final(B * D * N);
  const CudaArray<int64_t> position(in.scan.position);
  kernels::SelectiveScanStep<T, float> args;
  args.low = low.cview();
  args.delta_weight = weight.cview();
  args.scan.y = y.view();
  args.scan.u = u.cview();
  args.scan.A = A.cview(D, N);
  args.scan.B = b.cview();
  args.scan.C = c.cview();
  args.scan.final = layout.in_place ? initial.view(B, D, N) : final.view(B, D, N);
  if (!in.scan.z.empty()) {
    args.scan.z = z.cview();
  }
  if (!in.scan.D.empty()) {
    args.scan.D = skip.cview(D);
  }
  if (!in.scan.bias.empty()) {
    args.scan.delta_bias = bias.cview(D);
  }
  if (!in.scan.initial.empty()) {
    args.scan.initial = initial.cview(B, D, N);
  }
  if (!in.scan.position.empty()) {
    args.scan.position = position.cview(B, L);
  }
  kernels::cuda::selective_scan_step<T>(gpu(), args);
  return {y.host(), layout.in_place ? initial.host() : final.host()};
}

/// What a kernel for T sees.
template <class T>
StepInputs<float> seen_as(StepInputs<float> in) {
  for (std::vector<float>* values : {&in.low, &in.weight, &in.scan.u, &in.scan.z, &in.scan.B, &in.scan.C}) {
    *values = rounded_to<T>(*values);
  }
  return in;
}

StepInputs<double> in_double(const StepInputs<float>& in) {
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
void check(const StepInputs<float>& any, Layout layout = {}) {
  const StepInputs<float> in = seen_as<T>(any);
  const ScanResults<double> expected = naive_step(in_double(in));
  const Outcome found = run<T>(in, layout);
  CHECK(compare_scaled("final", found.final, expected.final, expected.final_scale, kFloat32));
  if constexpr (std::is_same_v<T, float>) {
    CHECK(compare_scaled("y", found.y, expected.y, expected.y_scale, kFloat32));
  } else {
    const std::vector<float> once = rounded_to<T>(std::vector<float>(expected.y.begin(), expected.y.end()));
    CHECK(compare_twice_naive("y", found.y, expected.y, once, 1e-5));
  }
  const Outcome again = run<T>(in, layout);
  CHECK(same_bits("y", again.y, found.y));
  CHECK(same_bits("final", again.final, found.final));
}

}  // namespace

TEMPLATE_TEST_CASE("selective_scan_step on a GPU equals the product and the naive scan", "[cuda][selective_scan]",
                   float, BFloat16) {
  for (const int64_t rank : {1, 3, 8, 16, 48, 50, 520}) {
    for (const int64_t N : {1, 5, 16, 20, 256}) {
      for (const int64_t D : {1, 7, 33}) {
        for (const int64_t B : {1, 5}) {
          CAPTURE(rank, N, D, B);
          check<TestType>(random_step<float>(10, B, D, N, rank));
        }
      }
    }
  }
  check<TestType>(random_step<float>(20, 131, 200, 16, 13));  // several rows a block
  check<TestType>(random_step<float>(30, 1, 1536, 16, 48));
}

TEMPLATE_TEST_CASE("selective_scan_step on a GPU: absent inputs, records, slices, in place", "[cuda][selective_scan]",
                   float, BFloat16) {
  for (int absent = 0; absent < 16; ++absent) {
    CAPTURE(absent);
    StepInputs<float> in = random_step<float>(40, 3, 37, 16, 24, absent);
    check<TestType>(in);
    in.scan.position = {0, -1, 7};
    check<TestType>(in);
    for (int64_t d = 0; d < 37 && !in.scan.z.empty(); ++d) {
      in.scan.z[static_cast<size_t>(37 + d)] = NAN;  // what lies in padding does not matter
    }
    CHECK(run<TestType>(in).y[37] == 0);
  }
  for (const int64_t gap : {1, 4, 8}) {
    for (const int64_t offset : {0, 1, 4, 8}) {
      CAPTURE(gap, offset);
      check<TestType>(random_step<float>(50, 3, 40, 16, 48), {gap, offset});
    }
  }
  const StepInputs<float> in = seen_as<TestType>(random_step<float>(60, 70, 64, 16, 48));
  CHECK(same_bits("final", run<TestType>(in, {0, 0, true}).final, run<TestType>(in).final));
  StepInputs<float> other = in;
  other.weight[5] += 1;
  CHECK_FALSE(same_bits("final", run<TestType>(other).final, run<TestType>(in).final));
}

}  // namespace blockstate::test
