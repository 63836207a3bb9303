// SPDX-License-Identifier: Apache-2.0
// Sliding-window attention, and one step of generation. FLOPs are the useful ones: visible pairs only, 4 P a pair
// forward and 10 P backward; what a tile computes beyond its window counts for nothing.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "bench/bench_support.h"
#include "bench/ceilings.h"
#include "core/base/parallel.h"
#include "kernels/attention.h"

namespace blockstate {
namespace {

struct AttentionData {
  AttentionData(int64_t length, int64_t carried, int64_t heads, int64_t head_width, int64_t window, bool with_bias)
      : L(length), J(length + carried), H(heads), P(head_width), M(with_bias ? window : 0) {
    q = bench::values(L * H * P, -1, 1);
    k = bench::values(J * H * P, -1, 1);
    v = bench::values(J * H * P, -2, 2);
    bias = bench::values(H * M, -1, 1);
    for (int64_t i = 0; i < L; ++i) {
      end.push_back(i + carried + 1);
      begin.push_back(std::max<int64_t>(0, end.back() - window));
      pairs += static_cast<double>((end.back() - begin.back()) * H);
    }
    y.resize(q.size());
    log_sum_exp.resize(static_cast<size_t>(H * L));
  }

  kernels::AttentionForward<float> forward() {
    kernels::AttentionForward<float> args;
    args.y = make_view(y.data(), 1, L, H, P);
    args.log_sum_exp = make_view(log_sum_exp.data(), 1, H, L);
    args.q = make_view<const float>(q.data(), 1, L, H, P);
    args.k = make_view<const float>(k.data(), 1, J, H, P);
    args.v = make_view<const float>(v.data(), 1, J, H, P);
    args.begin = make_view<const int64_t>(begin.data(), 1, L);
    args.end = make_view<const int64_t>(end.data(), 1, L);
    args.bias = make_view<const float>(M > 0 ? bias.data() : nullptr, H, M);
    args.scale = 1 / std::sqrt(static_cast<float>(P));
    args.offset = J - L;
    return args;
  }

  int64_t L, J, H, P, M;
  double pairs = 0;
  std::vector<float> q, k, v, bias, y, log_sum_exp;
  std::vector<int64_t> begin, end;
};

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"L", "H", "P", "window", "bias", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond);
  for (const int64_t threads : {1, 2}) {
    b->Args({2048, 4, 64, 512, 0, threads})->Args({2048, 4, 32, 256, 0, threads})->Args({1024, 4, 16, 128, 0, threads});
    b->Args({2048, 4, 64, 512, 1, threads})->Args({2048, 4, 64, 2048, 0, threads});
  }
}

void attention_forward(benchmark::State& state) {
  const int threads = static_cast<int>(state.range(5));
  set_thread_count(threads);
  AttentionData data(state.range(0), 0, state.range(1), state.range(2), state.range(3), state.range(4) != 0);
  const auto args = data.forward();
  for (auto _ : state) {
    kernels::cpu::attention_forward(args);
    benchmark::ClobberMemory();
  }
  bench::count_flops<float>(state, data.pairs * 4 * static_cast<double>(data.P), threads);
}

void attention_backward(benchmark::State& state) {
  const int threads = static_cast<int>(state.range(5));
  set_thread_count(threads);
  AttentionData data(state.range(0), 0, state.range(1), state.range(2), state.range(3), state.range(4) != 0);
  std::vector<float> dy = bench::values(data.L * data.H * data.P, -1, 1);
  std::vector<float> dq(data.q.size()), dk(data.k.size()), dv(data.v.size()), dbias(data.bias.size());
  kernels::AttentionBackward<float> args;
  args.forward = data.forward();
  kernels::cpu::attention_forward(args.forward);
  args.dq = make_view(dq.data(), 1, data.L, data.H, data.P);
  args.dk = make_view(dk.data(), 1, data.J, data.H, data.P);
  args.dv = make_view(dv.data(), 1, data.J, data.H, data.P);
  args.dbias = make_view(data.M > 0 ? dbias.data() : nullptr, data.H, data.M);
  args.dy = make_view<const float>(dy.data(), 1, data.L, data.H, data.P);
  for (auto _ : state) {
    kernels::cpu::attention_backward(args);
    benchmark::ClobberMemory();
  }
  bench::count_flops<float>(state, data.pairs * 10 * static_cast<double>(data.P), threads);
}

// One query against a window of carried keys: bound by reading them.
void attention_step(benchmark::State& state) {
  set_thread_count(1);
  AttentionData data(1, state.range(2) - 1, state.range(0), state.range(1), state.range(2), false);
  const auto args = data.forward();
  for (auto _ : state) {
    kernels::cpu::attention_forward(args);
    benchmark::ClobberMemory();
  }
  bench::count_bytes(state, data.pairs * 8 * static_cast<double>(data.P));
}

BENCHMARK(attention_forward)->Apply(sizes);
BENCHMARK(attention_backward)->Apply(sizes);
BENCHMARK(attention_step)
    ->ArgNames({"H", "P", "window"})
    ->Args({8, 64, 512})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace blockstate
