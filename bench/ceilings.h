// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, measured when the benchmarks start, so that every figure has its ceiling beside it.
#pragma once

#include <benchmark/benchmark.h>

#include <string>

namespace blockstate::bench {

struct Ceilings {
  double fma_float = 0;   // GFLOP/s of one core: independent fused multiply-adds in registers, float
  double fma_double = 0;  // the same, double
  double copy = 0;        // GB/s of one core: memcpy of 256 MiB, bytes read plus bytes written
  double copy_all = 0;    // the same on all threads of the pool
  std::string instruction_set;
};

/// Measured once, on first use.
const Ceilings& ceilings();

/// Sets the counters "GFLOP" (a second) and "of_peak" (share of `threads` cores' peak in T) from the work of one
/// iteration.
template <class T>
void count_flops(benchmark::State& state, double flops_per_iteration, int threads = 1);

/// Sets the counters "GB" (a second) and "of_copy" from the bytes read plus written in one iteration.
void count_bytes(benchmark::State& state, double bytes_per_iteration, int threads = 1);

}  // namespace blockstate::bench
