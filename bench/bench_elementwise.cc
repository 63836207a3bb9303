// SPDX-License-Identifier: Apache-2.0
// Element-wise kernels on matrices that do not fit in the caches (16 records of 1024 steps, 256 channels: 16 MiB each).
#include <benchmark/benchmark.h>

#include <vector>

#include "bench/bench_support.h"
#include "bench/ceilings.h"
#include "kernels/elementwise.h"

namespace blockstate::bench {
namespace {

constexpr int64_t kRows = 16384;
constexpr int64_t kColumns = 256;
constexpr double kMatrix = 4.0 * kRows * kColumns;  // bytes

struct Matrices {
  std::vector<float> a = values(kRows * kColumns, -3, 3), b = a, c = a, d = a, e = a;
  static View<float, 2> view(std::vector<float>& data) { return make_view(data.data(), kRows, kColumns); }
};

template <class Body>
void measure(benchmark::State& state, double matrices_moved, const Body& body) {
  const int threads = static_cast<int>(state.range(0));
  const PoolSize pool(threads);
  for (auto _ : state) {
    body();
    benchmark::ClobberMemory();
  }
  count_bytes(state, matrices_moved * kMatrix, threads);
}

void activation_forward(benchmark::State& state) {
  Matrices m;
  const auto activation = static_cast<kernels::Activation>(state.range(1));
  measure(state, 2, [&] { kernels::cpu::activation_forward<float>(m.view(m.a), m.view(m.b), activation); });
}

void activation_backward(benchmark::State& state) {
  Matrices m;
  const auto activation = static_cast<kernels::Activation>(state.range(1));
  measure(state, 3,
          [&] { kernels::cpu::activation_backward<float>(m.view(m.a), m.view(m.b), m.view(m.c), activation); });
}

void gated_silu_forward(benchmark::State& state) {
  Matrices m;
  measure(state, 3, [&] {
    kernels::cpu::gated_forward<float>(m.view(m.a), m.view(m.b), m.view(m.c), kernels::Activation::kSilu);
  });
}

void gated_silu_backward(benchmark::State& state) {
  Matrices m;
  measure(state, 5, [&] {
    kernels::cpu::gated_backward<float>(m.view(m.a), m.view(m.b), m.view(m.c), m.view(m.d), m.view(m.e),
                                        kernels::Activation::kSilu);
  });
}

void add(benchmark::State& state) {
  Matrices m;
  measure(state, 3, [&] { kernels::cpu::add<float>(m.view(m.a), m.view(m.b), m.view(m.c)); });
}

void transpose(benchmark::State& state) {
  Matrices m;
  const View<const float, 2> transposed{m.b.data(), {kRows, kColumns}, {1, kRows}};
  measure(state, 2, [&] { kernels::cpu::copy<float>(m.view(m.a), transposed); });
}

void add_column_sums(benchmark::State& state) {
  Matrices m;
  std::vector<float> sum(kColumns);
  measure(state, 1, [&] { kernels::cpu::add_column_sums<float>(make_view(sum.data(), kColumns), m.view(m.a)); });
}

void dropout(benchmark::State& state) {
  Matrices m;
  const std::vector<int64_t> record(kRows, 3);
  std::vector<int64_t> position;
  for (int64_t r = 0; r < kRows; ++r) {
    position.push_back(r);
  }
  measure(state, 2, [&] {
    kernels::cpu::dropout(kernels::Dropout<float>{m.view(m.a), m.view(m.b), make_view(record.data(), kRows),
                                                  make_view<const int64_t>(position.data(), kRows), 1, 0.1f});
  });
}

void activations(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"threads", "activation"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (const auto activation : {kernels::Activation::kRelu, kernels::Activation::kSilu, kernels::Activation::kGelu,
                                kernels::Activation::kTanh, kernels::Activation::kSoftplus}) {
    bench->Args({1, static_cast<int64_t>(activation)});
  }
}

void threads(benchmark::internal::Benchmark* bench) {
  bench->ArgName("threads")->UseRealTime()->Unit(benchmark::kMicrosecond)->Arg(1)->Arg(2);
}

BENCHMARK(activation_forward)->Apply(activations);
BENCHMARK(activation_backward)->Apply(activations);
BENCHMARK(gated_silu_forward)->Apply(threads);
BENCHMARK(gated_silu_backward)->Apply(threads);
BENCHMARK(add)->Apply(threads);
BENCHMARK(transpose)->Apply(threads);
BENCHMARK(add_column_sums)->Apply(threads);
BENCHMARK(dropout)->Apply(threads);

}  // namespace
}  // namespace blockstate::bench
