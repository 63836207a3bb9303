// SPDX-License-Identifier: Apache-2.0
// Selective scan on one core and on the pool, beside the loop it is measured against. "per_element" is the time of one
// (channel, step).
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "bench/bench_support.h"
#include "core/base/parallel.h"
#include "kernels/selective_scan.h"

namespace blockstate {
namespace {

using kernels::SelectiveScanBackward;
using kernels::SelectiveScanForward;

struct ScanData {
  ScanData(int64_t batch, int64_t length, int64_t width, int64_t states)
      : B(batch), L(length), D(width), N(states), tiles((length + 63) / 64) {
    u = bench::values(B * L * D, -1, 1);
    z = bench::values(B * L * D, -1, 1);
    dy = bench::values(B * L * D, -1, 1);
    delta = bench::values(B * L * D, -1, 1);
    b = bench::values(B * L * N, -1, 1);
    c = bench::values(B * L * N, -1, 1);
    skip = bench::values(D, 0.5f, 1.5f);
    bias = bench::values(D, -6, -3);
    a.resize(static_cast<size_t>(D * N));
    for (int64_t i = 0; i < D * N; ++i) {
      a[static_cast<size_t>(i)] = -static_cast<float>(i % N + 1);
    }
    state.resize(static_cast<size_t>(B * D * N));
    out.resize(static_cast<size_t>(B * L * D));
    checkpoint.resize(static_cast<size_t>(B * tiles * D * N));
  }

  SelectiveScanForward<float> forward(bool training) {
    SelectiveScanForward<float> f;
    f.y = make_view(out.data(), B, L, D);
    f.final = make_view(state.data(), B, D, N);
    if (training) {
      f.checkpoint = make_view(checkpoint.data(), B, tiles, D, N);
    } else {
      f.initial = make_view(const_cast<const float*>(state.data()), B, D, N);
    }
    f.u = make_view(const_cast<const float*>(u.data()), B, L, D);
    f.delta = make_view(const_cast<const float*>(delta.data()), B, L, D);
    f.A = make_view(const_cast<const float*>(a.data()), D, N);
    f.B = make_view(const_cast<const float*>(b.data()), B, L, N);
    f.C = make_view(const_cast<const float*>(c.data()), B, L, N);
    f.D = make_view(const_cast<const float*>(skip.data()), D);
    f.z = make_view(const_cast<const float*>(z.data()), B, L, D);
    f.delta_bias = make_view(const_cast<const float*>(bias.data()), D);
    return f;
  }

  int64_t B, L, D, N, tiles;
  std::vector<float> u, z, dy, delta, b, c, skip, bias, a, state, out, checkpoint;
};

void count(benchmark::State& state, const ScanData& data, double flops_per_state, double bytes_per_element) {
  const double elements = static_cast<double>(data.B * data.L * data.D) * static_cast<double>(state.iterations());
  state.counters["per_element"] =
      benchmark::Counter(elements, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["GFLOP/s"] =
      benchmark::Counter(elements * static_cast<double>(data.N) * flops_per_state * 1e-9, benchmark::Counter::kIsRate);
  state.counters["GB/s"] = benchmark::Counter(elements * bytes_per_element * 1e-9, benchmark::Counter::kIsRate);
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"B", "L", "D", "N", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond);
  b->Args({1, 2048, 1536, 16, 1})->Args({16, 1024, 128, 16, 1})->Args({1, 2048, 1536, 16, 2});
}

// The recurrence as a scalar loop with expf and the state in memory, time outermost: the shape of llama.cpp's x86 loop.
void selective_scan_scalar(benchmark::State& state) {
  ScanData data(state.range(0), state.range(1), state.range(2), state.range(3));
  const int64_t N = data.N;
  for (auto _ : state) {
    for (int64_t row = 0; row < data.B; ++row) {
      for (int64_t t = row * data.L; t < (row + 1) * data.L; ++t) {
        for (int64_t d = 0; d < data.D; ++d) {
          const int64_t at = t * data.D + d;
          const float r = data.delta[at] + data.bias[d];
          const float dt = r > 20 ? r : std::log1p(std::exp(r));
          const float w = dt * data.u[at];
          float* h = data.state.data() + (row * data.D + d) * N;
          float sum = 0;
          for (int64_t n = 0; n < N; ++n) {
            h[n] = h[n] * std::exp(dt * data.a[d * N + n]) + data.b[t * N + n] * w;
            sum += h[n] * data.c[t * N + n];
          }
          const float z = data.z[at];
          data.out[at] = (sum + data.skip[d] * data.u[at]) * (z / (1 + std::exp(-z)));
        }
      }
    }
    benchmark::DoNotOptimize(data.out.data());
    benchmark::ClobberMemory();
  }
  count(state, data, 6, 16);
}

void selective_scan_forward(benchmark::State& state) {
  set_thread_count(static_cast<int>(state.range(4)));
  ScanData data(state.range(0), state.range(1), state.range(2), state.range(3));
  const SelectiveScanForward<float> args = data.forward(data.L > 1);
  for (auto _ : state) {
    kernels::cpu::selective_scan_forward(args);
    benchmark::ClobberMemory();
  }
  count(state, data, 6, 16);
}

void selective_scan_backward(benchmark::State& state) {
  set_thread_count(static_cast<int>(state.range(4)));
  ScanData data(state.range(0), state.range(1), state.range(2), state.range(3));
  const int64_t B = data.B, L = data.L, D = data.D, N = data.N;
  const size_t rows = static_cast<size_t>(B * L);
  std::vector<float> du(rows * D), ddelta(rows * D), dz(rows * D), dB(rows * N), dC(rows * N);
  std::vector<float> dA(D * N), dD(D), dbias(D);
  SelectiveScanBackward<float> args;
  args.forward = data.forward(true);
  kernels::cpu::selective_scan_forward(args.forward);
  args.du = make_view(du.data(), B, L, D);
  args.ddelta = make_view(ddelta.data(), B, L, D);
  args.dz = make_view(dz.data(), B, L, D);
  args.dB = make_view(dB.data(), B, L, N);
  args.dC = make_view(dC.data(), B, L, N);
  args.dA = make_view(dA.data(), D, N);
  args.dD = make_view(dD.data(), D);
  args.ddelta_bias = make_view(dbias.data(), D);
  args.dy = make_view(const_cast<const float*>(data.dy.data()), B, L, D);
  for (auto _ : state) {
    kernels::cpu::selective_scan_backward(args);
    benchmark::ClobberMemory();
  }
  count(state, data, 20, 28);
}

BENCHMARK(selective_scan_scalar)
    ->ArgNames({"B", "L", "D", "N"})
    ->Args({1, 256, 1536, 16})
    ->Args({1, 1, 1536, 16})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(selective_scan_forward)->Apply(sizes)->Args({1, 1, 1536, 16, 1})->Args({1, 1, 768, 16, 1});
BENCHMARK(selective_scan_backward)->Apply(sizes);

}  // namespace
}  // namespace blockstate
