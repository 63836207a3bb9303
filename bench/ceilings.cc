// SPDX-License-Identifier: Apache-2.0
#include "bench/ceilings.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <type_traits>
#include <vector>

#include "core/base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/ceilings.cc"
#include <hwy/foreach_target.h>
// Highway wants its own header after foreach_target.h.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace blockstate::bench::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Twelve chains hide the latency of two FMA units. Returns the FLOPs done; `seed` keeps the compiler from folding.
template <class T>
double spin(int64_t rounds, T seed, T* out) {
  const hn::ScalableTag<T> d;
  const auto factor = hn::Set(d, T(0.999) + seed);
  const auto term = hn::Set(d, seed);
  // Different starts, lest the compiler see that all chains are one.
  const auto start = [&](int i) { return hn::Set(d, seed * static_cast<T>(i)); };
  auto a0 = start(0), a1 = start(1), a2 = start(2), a3 = start(3), a4 = start(4), a5 = start(5);
  auto a6 = start(6), a7 = start(7), a8 = start(8), a9 = start(9), a10 = start(10), a11 = start(11);
  for (int64_t i = 0; i < rounds; ++i) {
    a0 = hn::MulAdd(a0, factor, term), a1 = hn::MulAdd(a1, factor, term), a2 = hn::MulAdd(a2, factor, term);
    a3 = hn::MulAdd(a3, factor, term), a4 = hn::MulAdd(a4, factor, term), a5 = hn::MulAdd(a5, factor, term);
    a6 = hn::MulAdd(a6, factor, term), a7 = hn::MulAdd(a7, factor, term), a8 = hn::MulAdd(a8, factor, term);
    a9 = hn::MulAdd(a9, factor, term), a10 = hn::MulAdd(a10, factor, term), a11 = hn::MulAdd(a11, factor, term);
  }
  const auto sum = a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + a10 + a11;
  *out = hn::GetLane(hn::SumOfLanes(d, sum));
  return 24.0 * static_cast<double>(rounds) * static_cast<double>(hn::Lanes(d));
}

double spin_float(int64_t rounds, float* out) { return spin<float>(rounds, 1e-6f, out); }
double spin_double(int64_t rounds, double* out) { return spin<double>(rounds, 1e-6, out); }
const char* instruction_set() { return hwy::TargetName(HWY_TARGET); }

}  // namespace blockstate::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace blockstate::bench {
namespace {

HWY_EXPORT(spin_float);
HWY_EXPORT(spin_double);
HWY_EXPORT(instruction_set);

// Best of several short runs: the machine may be shared.
template <class Run>
double best_rate(const Run& run) {
  double best = 0;
  for (int i = 0; i < 9; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const double work = run();
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    best = std::max(best, work / spent.count() * 1e-9);
  }
  return best;
}

double copy_rate(bool all_threads) {
  constexpr int64_t kBytes = int64_t{256} << 20;
  constexpr int64_t kPiece = int64_t{4} << 20;
  std::vector<char> from(kBytes, 1), to(kBytes, 2);
  const auto piece = [&](int64_t begin, int64_t end) {
    std::memcpy(to.data() + begin, from.data() + begin, static_cast<size_t>(end - begin));
    benchmark::ClobberMemory();
  };
  return best_rate([&] {
    if (all_threads) {
      parallel_for(kBytes, kPiece, piece);
    } else {
      piece(0, kBytes);
    }
    return 2.0 * kBytes;
  });
}

}  // namespace

const Ceilings& ceilings() {
  static const Ceilings measured = [] {
    Ceilings c;
    float keep_float = 0;
    double keep_double = 0;
    c.fma_float = best_rate([&] { return HWY_DYNAMIC_DISPATCH(spin_float)(2000000, &keep_float); });
    c.fma_double = best_rate([&] { return HWY_DYNAMIC_DISPATCH(spin_double)(2000000, &keep_double); });
    benchmark::DoNotOptimize(keep_float);
    benchmark::DoNotOptimize(keep_double);
    c.copy = copy_rate(false);
    c.copy_all = copy_rate(true);
    c.instruction_set = HWY_DYNAMIC_DISPATCH(instruction_set)();
    return c;
  }();
  return measured;
}

template <class T>
void count_flops(benchmark::State& state, double flops_per_iteration, int threads) {
  const double total = flops_per_iteration * static_cast<double>(state.iterations());
  const double peak = (std::is_same_v<T, double> ? ceilings().fma_double : ceilings().fma_float) * threads;
  state.counters["GFLOP"] = benchmark::Counter(total * 1e-9, benchmark::Counter::kIsRate);
  state.counters["of_peak"] = benchmark::Counter(total * 1e-9 / peak, benchmark::Counter::kIsRate);
}
template void count_flops<float>(benchmark::State&, double, int);
template void count_flops<double>(benchmark::State&, double, int);

void count_bytes(benchmark::State& state, double bytes_per_iteration, int threads) {
  const double total = bytes_per_iteration * static_cast<double>(state.iterations());
  const double copy = threads > 1 ? ceilings().copy_all : ceilings().copy;
  state.counters["GB"] = benchmark::Counter(total * 1e-9, benchmark::Counter::kIsRate);
  state.counters["of_copy"] = benchmark::Counter(total * 1e-9 / copy, benchmark::Counter::kIsRate);
}

}  // namespace blockstate::bench
#endif  // HWY_ONCE
