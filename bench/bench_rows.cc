// SPDX-License-Identifier: Apache-2.0
// Kernels at both ends of a model: embedding, cross entropy, pooling; and the optimiser.
#include <benchmark/benchmark.h>

#include <vector>

#include "bench/bench_support.h"
#include "bench/ceilings.h"
#include "kernels/adamw.h"
#include "kernels/cross_entropy.h"
#include "kernels/embedding.h"
#include "kernels/pool.h"

namespace blockstate::bench {
namespace {

std::vector<int64_t> ids(int64_t count, int64_t bound) {
  RandomStream random(7);
  std::vector<int64_t> out;
  for (int64_t i = 0; i < count; ++i) {
    out.push_back(static_cast<int64_t>(random.below(static_cast<uint64_t>(bound))));
  }
  return out;
}

template <class Body>
void measure(benchmark::State& state, double bytes, const Body& body) {
  const int threads = static_cast<int>(state.range(0));
  const PoolSize pool(threads);
  for (auto _ : state) {
    body();
    benchmark::ClobberMemory();
  }
  count_bytes(state, bytes, threads);
}

constexpr int64_t kRows = 65536;
constexpr int64_t kColumns = 64;

void embedding_forward(benchmark::State& state) {
  const int64_t entries = state.range(1);
  const std::vector<int64_t> id = ids(kRows, entries);
  const std::vector<float> table = values(entries * kColumns, -1, 1);
  std::vector<float> y(kRows * kColumns);
  measure(state, 4.0 * kRows * kColumns, [&] {
    kernels::cpu::embedding_forward(make_view(y.data(), kRows, kColumns), make_view(id.data(), kRows),
                                    make_view(table.data(), entries, kColumns));
  });
}

void embedding_backward(benchmark::State& state) {
  const int64_t entries = state.range(1);
  const std::vector<int64_t> id = ids(kRows, entries);
  std::vector<float> table = values(entries * kColumns, -1, 1);
  const std::vector<float> dy = values(kRows * kColumns, -1, 1);
  measure(state, 4.0 * kRows * kColumns, [&] {
    kernels::cpu::embedding_backward(make_view(table.data(), entries, kColumns), make_view(dy.data(), kRows, kColumns),
                                     make_view(id.data(), kRows));
  });
}

// Forward and backward together: reads the logits twice, writes their gradient.
void cross_entropy(benchmark::State& state) {
  const int64_t classes = state.range(1);
  const std::vector<float> logits = values(kRows * classes, -3, 3), dloss(kRows, 1);
  const std::vector<int64_t> targets = ids(kRows, classes);
  std::vector<float> dlogits(logits.size()), loss(kRows), log_sum_exp(kRows);
  const auto x = make_view(logits.data(), kRows, classes);
  const auto target = make_view(targets.data(), kRows);
  measure(state, 3 * 4.0 * static_cast<double>(kRows * classes), [&] {
    kernels::cpu::cross_entropy_forward(kernels::CrossEntropyForward<float>{
        make_view(loss.data(), kRows), make_view(log_sum_exp.data(), kRows), x, target, 0});
    kernels::cpu::cross_entropy_backward(
        kernels::CrossEntropyBackward<float>{make_view(dlogits.data(), kRows, classes), make_view(dloss.data(), kRows),
                                             x, target, make_view<const float>(log_sum_exp.data(), kRows), 0});
  });
}

void pool_forward(benchmark::State& state) {
  const std::vector<float> x = values(kRows * kColumns, -1, 1), weight(kRows, 1);
  const std::vector<int64_t> record(kRows, 0);
  std::vector<float> y(kColumns);
  measure(state, 4.0 * kRows * kColumns, [&] {
    kernels::cpu::pool_forward(make_view(y.data(), 1, kColumns), make_view(x.data(), 1, kRows, kColumns),
                               make_view(weight.data(), 1, kRows), make_view(record.data(), 1, kRows));
  });
}

// Reads p, m, v and g, writes p, m and v.
void adamw(benchmark::State& state) {
  constexpr int64_t kCount = int64_t{1} << 22;
  std::vector<float> p = values(kCount, -1, 1), m(kCount), v(kCount, 1);
  const std::vector<float> g = values(kCount, -1, 1);
  const kernels::AdamWTensor<float> tensor{p.data(), m.data(), v.data(), g.data(), kCount, 1e-6, 0.1};
  measure(state, 7 * 4.0 * kCount, [&] { kernels::cpu::adamw(&tensor, 1, kernels::AdamWOptions{}); });
}

void squared_norm(benchmark::State& state) {
  constexpr int64_t kCount = int64_t{1} << 22;
  const std::vector<float> g = values(kCount, -1, 1);
  const kernels::NormTensor<float> tensor{g.data(), kCount};
  measure(state, 4.0 * kCount, [&] { benchmark::DoNotOptimize(kernels::cpu::squared_norm(&tensor, 1)); });
}

template <int64_t... kSizes>
void sizes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"threads", "V"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (const int64_t size : {kSizes...}) {
    bench->Args({1, size})->Args({2, size});
  }
}

void threads(benchmark::internal::Benchmark* bench) {
  bench->ArgName("threads")->UseRealTime()->Unit(benchmark::kMicrosecond)->Arg(1)->Arg(2);
}

BENCHMARK(embedding_forward)->Apply(sizes<16, 4096>);
BENCHMARK(embedding_backward)->Apply(sizes<16, 4096>);
BENCHMARK(cross_entropy)->Apply(sizes<5, 16, 256>);
BENCHMARK(pool_forward)->Apply(threads);
BENCHMARK(adamw)->Apply(threads);
BENCHMARK(squared_norm)->Apply(threads);

}  // namespace
}  // namespace blockstate::bench
