// SPDX-License-Identifier: Apache-2.0
// Benchmarks of the kernels on the CPU: bench_kernels [--benchmark_filter=REGEX ...]. The context lines give the
// ceilings; the counters of_peak and of_copy are shares of them. Wall time is measured, because a benchmark may use
// the pool: its argument "threads" says how many.
#include <benchmark/benchmark.h>

#include <fstream>
#include <string>

#include "bench/ceilings.h"
#include "core/base/check.h"
#include "core/base/parallel.h"

namespace {

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0) {
      return line.substr(line.find(':') + 2);
    }
  }
  return "unknown";
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 1;
  }
  using blockstate::join;
  const auto& c = blockstate::bench::ceilings();
  benchmark::AddCustomContext("processor", processor_name());
  benchmark::AddCustomContext("instruction set", c.instruction_set);
  benchmark::AddCustomContext("threads of the pool", join(blockstate::thread_count()));
  benchmark::AddCustomContext("FMA peak of one core",
                              join(c.fma_float, " GFLOP/s float, ", c.fma_double, " GFLOP/s double"));
  benchmark::AddCustomContext("copy of 256 MiB (read + write)",
                              join(c.copy, " GB/s one core, ", c.copy_all, " GB/s all threads"));
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
