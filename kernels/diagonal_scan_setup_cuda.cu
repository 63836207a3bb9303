// SPDX-License-Identifier: Apache-2.0
// What the passes of the diagonal scan in blocks need before and between them.
#include <algorithm>

#include "kernels/cuda_support.cuh"
#include "kernels/diagonal_scan_blocks.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 128;

__device__ double2 multiply(double2 x, double2 y) { return {x.x * y.x - x.y * y.y, x.x * y.y + x.y * y.x}; }

__device__ double2 power(double2 base, int64_t exponent) {
  double2 result = {1, 0};
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) {
      result = multiply(result, base);
    }
    base = multiply(base, base);
  }
  return result;
}

/// The bfloat16 of the given order in the sum that stands for a value, as bits; each rounded to nearest.
__device__ uint32_t piece_of(double value, int order) {
  float left = static_cast<float>(value);
  for (int i = 0; i < order; ++i) {
    left -= __bfloat162float(__float2bfloat16_rn(left));
  }
  return __bfloat16_as_ushort(__float2bfloat16_rn(left));
}

__device__ uint32_t pair_of(double first, double second, int order) {
  return piece_of(first, order) | piece_of(second, order) << 16;
}

/// One block a channel. mma's right-hand matrix gives lane i the rows 2 (i % 4) + {0, 1} (+ 8 in the second register)
/// of column i / 4.
__global__ void __launch_bounds__(kThreads) tables_kernel(View<const float, 3> a, View<const float, 3> c,
                                                          View<const float, 1> D, Tables kind, uint32_t* tables) {
  __shared__ double2 powers[kBlock + 1][kBlockStates], out[kBlockStates];
  __shared__ double response[kBlock];
  const int64_t d = blockIdx.x;
  const int thread = threadIdx.x;
  if (thread < kBlockStates) {
    const bool valid = thread < a.size[1];
    const double2 base = {valid ? a(d, thread, 0) : 0.0, valid ? a(d, thread, 1) : 0.0};
    out[thread] = {valid ? c(d, thread, 0) : 0.0, valid ? c(d, thread, 1) : 0.0};
    double2 value = {valid ? 1.0 : 0.0, 0};
    for (int k = 0; k <= kBlock; ++k) {
      powers[k][thread] = value;
      value = multiply(value, base);
    }
  }
  __syncthreads();
  if (thread < kBlock) {
    double sum = thread == 0 && D ? D(d) : 0.0;
    for (int p = 0; p < kBlockStates; ++p) {
      sum += multiply(out[p], powers[thread][p]).x;
    }
    response[thread] = sum;
  }
  __syncthreads();
  const auto inject = [&](int k, int p, int part) {
    const double2 value =
        kind == Tables::kReverse ? multiply(out[p], powers[kBlock - k][p]) : powers[kBlock - 1 - k][p];
    return part == 0 ? value.x : value.y;
  };
  const auto read = [&](int k, int p) {
    return kind == Tables::kReverse ? powers[k][p] : multiply(out[p], powers[k + 1][p]);
  };
  const auto slope = [&](int k, int p, int part) {
    const int times = kBlock - 1 - k;
    const double2 value = times == 0 ? double2{0, 0} : powers[times - 1][p];
    return times * (part == 0 ? value.x : value.y);
  };
  for (int i = thread; i < kTableWords * 32; i += kThreads) {
    const int word = i / 32, lane = i % 32, row = 2 * (lane % 4) + word % 2 * 8, column = lane / 4;
    uint32_t value;
    if (word < kRead) {
      const int order = word / 16, p = word / 2 % 8 * 4 + column / 2;
      value = pair_of(inject(row, p, column % 2), inject(row + 1, p, column % 2), order);
    } else if (kind == Tables::kGradient && word < kToeplitz) {
      const int at = word - kRead, order = at / 16, p = at / 2 % 8 * 4 + column / 2;
      value = pair_of(slope(row, p, column % 2), slope(row + 1, p, column % 2), order);
    } else if (word < kToeplitz) {
      const int at = word - kRead, order = at / 16, p = at / 4 % 4 * 8 + row / 2, k = at / 2 % 2 * 8 + column;
      const double2 weight = read(k, p);
      value = pair_of(weight.x, -weight.y, order);
    } else if (word < kPower) {
      const int at = word - kToeplitz, order = at / 4, k = at / 2 % 2 * 8 + column;
      value = pair_of(k >= row ? response[k - row] : 0.0, k >= row + 1 ? response[k - row - 1] : 0.0, order);
    } else {
      const int part = word % 2, p = (word - kPower) / 2 % 8 * 4 + lane % 4;
      const double2 exact = powers[kBlock][p];
      const double2 rounded = {static_cast<float>(exact.x), static_cast<float>(exact.y)};
      double2 result = rounded;
      if (word >= kRest) {  // exact^n / rounded^n - 1, from the small difference
        const double size = rounded.x * rounded.x + rounded.y * rounded.y;
        const double2 difference = {exact.x - rounded.x, exact.y - rounded.y};
        const double2 scaled = multiply(difference, {rounded.x, -rounded.y});
        // A power near 0 forgets all before there is anything to correct; so small a number may also lack digits.
        result = size > 1e-12 ? double2{kBlocksPerCheckpoint * scaled.x / size, kBlocksPerCheckpoint * scaled.y / size}
                              : double2{0, 0};
      }
      value = __float_as_uint(static_cast<float>(part == 0 ? result.x : result.y));
    }
    tables[d * kTableWords * 32 + i] = value;
  }
}

/// A block a segment.
__global__ void __launch_bounds__(kThreads)
    events_kernel(View<const int64_t, 2> position, Segments segments, uint32_t* events, int64_t* kept) {
  const int64_t length = position.size[1], blocks = ceil_div<int64_t>(length, kBlock);
  const int64_t b = blockIdx.x / segments.count, first = blockIdx.x % segments.count * segments.length;
  const int64_t end = min(first + segments.length, length);
  int valid = 0, starts = 0;  // of at most segments.length / kThreads blocks
  for (int64_t t0 = first + static_cast<int64_t>(threadIdx.x) * kBlock; t0 < end; t0 += kThreads * kBlock) {
    uint32_t found = 0;
    for (int k = 0; k < kBlock && t0 + k < end; ++k) {
      const int64_t at = position(b, t0 + k);
      found |= at == 0 ? 1u << k : at < 0 ? 1u << (16 + k) : 0;
      valid += at >= 0;
      starts |= at == 0;
    }
    events[b * blocks + t0 / kBlock] = found;
  }
  __shared__ int64_t sums[kThreads];
  sums[threadIdx.x] = valid;
  const bool any = __syncthreads_or(starts);
  if (threadIdx.x == 0) {
    int64_t sum = 0;
    for (int i = 0; i < kThreads; ++i) {
      sum += sums[i];
    }
    kept[blockIdx.x] = any ? -1 : sum;
  }
}

/// A thread a state.
__global__ void __launch_bounds__(kThreads)
    fold_kernel(View<const float, 3> a, View<const float, 4> initial, int64_t length, Segments segments,
                const int64_t* kept, bool reverse, int64_t batch, float2* carry) {
  constexpr int kAhead = 8;
  const int64_t channels = a.size[0], states = a.size[1];
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= batch * channels * kBlockStates) {
    return;
  }
  const int64_t p = index % kBlockStates, d = index / kBlockStates % channels, b = index / kBlockStates / channels;
  const bool valid = p < states;
  const double2 base = {valid ? a(d, p, 0) : 0.0, valid ? a(d, p, 1) : 0.0};
  const double2 whole = power(base, segments.length);
  double2 state = {0, 0};
  if (initial && valid) {
    state = {initial(b, d, p, 0), initial(b, d, p, 1)};
    state.y = reverse ? -state.y : state.y;
  }
  const auto place = [&](int64_t i) {
    const int64_t segment = reverse ? segments.count - 1 - i : i;
    return carry + ((b * segments.count + segment) * channels + d) * kBlockStates + p;
  };
  for (int64_t i0 = 0; i0 < segments.count; i0 += kAhead) {
    float2 ends[kAhead];
    for (int i = 0; i < kAhead; ++i) {
      ends[i] = i0 + i < segments.count ? *place(i0 + i) : float2{0, 0};
    }
    for (int i = 0; i < kAhead && i0 + i < segments.count; ++i) {
      const int64_t segment = reverse ? segments.count - 1 - i0 - i : i0 + i;
      *place(i0 + i) = {static_cast<float>(state.x), static_cast<float>(state.y)};
      int64_t steps = min(segments.length, length - segment * segments.length);
      if (kept != nullptr) {
        steps = kept[b * segments.count + segment];
      }
      const double2 left =
          steps < 0 ? double2{0, 0} : multiply(steps == segments.length ? whole : power(base, steps), state);
      state = {left.x + ends[i].x, left.y + ends[i].y};
    }
  }
}

}  // namespace

void make_tables(const Exec& exec, View<const float, 3> a, View<const float, 3> c, View<const float, 1> D, Tables kind,
                 uint32_t* tables) {
  tables_kernel<<<static_cast<unsigned>(a.size[0]), kThreads, 0, stream_of(exec)>>>(a, c, D, kind, tables);
  check_launch(exec, "diagonal_scan");
}

void find_events(const Exec& exec, View<const int64_t, 2> position, Segments segments, uint32_t* events,
                 int64_t* kept) {
  const int64_t rows = position.size[0] * segments.count;
  events_kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream_of(exec)>>>(position, segments, events, kept);
  check_launch(exec, "diagonal_scan");
}

void fold_carries(const Exec& exec, View<const float, 3> a, View<const float, 4> initial, int64_t length,
                  Segments segments, const int64_t* kept, bool reverse, int64_t batch, float2* carry) {
  const int64_t threads = batch * a.size[0] * kBlockStates;
  fold_kernel<<<static_cast<unsigned>(ceil_div<int64_t>(threads, kThreads)), kThreads, 0, stream_of(exec)>>>(
      a, initial, length, segments, kept, reverse, batch, carry);
  check_launch(exec, "diagonal_scan");
}

bool fits_blocks(const Exec& exec, int64_t length, int64_t states) {
  return states >= 1 && states <= kBlockStates && length > 2 * kBlock && most_shared_memory(exec) >= kBlockSharedMemory;
}

Segments plan_segments(const Exec& exec, int64_t batch, int64_t length, int64_t channels) {
  // A thread block fills a multiprocessor, so the time is that of the rounds of them, times the steps that each walks;
  // with more than one segment each also runs without output first, at about a third.
  constexpr int64_t kShortest = 2 * kDiagonalCheckpoint;
  const int64_t processors = multiprocessors(exec), groups = ceil_div<int64_t>(channels, kGroup);
  const int64_t windows = ceil_div(length, kDiagonalCheckpoint);
  Segments best{1, windows * kDiagonalCheckpoint};
  double best_time = 0;
  for (int64_t count = 1; count <= std::max(int64_t{1}, length / kShortest) && count <= 64 * kRows; ++count) {
    const int64_t steps = ceil_div(windows, count) * kDiagonalCheckpoint;
    if (count > 1 && (count - 1) * steps >= length) {
      continue;  // the last would be empty
    }
    const int64_t rounds = ceil_div(groups * ceil_div<int64_t>(batch * count, kRows), processors);
    const double time = static_cast<double>(rounds * steps) * (count > 1 ? 1.35 : 1.0);
    if (count == 1 || time < 0.99 * best_time) {
      best = {count, steps};
      best_time = time;
    }
  }
  return best;
}

}  // namespace blockstate::kernels::cuda
