// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "kernels/pool.h"
#include "tests/support/cuda_rows.h"
#include "tests/support/fill.h"

namespace blockstate::test {
namespace {

struct Case {
  int64_t batch, length, columns, records;
  Lie lie;
  bool runs;  // records as they lie in a batch: one stretch after another; else any order
};
constexpr Case kCases[] = {
    {1, 1, 1, 1, {}, true},       {2, 9, 15, 4, {1, 0}, true},     {3, 7, 17, 5, {2, 1}, false},
    {1, 3000, 16, 3, {}, true},   {2, 2500, 5, 9, {3, 0}, true},   {2, 700, 64, 2, {8, 8}, false},
    {0, 4, 3, 2, {}, true},       {2, 0, 3, 2, {}, true},          {2, 3, 0, 2, {}, true},
    {2, 2001, 264, 70, {}, true}, {3, 2000, 40, 300, {}, false},   {2, 3000, 24, 500, {}, true},
    {1, 3000, 520, 1, {}, true},  {1, 5000, 8, 1000, {8, 3}, true}};

std::vector<int64_t> records_of(const Case& s) {
  std::vector<int64_t> record = random_ids(5, s.batch * s.length, -1, s.records);
  if (s.runs) {
    for (int64_t i = 0; i < s.batch * s.length; ++i) {
      const int64_t stretch = i * (s.records + 1) / (s.batch * s.length);
      record[static_cast<size_t>(i)] = stretch == s.records ? -1 : stretch;
    }
  }
  return record;
}

}  // namespace

TEMPLATE_TEST_CASE("pool on CUDA sums each record and spreads its gradient", "[pool][cuda]", float, BFloat16) {
  using T = TestType;
  for (const Case& s : kCases) {
    CAPTURE(s.batch, s.length, s.columns, s.records, s.lie.gap, s.lie.offset);
    const int64_t steps = s.batch * s.length;
    const std::vector<int64_t> record = records_of(s);
    const auto xs = rounded_to<T>(random_normal<float>(1, steps * s.columns)), ws = random_normal<float>(2, steps);
    const auto gs = random_normal<float>(3, s.records * s.columns);
    std::vector<double> sums(gs.size()), scale(gs.size()), dx_expected, dot_expected, products;
    for (int64_t i = 0; i < steps; ++i) {
      const int64_t r = record[static_cast<size_t>(i)];
      const double w = ws[static_cast<size_t>(i)];
      double dot = 0, absolute = 0;
      for (int64_t c = 0; c < s.columns; ++c) {
        const double value = xs[static_cast<size_t>(i * s.columns + c)];
        const size_t at = static_cast<size_t>(r * s.columns + c);
        dx_expected.push_back(r < 0 ? 0 : w * gs[at]);
        if (r >= 0) {
          sums[at] += w * value;
          scale[at] += std::abs(w * value);
          dot += value * gs[at];
          absolute += std::abs(value * gs[at]);
        }
      }
      dot_expected.push_back(dot);
      products.push_back(absolute);
    }
    const CudaRows<T> x(xs, steps, s.columns, s.lie), dx(steps, s.columns, s.lie);
    const CudaRows<float> weight(ws, s.batch, s.length, {3, 0}), dweight(s.batch, s.length, {1, 0}),
        dy(gs, s.records, s.columns, s.lie), y(s.records, s.columns, s.lie), again(s.records, s.columns, s.lie);
    const CudaArray<int64_t> record_array(record);
    const auto records = record_array.cview(s.batch, s.length);
    kernels::cuda::pool_forward(gpu(), y.view(), x.cview(s.batch, s.length), weight.cview(), records);
    CHECK(compare_scaled("y", y.host(), sums, scale, kFloat32));
    kernels::cuda::pool_forward(gpu(), again.view(), x.cview(s.batch, s.length), weight.cview(), records);
    CHECK(same_bits("again", again.host(), y.host()));
    kernels::cuda::pool_backward(gpu(), dx.view(s.batch, s.length), dweight.view(), dy.cview(),
                                 x.cview(s.batch, s.length), weight.cview(), records);
    CHECK(judge<T>("dx", dx.host(), dx_expected));
    CHECK(compare_scaled("dweight", dweight.host(), dot_expected, products, kFloat32));
    const std::vector<float> before = dx.host(), dots = dweight.host();
    kernels::cuda::pool_backward(gpu(), dx.view(s.batch, s.length), View<float, 2>(), dy.cview(),
                                 x.cview(s.batch, s.length), weight.cview(), records);
    CHECK(same_bits("dx without dweight", dx.host(), before));
    kernels::cuda::pool_backward(gpu(), dx.view(s.batch, s.length), dweight.view(), dy.cview(),
                                 x.cview(s.batch, s.length), weight.cview(), records);
    CHECK(same_bits("dweight again", dweight.host(), dots));
  }
}

TEMPLATE_TEST_CASE("pool weights and rows on CUDA", "[pool][cuda]", float, BFloat16) {
  using T = TestType;
  constexpr int64_t kBatch = 3, kLength = 341, kRecords = 5;
  const std::vector<int64_t> record = random_ids(1, kBatch * kLength, -1, kRecords);
  const auto scores = rounded_to<T>(random_normal<float>(3, kBatch * kLength, 2));
  const auto shift = random_normal<float>(2, kRecords), gs = random_normal<float>(4, kBatch * kLength);
  const CudaArray<int64_t> record_array(record);
  const CudaArray<float> shifts(shift);
  const CudaRows<T> score(scores, kBatch, kLength, {2, 0}), dscore(kBatch, kLength, {3, 0});
  const CudaRows<float> weight(kBatch, kLength, {1, 0}), dweight(gs, kBatch, kLength);
  std::vector<double> expected, gradient;
  for (size_t i = 0; i < record.size(); ++i) {
    const int64_t r = record[i];
    expected.push_back(r < 0 ? 0 : std::exp(double{scores[i]} - double{shift[static_cast<size_t>(r)]}));
    gradient.push_back(expected.back() * gs[i]);
  }
  kernels::cuda::pool_weights_forward(gpu(), weight.view(), score.cview(), record_array.cview(kBatch, kLength),
                                      shifts.cview(kRecords));
  CHECK(compare("weight", weight.host(), expected, kFloat32));
  kernels::cuda::pool_weights_backward(gpu(), dscore.view(), dweight.cview(), weight.cview());
  CHECK(judge<T>("dscore", dscore.host(), gradient));
}

TEST_CASE("pool's divide_rows and scale_rows on CUDA", "[pool][cuda]") {
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{1, 1}, {5, 17}, {0, 3}, {3, 0}, {64, 333}}) {
    CAPTURE(rows, columns);
    const auto factors = random_uniform<float>(1, rows, 0.5, 3), xs = random_normal<float>(2, rows * columns),
               gs = random_normal<float>(3, rows * columns);
    const CudaArray<float> factor(factors), dfactor(std::vector<float>(factors.size(), 0));
    const CudaRows<float> x(xs, rows, columns, {1, 0}), y(rows, columns, {2, 1}), dy(gs, rows, columns),
        dx(rows, columns, {1, 0}), scaled(rows, columns);
    std::vector<double> divided, multiplied, dx_expected, dfactor_expected(factors.size()), products(factors.size());
    for (int64_t i = 0; i < rows * columns; ++i) {
      const size_t at = static_cast<size_t>(i), r = static_cast<size_t>(i / columns);
      divided.push_back(double{xs[at]} / factors[r]);
      multiplied.push_back(double{xs[at]} * factors[r]);
      dx_expected.push_back(double{gs[at]} / factors[r]);
      dfactor_expected[r] -= dx_expected.back() * divided.back();
      products[r] += std::abs(dx_expected.back() * divided.back());
    }
    kernels::cuda::divide_rows_forward(gpu(), y.view(), x.cview(), factor.cview(rows));
    CHECK(compare("divided", y.host(), divided, kFloat32));
    kernels::cuda::divide_rows_backward(gpu(), dx.view(), dfactor.view(rows), dy.cview(), y.cview(),
                                        factor.cview(rows));
    CHECK(compare("dx", dx.host(), dx_expected, kFloat32));
    if (columns > 0) {
      CHECK(compare_scaled("dweight", dfactor.host(), dfactor_expected, products, kFloat32));
    }
    kernels::cuda::scale_rows(gpu(), scaled.view(), x.cview(), factor.cview(rows));
    CHECK(compare("scaled", scaled.host(), multiplied, kFloat32));
  }
}

TEST_CASE("pool on CUDA reaches steps past 2^31 elements", "[pool][cuda][large]") {
  constexpr int64_t kBatch = 3, kLength = 3, kColumns = 5, kStride = (int64_t{1} << 31) + 24;
  const CudaSpace<BFloat16> far(2 * kStride + kLength * kColumns);
  const View<BFloat16, 3> x{far.data(), {kBatch, kLength, kColumns}, {kStride, kColumns, 1}};
  const CudaArray<float> weight(std::vector<float>(kBatch * kLength, 2)), y(2 * kColumns);
  const CudaArray<int64_t> record({0, 0, 0, 1, 1, 1, 0, 0, 1});
  const CudaArray<float> dy(std::vector<float>{1, 2, 3, 4, 5, 10, 20, 30, 40, 50});
  kernels::cuda::pool_backward(gpu(), x, View<float, 2>(), dy.cview(2, kColumns), View<const BFloat16, 3>(x),
                               weight.cview(kBatch, kLength), record.cview(kBatch, kLength));
  kernels::cuda::pool_forward(gpu(), y.view(2, kColumns), View<const BFloat16, 3>(x), weight.cview(kBatch, kLength),
                              record.cview(kBatch, kLength));
  CHECK(y.host() == std::vector<float>{20, 40, 60, 80, 100, 160, 320, 480, 640, 800});
}

}  // namespace blockstate::test
