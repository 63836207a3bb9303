// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <vector>

#include "bench/bench_support.h"
#include "bench/ceilings.h"
#include "kernels/gemm.h"

namespace blockstate::bench {
namespace {

enum Layout { kPlain, kTransposeB, kTransposeA };

template <class T>
void gemm(benchmark::State& state) {
  const int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  const auto layout = static_cast<Layout>(state.range(3));
  const int threads = static_cast<int>(state.range(4));
  const PoolSize pool(threads);
  std::vector<T> a(static_cast<size_t>(m * k), T(0.5)), b(static_cast<size_t>(k * n), T(0.25));
  std::vector<T> c(static_cast<size_t>(m * n));
  kernels::Gemm<T> args;
  args.transpose_a = layout == kTransposeA;
  args.transpose_b = layout == kTransposeB;
  args.c = make_view(c.data(), m, n);
  args.a = args.transpose_a ? make_view(a.data(), k, m) : make_view(a.data(), m, k);
  args.b = args.transpose_b ? make_view(b.data(), n, k) : make_view(b.data(), k, n);
  for (auto _ : state) {
    kernels::cpu::gemm(args);
    benchmark::ClobberMemory();
  }
  count_flops<T>(state, 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k), threads);
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"m", "n", "k", "layout", "threads"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (const int64_t threads : {1, 2}) {
    bench->Args({1024, 1024, 1024, kPlain, threads});
    // A layer of width 64 over 16 records of 1024 steps: forward, gradient of the input, gradient of the weight.
    bench->Args({16384, 256, 64, kTransposeB, threads});
    bench->Args({16384, 64, 256, kPlain, threads});
    bench->Args({256, 64, 16384, kTransposeA, threads});
    // The projection of Mamba to dt, B and C.
    bench->Args({16384, 36, 128, kTransposeB, threads});
    bench->Args({36, 128, 16384, kTransposeA, threads});
    bench->Args({16384, 128, 4, kTransposeB, threads});
    bench->Args({768, 3072, 4096, kTransposeA, threads});
  }
  // One step of generation, and a batch of 16 of them.
  bench->Args({1, 256, 64, kTransposeB, 2})->Args({1, 3072, 768, kTransposeB, 2})->Args({16, 256, 64, kTransposeB, 2});
}
BENCHMARK(gemm<float>)->Apply(shapes);

void double_shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"m", "n", "k", "layout", "threads"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  bench->Args({512, 512, 512, kPlain, 1});
}
BENCHMARK(gemm<double>)->Apply(double_shapes);

}  // namespace
}  // namespace blockstate::bench
