// SPDX-License-Identifier: Apache-2.0
// Causal convolution with silu, K = 4. "per_element" is the time of one (channel, step).
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "bench/bench_support.h"
#include "core/base/parallel.h"
#include "kernels/causal_conv1d.h"

namespace blockstate {
namespace {

constexpr int64_t kTaps = 4;

struct ConvData {
  ConvData(int64_t batch, int64_t length, int64_t width) : B(batch), L(length), D(width) {
    x = bench::values(B * L * D, -1, 1);
    dy = bench::values(B * L * D, -1, 1);
    weight = bench::values(D * kTaps, -1, 1);
    bias = bench::values(D, -1, 1);
    state.resize(static_cast<size_t>(B * (kTaps - 1) * D));
    y.resize(x.size());
    dx.resize(x.size());
    dweight.resize(weight.size());
    dbias.resize(bias.size());
  }

  int64_t B, L, D;
  std::vector<float> x, dy, weight, bias, state, y, dx, dweight, dbias;
};

void count(benchmark::State& state, const ConvData& data, double flops, double bytes) {
  const double elements = static_cast<double>(data.B * data.L * data.D) * static_cast<double>(state.iterations());
  state.counters["per_element"] =
      benchmark::Counter(elements, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["GFLOP/s"] = benchmark::Counter(elements * flops * 1e-9, benchmark::Counter::kIsRate);
  state.counters["GB/s"] = benchmark::Counter(elements * bytes * 1e-9, benchmark::Counter::kIsRate);
}

void conv1d_forward(benchmark::State& state) {
  set_thread_count(static_cast<int>(state.range(3)));
  ConvData data(state.range(0), state.range(1), state.range(2));
  kernels::CausalConv1dForward<float> args;
  args.y = make_view(data.y.data(), data.B, data.L, data.D);
  args.x = make_view(const_cast<const float*>(data.x.data()), data.B, data.L, data.D);
  args.weight = make_view(const_cast<const float*>(data.weight.data()), data.D, kTaps);
  args.bias = make_view(const_cast<const float*>(data.bias.data()), data.D);
  args.initial = make_view(const_cast<const float*>(data.state.data()), data.B, kTaps - 1, data.D);
  args.final = make_view(data.state.data(), data.B, kTaps - 1, data.D);
  for (auto _ : state) {
    kernels::cpu::causal_conv1d_forward(args);
    benchmark::ClobberMemory();
  }
  count(state, data, 2 * kTaps + 4, 8);
}

void conv1d_backward(benchmark::State& state) {
  set_thread_count(static_cast<int>(state.range(3)));
  ConvData data(state.range(0), state.range(1), state.range(2));
  kernels::CausalConv1dBackward<float> args;
  args.dx = make_view(data.dx.data(), data.B, data.L, data.D);
  args.dweight = make_view(data.dweight.data(), data.D, kTaps);
  args.dbias = make_view(data.dbias.data(), data.D);
  args.dy = make_view(const_cast<const float*>(data.dy.data()), data.B, data.L, data.D);
  args.x = make_view(const_cast<const float*>(data.x.data()), data.B, data.L, data.D);
  args.weight = make_view(const_cast<const float*>(data.weight.data()), data.D, kTaps);
  args.bias = make_view(const_cast<const float*>(data.bias.data()), data.D);
  for (auto _ : state) {
    kernels::cpu::causal_conv1d_backward(args);
    benchmark::ClobberMemory();
  }
  count(state, data, 6 * kTaps + 10, 12);
}

void conv1d_scalar(benchmark::State& state) {
  ConvData data(state.range(0), state.range(1), state.range(2));
  for (auto _ : state) {
    for (int64_t t = 0; t < data.L; ++t) {
      for (int64_t d = 0; d < data.D; ++d) {
        float a = data.bias[d];
        for (int64_t j = 0; j < kTaps && j <= t; ++j) {
          a += data.weight[d * kTaps + kTaps - 1 - j] * data.x[(t - j) * data.D + d];
        }
        data.y[t * data.D + d] = a / (1 + std::exp(-a));
      }
    }
    benchmark::DoNotOptimize(data.y.data());
    benchmark::ClobberMemory();
  }
  count(state, data, 2 * kTaps + 4, 8);
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"B", "L", "D", "threads"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  b->Args({1, 2048, 1536, 1})->Args({16, 1024, 128, 1})->Args({1, 2048, 1536, 2})->Args({1, 1, 1536, 1});
}

BENCHMARK(conv1d_scalar)->ArgNames({"B", "L", "D"})->Args({1, 256, 1536})->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(conv1d_forward)->Apply(sizes);
BENCHMARK(conv1d_backward)->Apply(sizes);

}  // namespace
}  // namespace blockstate
