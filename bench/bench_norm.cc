// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <vector>

#include "bench/bench_support.h"
#include "bench/ceilings.h"
#include "kernels/norm.h"

namespace blockstate::bench {
namespace {

struct Rows {
  Rows(int64_t rows, int64_t columns)
      : R(rows),
        D(columns),
        x(values(R * D, -3, 3)),
        residual(x),
        h(x),
        y(x),
        dh(x),
        weight(values(D, 0, 2)),
        dweight(weight),
        bias(weight),
        dbias(weight),
        mean(values(R, 0, 1)),
        reciprocal(mean) {}
  int64_t R, D;
  std::vector<float> x, residual, h, y, dh, weight, dweight, bias, dbias, mean, reciprocal;
  View<float, 2> matrix(std::vector<float>& data) const { return make_view(data.data(), R, D); }
};

// RMS or Layer with the residual: reads x and residual, writes h and y.
void norm_forward(benchmark::State& state) {
  Rows rows(state.range(0), state.range(1));
  const bool layer = state.range(2) != 0;
  const int threads = static_cast<int>(state.range(3));
  const PoolSize pool(threads);
  kernels::NormForward<float> args;
  args.y = rows.matrix(rows.y);
  args.h = rows.matrix(rows.h);
  args.x = rows.matrix(rows.x);
  args.residual = rows.matrix(rows.residual);
  args.weight = make_view(rows.weight.data(), rows.D);
  args.reciprocal = make_view(rows.reciprocal.data(), rows.R);
  if (layer) {
    args.mean = make_view(rows.mean.data(), rows.R);
    args.bias = make_view(rows.bias.data(), rows.D);
  }
  for (auto _ : state) {
    kernels::cpu::norm_forward(args);
    benchmark::ClobberMemory();
  }
  count_bytes(state, 4.0 * 4.0 * static_cast<double>(rows.R * rows.D), threads);
}

// Reads dy, h and dh_out, writes dh.
void norm_backward(benchmark::State& state) {
  Rows rows(state.range(0), state.range(1));
  const bool layer = state.range(2) != 0;
  const int threads = static_cast<int>(state.range(3));
  const PoolSize pool(threads);
  kernels::NormBackward<float> args;
  args.dh = rows.matrix(rows.dh);
  args.dweight = make_view(rows.dweight.data(), rows.D);
  args.dy = rows.matrix(rows.y);
  args.dh_out = rows.matrix(rows.residual);
  args.h = rows.matrix(rows.h);
  args.weight = make_view(rows.weight.data(), rows.D);
  args.reciprocal = make_view(rows.reciprocal.data(), rows.R);
  if (layer) {
    args.mean = make_view(rows.mean.data(), rows.R);
    args.dbias = make_view(rows.dbias.data(), rows.D);
  }
  for (auto _ : state) {
    kernels::cpu::norm_backward(args);
    benchmark::ClobberMemory();
  }
  count_bytes(state, 4.0 * 4.0 * static_cast<double>(rows.R * rows.D), threads);
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"R", "D", "layer", "threads"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (const int64_t layer : {0, 1}) {
    bench->Args({65536, 64, layer, 1})->Args({16384, 256, layer, 1})->Args({4096, 1024, layer, 1});
    bench->Args({16384, 256, layer, 2});
  }
}
BENCHMARK(norm_forward)->Apply(shapes);
BENCHMARK(norm_backward)->Apply(shapes);

}  // namespace
}  // namespace blockstate::bench
