// SPDX-License-Identifier: Apache-2.0
// S4D as a recurrence, beside the convolution by FFT that it replaces. "per_element" is the time of one
// (channel, step) in nanoseconds.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <unsupported/Eigen/FFT>
#include <vector>

#include "bench/bench_support.h"
#include "bench/ceilings.h"
#include "core/base/parallel.h"
#include "kernels/diagonal_scan.h"

namespace blockstate {
namespace {

struct DiagonalData {
  DiagonalData(int64_t batch, int64_t length, int64_t width, int64_t states)
      : B(batch), L(length), D(width), P(states), tiles((length + kernels::kDiagonalCheckpoint - 1) / 64) {
    u = bench::values(B * L * D, -1, 1);
    dy = bench::values(B * L * D, -1, 1);
    c = bench::values(D * P * 2, -1, 1);
    skip = bench::values(D, 0.5f, 1.5f);
    const std::vector<float> rate = bench::values(D * P, 0.001f, 0.1f), turn = bench::values(D * P, 0, 3);
    for (size_t i = 0; i < rate.size(); ++i) {
      a.push_back(std::exp(-rate[i]) * std::cos(turn[i]));
      a.push_back(std::exp(-rate[i]) * std::sin(turn[i]));
    }
    y.resize(u.size());
    checkpoint.resize(static_cast<size_t>(B * tiles * P * 2 * D));
  }

  kernels::DiagonalScanForward<float> forward(bool training) {
    kernels::DiagonalScanForward<float> args;
    args.y = make_view(y.data(), B, L, D);
    args.checkpoint = make_view(training ? checkpoint.data() : nullptr, B, tiles, P, 2, D);
    args.u = make_view<const float>(u.data(), B, L, D);
    args.a = make_view<const float>(a.data(), D, P, 2);
    args.c = make_view<const float>(c.data(), D, P, 2);
    args.D = make_view<const float>(skip.data(), D);
    return args;
  }

  int64_t B, L, D, P, tiles;
  std::vector<float> u, dy, a, c, skip, y, checkpoint;
};

void count(benchmark::State& state, const DiagonalData& data, double flops_per_state, double bytes_per_element) {
  const int threads = static_cast<int>(state.range(4));
  const double elements = static_cast<double>(data.B * data.L * data.D);
  state.counters["per_element"] = benchmark::Counter(elements * static_cast<double>(state.iterations()) * 1e-9,
                                                     benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  bench::count_flops<float>(state, elements * static_cast<double>(data.P) * flops_per_state, threads);
  bench::count_bytes(state, elements * bytes_per_element, threads);
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"B", "L", "D", "P", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond);
  for (const int64_t threads : {1, 2}) {
    b->Args({1, 4096, 256, 32, threads})->Args({16, 1024, 64, 32, threads});
  }
}

// Bytes: u in, y out, and the checkpoint's 2 * P floats every 64 steps.
void diagonal_scan_forward(benchmark::State& state) {
  set_thread_count(static_cast<int>(state.range(4)));
  DiagonalData data(state.range(0), state.range(1), state.range(2), state.range(3));
  const auto args = data.forward(data.L > 1);
  for (auto _ : state) {
    kernels::cpu::diagonal_scan_forward(args);
    benchmark::ClobberMemory();
  }
  count(state, data, 11, 8 + 8 * static_cast<double>(data.P) / 64);
}

void diagonal_scan_backward(benchmark::State& state) {
  set_thread_count(static_cast<int>(state.range(4)));
  DiagonalData data(state.range(0), state.range(1), state.range(2), state.range(3));
  std::vector<float> du(data.u.size()), da(data.a.size()), dc(data.a.size()), dD(data.skip.size());
  kernels::DiagonalScanBackward<float> args;
  args.forward = data.forward(true);
  kernels::cpu::diagonal_scan_forward(args.forward);
  args.du = make_view(du.data(), data.B, data.L, data.D);
  args.da = make_view(da.data(), data.D, data.P, 2);
  args.dc = make_view(dc.data(), data.D, data.P, 2);
  args.dD = make_view(dD.data(), data.D);
  args.dy = make_view<const float>(data.dy.data(), data.B, data.L, data.D);
  for (auto _ : state) {
    kernels::cpu::diagonal_scan_backward(args);
    benchmark::ClobberMemory();
  }
  count(state, data, 31, 12 + 8 * static_cast<double>(data.P) / 64);
}

// The same layer as its authors' code runs it: kernel by a Vandermonde product, then three transforms of 2L a channel,
// kissfft of Eigen. `kernel` 0 leaves the making of the kernel out, which is kind to it.
void convolution_by_fft(benchmark::State& state) {
  DiagonalData data(state.range(0), state.range(1), state.range(2), state.range(3));
  const bool with_kernel = state.range(5) != 0;
  const size_t L = static_cast<size_t>(data.L), P = static_cast<size_t>(data.P), D = static_cast<size_t>(data.D);
  Eigen::FFT<float> fft;
  std::vector<float> kernel(2 * L, 0), input(2 * L, 0), output(2 * L);
  std::vector<std::complex<float>> kernel_spectrum, spectrum;
  for (auto _ : state) {
    for (size_t d = 0; d < D; ++d) {
      if (with_kernel) {
        std::fill(kernel.begin(), kernel.end(), 0.0f);
        for (size_t p = 0; p < P; ++p) {
          const std::complex<float> a(data.a[2 * (d * P + p)], data.a[2 * (d * P + p) + 1]);
          std::complex<float> power(data.c[2 * (d * P + p)], data.c[2 * (d * P + p) + 1]);
          for (size_t l = 0; l < L && std::norm(power) > 1e-30f; ++l) {  // denormal numbers would cost far more
            kernel[l] += power.real();
            power = {power.real() * a.real() - power.imag() * a.imag(),
                     power.real() * a.imag() + power.imag() * a.real()};
          }
        }
      }
      for (size_t t = 0; t < L; ++t) {
        input[t] = data.u[t * D + d];
      }
      fft.fwd(kernel_spectrum, kernel);
      fft.fwd(spectrum, input);
      for (size_t i = 0; i < spectrum.size(); ++i) {
        spectrum[i] *= kernel_spectrum[i];
      }
      fft.inv(output, spectrum);
      for (size_t t = 0; t < L; ++t) {
        data.y[t * D + d] = output[t] + data.skip[d] * input[t];
      }
    }
    benchmark::ClobberMemory();
  }
  state.counters["per_element"] =
      benchmark::Counter(static_cast<double>(data.L * data.D) * static_cast<double>(state.iterations()) * 1e-9,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

BENCHMARK(diagonal_scan_forward)->Apply(sizes)->Args({1, 1, 512, 32, 1});
BENCHMARK(diagonal_scan_backward)->Apply(sizes);
BENCHMARK(convolution_by_fft)
    ->ArgNames({"B", "L", "D", "P", "threads", "kernel"})
    ->Args({1, 4096, 256, 32, 1, 0})
    ->Args({1, 4096, 64, 32, 1, 1})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace blockstate
