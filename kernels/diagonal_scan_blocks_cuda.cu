// SPDX-License-Identifier: Apache-2.0
// The diagonal scan in blocks (diagonal_scan_cuda.cuh), either way in time.
#include "kernels/cuda_support.cuh"
#include "kernels/diagonal_scan_blocks.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 32 * kGroup;
constexpr int kStages = 6;  // blocks of input under way
static_assert(kThreads == kRows * kBlock, "a thread moves one step of one segment");

template <class T>
struct Shared {
  T in[kStages][kRows * kBlock * kGroup];
  T out[2][kRows * kBlock * kGroup];
  float saved[32][kThreads];  // states before a block with events
};

/// Where a warp's element of (row, step) lies: neighbouring rows are swapped pairwise against bank conflicts.
__device__ inline int place_of(int row, int step) { return (row * kBlock + (step ^ (row & 1))) * kGroup; }

/// The segment that a row of a thread block walks, in the order of the walk.
template <class T, bool kReverse>
struct Row {
  int64_t b = 0, segment = 0, first = 0;
  int64_t length = 0;  // of the sequence; 0 for rows that are not in use
  int64_t steps = 0;   // of the segment

  __device__ Row(const BlockScan<T>& args, int64_t row) {
    if (row < args.in.size[0] * args.segments.count) {
      b = row / args.segments.count;
      segment = row % args.segments.count;
      first = segment * args.segments.length;
      length = args.in.size[1];
      steps = args.segments.length;
    }
  }
  /// Time of the n-th step of the walk.
  __device__ int64_t time(int64_t n) const { return kReverse ? first + steps - 1 - n : first + n; }
  /// Events of the n-th block of the walk.
  __device__ uint32_t events(const BlockScan<T>& args, int64_t n) const {
    const int64_t block = kReverse ? first / kBlock + steps / kBlock - 1 - n : first / kBlock + n;
    const int64_t left = length - block * kBlock;
    if (left <= 0) {
      return kAllPadding;
    }
    uint32_t found = args.events != nullptr ? args.events[b * ceil_div<int64_t>(length, kBlock) + block] : 0;
    if (left < kBlock) {
      found |= kAllPadding << left;
    }
    return kReverse ? (__brev(found) >> 16) | (__brev(found) << 16) : found;
  }
};

/// Copies a thread's step of a block into shared memory, zeros past the end.
template <class T>
__device__ inline void fetch(const BlockScan<T>& args, int64_t b, int64_t t, int64_t length, int64_t channel,
                             bool vector, T* to) {
  const T* from = args.in.data + b * args.in.stride[0] + t * args.in.stride[1] + channel;
  const bool inside = t < length;
  if (vector) {
#pragma unroll
    for (int i = 0; i < static_cast<int>(kGroup * sizeof(T) / 16); ++i) {
      copy_async(to + i * (16 / sizeof(T)), inside ? from + i * (16 / sizeof(T)) : args.in.data, inside);
    }
  } else {
    for (int i = 0; i < kGroup; ++i) {
      to[i] = inside && channel + i < args.in.size[2] ? from[i] : from_float<T>(0.0f);
    }
  }
}

template <class T>
__device__ inline void put(const BlockScan<T>& args, int64_t b, int64_t t, int64_t length, int64_t channel, bool vector,
                           const T* from) {
  if (t >= length) {
    return;
  }
  T* to = args.out.data + b * args.out.stride[0] + t * args.out.stride[1] + channel;
  if (vector) {
#pragma unroll
    for (int i = 0; i < static_cast<int>(kGroup * sizeof(T) / 16); ++i) {
      reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
    }
  } else {
    for (int i = 0; i < kGroup && channel + i < args.out.size[2]; ++i) {
      to[i] = from[i];
    }
  }
}

/// A block with events, step by step, for the eight rows of one half of the warp's: four lanes a row, eight states
/// each. `states`: [2 tile + part], before the block on entry, after it on return, unchanged for rows without events.
template <class T, bool kReverse, bool kOutput>
__device__ __noinline__ void walk_events(const BlockScan<T>& args, int64_t d, uint32_t events, int row, const T* in,
                                         T* out, float* states) {
  const int lane = threadIdx.x % 4;
  if (__all_sync(0xffffffffu, events == 0 || events == kAllPadding)) {
    for (int k = 4 * lane; kOutput && events != 0 && k < 4 * lane + 4; ++k) {
      out[place_of(row, k)] = from_float<T>(0.0f);
    }
    return;
  }
  float ar[8], ai[8], cr[8], ci[8], re[8], im[8];
#pragma unroll
  for (int tile = 0; tile < 8; ++tile) {
    const int64_t p = 4 * tile + lane;
    const bool valid = p < args.a.size[1];
    ar[tile] = valid ? args.a(d, p, 0) : 0.0f;
    ai[tile] = valid ? args.a(d, p, 1) : 0.0f;
    cr[tile] = valid ? args.c(d, p, 0) : 0.0f;
    ci[tile] = valid ? args.c(d, p, 1) : 0.0f;
    re[tile] = states[2 * tile];
    im[tile] = states[2 * tile + 1];
  }
  const float skip = args.D ? args.D(d) : 0.0f;
#pragma unroll 1
  for (int k = 0; k < kBlock; ++k) {
    const bool starts = events >> k & 1, padding = events >> (16 + k) & 1;
    const float u = to_float(in[place_of(row, k)]);
    float sum = 0;
#pragma unroll
    for (int tile = 0; tile < 8; ++tile) {
      if (!kReverse) {
        const float hr = starts ? 0.0f : re[tile], hi = starts ? 0.0f : im[tile];
        const float next_re = fmaf(-ai[tile], hi, fmaf(ar[tile], hr, u)), next_im = fmaf(ar[tile], hi, ai[tile] * hr);
        re[tile] = padding ? re[tile] : next_re;
        im[tile] = padding ? im[tile] : next_im;
        sum = fmaf(-ci[tile], next_im, fmaf(cr[tile], next_re, sum));
      } else {
        const float gr = fmaf(cr[tile], u, re[tile]), gi = fmaf(ci[tile], u, im[tile]);
        sum += gr;
        const float next_re = fmaf(-ai[tile], gi, ar[tile] * gr), next_im = fmaf(ar[tile], gi, ai[tile] * gr);
        re[tile] = padding ? re[tile] : starts ? 0.0f : next_re;
        im[tile] = padding ? im[tile] : starts ? 0.0f : next_im;
      }
    }
    if (kOutput) {
      sum = warp_sum<4>(sum);
      if (lane == 0 && events != 0) {
        out[place_of(row, k)] = from_float<T>(padding ? 0.0f : fmaf(skip, u, sum));
      }
    }
  }
  if (events != 0) {
#pragma unroll
    for (int tile = 0; tile < 8; ++tile) {
      states[2 * tile] = re[tile];
      states[2 * tile + 1] = im[tile];
    }
  }
}

/// The warp's channel of a block as the left-hand matrix (rows, steps) of mma, split into `kParts` bfloat16.
template <int kParts, class T>
__device__ inline void load_inputs(const T* in, uint32_t (&parts)[kParts][4]) {
  const int row = threadIdx.x % 32 / 4, step = 2 * (threadIdx.x % 4);
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const T first = in[place_of(row + r % 2 * 8, step + r / 2 * 8)];
    const T second = in[place_of(row + r % 2 * 8, step + r / 2 * 8 + 1)];
    if constexpr (kParts == 1) {
      parts[0][r] = static_cast<uint32_t>(first.bits) | static_cast<uint32_t>(second.bits) << 16;
    } else {
      uint32_t split[kPieces];
      split_pair(first, second, split);
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        parts[i][r] = split[i];
      }
    }
  }
}

template <class T, bool kReverse, bool kOutput>
__global__ void __launch_bounds__(kThreads, 1) block_scan_kernel(const __grid_constant__ BlockScan<T> args) {
  constexpr int kParts = sizeof(T) == 2 ? 1 : kPieces;
  extern __shared__ __align__(16) unsigned char memory[];
  Shared<T>& shared = *reinterpret_cast<Shared<T>*>(memory);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t channels = args.in.size[2], group = static_cast<int64_t>(blockIdx.x) * kGroup;
  const bool served = group + warp < channels;
  const int64_t d = served ? group + warp : channels - 1;  // warps without a channel keep step with the others
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kRows;
  // The step that this thread moves, and the rows whose states it holds.
  const Row<T, kReverse> moved(args, first_row + threadIdx.x / kBlock);
  const int step = threadIdx.x % kBlock;
  const int place = place_of(threadIdx.x / kBlock, step);
  const Row<T, kReverse> rows[2] = {{args, first_row + lane / 4}, {args, first_row + lane / 4 + 8}};
  const bool vector_in = group + kGroup <= channels && aligned(args.in);
  const bool vector_out = kOutput && group + kGroup <= channels && aligned(args.out);

  uint32_t inject[kPieces][8][2], read[kPieces][4][2][2], toeplitz[kPieces][2][2];
  float power[8][2];
  const uint32_t* const table = args.tables + d * kTableWords * 32 + lane;
#pragma unroll
  for (int i = 0; i < kPieces * 16; ++i) {
    inject[i / 16][i / 2 % 8][i % 2] = table[(kInject + i) * 32];
  }
#pragma unroll
  for (int i = 0; kOutput && i < kPieces * 16; ++i) {
    read[i / 16][i / 4 % 4][i / 2 % 2][i % 2] = table[(kRead + i) * 32];
  }
#pragma unroll
  for (int i = 0; kOutput && i < kPieces * 4; ++i) {
    toeplitz[i / 4][i / 2 % 2][i % 2] = table[(kToeplitz + i) * 32];
  }
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    power[i / 2][i % 2] = __uint_as_float(table[(kPower + i) * 32]);
  }

  float H[8][4];  // [tile of 4 states][re im of the first row, re im of the second]; the lane's state is lane % 4
#pragma unroll
  for (int tile = 0; tile < 8; ++tile) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t p = 4 * tile + lane % 4;
      float2 start = {0, 0};
      if (kOutput && rows[half].length > 0) {
        if (args.segments.count > 1) {
          start =
              args.carry[((rows[half].b * args.segments.count + rows[half].segment) * channels + d) * kBlockStates + p];
        } else if (args.initial && p < args.a.size[1]) {
          start = {args.initial(rows[half].b, d, p, 0), args.initial(rows[half].b, d, p, 1)};
          start.y = kReverse ? -start.y : start.y;
        }
      }
      H[tile][2 * half] = start.x;
      H[tile][2 * half + 1] = start.y;
    }
  }

  const int64_t blocks = ceil_div<int64_t>(min(args.segments.length, args.in.size[1]), kBlock);
  // Backwards, a short sequence starts after the padding of its only segment.
  const int64_t skipped = kReverse ? (args.segments.length - blocks * kBlock) / kBlock : 0;
  const int64_t end = skipped + blocks;
  for (int i = 0; i < kStages - 1; ++i) {
    if (i < blocks) {
      fetch(args, moved.b, moved.time((skipped + i) * kBlock + step), moved.length, group, vector_in,
            shared.in[i] + place);
    }
    commit_async();
  }
  int stage = 0;
#pragma unroll 1
  for (int64_t n = skipped; n < end; ++n) {
    wait_async<kStages - 2>();
    __syncthreads();
    {
      const int64_t ahead = n + kStages - 1;
      const int to = stage == 0 ? kStages - 1 : stage - 1;
      if (ahead < end) {
        fetch(args, moved.b, moved.time(ahead * kBlock + step), moved.length, group, vector_in, shared.in[to] + place);
      }
      commit_async();
      if (kOutput && n > skipped) {
        put(args, moved.b, moved.time((n - 1) * kBlock + step), moved.length, group, vector_out,
            shared.out[(n - 1) & 1] + place);
      }
    }
    const T* const in = shared.in[stage] + warp;
    T* const out = shared.out[n & 1] + warp;
    stage = stage + 1 == kStages ? 0 : stage + 1;
    const uint32_t events[2] = {rows[0].events(args, n), rows[1].events(args, n)};
    const bool any = __any_sync(0xffffffffu, (events[0] | events[1]) != 0);

    if (kOutput && args.checkpoint && n % kBlocksPerCheckpoint == 0) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t window =
            min(rows[half].time(n * kBlock), rows[half].time(n * kBlock + kBlock - 1)) / kDiagonalCheckpoint;
        const bool wanted = served && window * kDiagonalCheckpoint < rows[half].length;
#pragma unroll
        for (int i = 0; i < 16; ++i) {
          const int64_t p = 4 * (i / 2) + lane % 4;
          if (wanted && p < args.a.size[1]) {
            args.checkpoint(rows[half].b, window, p, i % 2, d) = H[i / 2][2 * half + i % 2];
          }
        }
      }
    }
    if (any) {
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        shared.saved[i][threadIdx.x] = H[i / 4][i % 4];
      }
    }

    uint32_t inputs[kParts][4];
    load_inputs(in, inputs);
    if (kOutput) {
      float sums[2][2][4] = {};  // [8 steps][even and odd tiles]: two chains each, to hide the latency
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        product<kParts>(inputs, toeplitz, i, sums[i][0]);
      }
#pragma unroll
      for (int tile = 0; tile < 4; ++tile) {
        uint32_t states[kPieces][4];
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          uint32_t split[kPieces];
          split_pair(H[2 * tile + r / 2][r % 2 * 2], H[2 * tile + r / 2][r % 2 * 2 + 1], split);
#pragma unroll
          for (int i = 0; i < kPieces; ++i) {
            states[i][r] = split[i];
          }
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const uint32_t table_of[kPieces][1][2] = {{{read[0][tile][i][0], read[0][tile][i][1]}},
                                                    {{read[1][tile][i][0], read[1][tile][i][1]}},
                                                    {{read[2][tile][i][0], read[2][tile][i][1]}}};
          product<kPieces>(states, table_of, 0, sums[i][tile % 2]);
        }
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int row = i / 4, at = i / 2 % 2, k = at * 8 + 2 * (lane % 4) + i % 2;
        if (events[row] == 0) {
          out[place_of(lane / 4 + 8 * row, k)] =
              from_float<T>(sums[at][0][2 * row + i % 2] + sums[at][1][2 * row + i % 2]);
        }
      }
    }
#pragma unroll
    for (int tile = 0; tile < 8; ++tile) {
      float added[4] = {};
      product<kParts>(inputs, inject, tile, added);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float re = H[tile][2 * half], im = H[tile][2 * half + 1];
        H[tile][2 * half] = fmaf(-power[tile][1], im, fmaf(power[tile][0], re, added[2 * half]));
        H[tile][2 * half + 1] = fmaf(power[tile][1], re, fmaf(power[tile][0], im, added[2 * half + 1]));
      }
    }
    if (any) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (__any_sync(0xffffffffu, events[half] != 0)) {
          float states[16];
#pragma unroll
          for (int i = 0; i < 16; ++i) {
            states[i] = shared.saved[i / 2 * 4 + 2 * half + i % 2][threadIdx.x];
          }
          walk_events<T, kReverse, kOutput>(args, d, events[half], lane / 4 + 8 * half, in, out, states);
#pragma unroll
          for (int i = 0; i < 16; ++i) {
            float& to = H[i / 2][2 * half + i % 2];
            to = events[half] != 0 ? states[i] : to;
          }
        }
      }
    }
    if (n % kBlocksPerCheckpoint == kBlocksPerCheckpoint - 1) {
#pragma unroll
      for (int tile = 0; tile < 8; ++tile) {
        const float rest_re = __uint_as_float(table[(kRest + 2 * tile) * 32]);
        const float rest_im = __uint_as_float(table[(kRest + 2 * tile + 1) * 32]);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float re = H[tile][2 * half], im = H[tile][2 * half + 1];
          H[tile][2 * half] = fmaf(-rest_im, im, fmaf(rest_re, re, re));
          H[tile][2 * half + 1] = fmaf(rest_im, re, fmaf(rest_re, im, im));
        }
      }
    }
  }
  wait_async<0>();
  __syncthreads();
  if (kOutput && end > skipped) {
    put(args, moved.b, moved.time((end - 1) * kBlock + step), moved.length, group, vector_out,
        shared.out[(end - 1) & 1] + place);
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Row<T, kReverse>& row = rows[half];
    const bool last = row.segment == (kReverse ? 0 : args.segments.count - 1);
    if (!served || row.length == 0 || (kOutput && !(last && args.final))) {
      continue;
    }
#pragma unroll
    for (int tile = 0; tile < 8; ++tile) {
      const int64_t p = 4 * tile + lane % 4;
      const float2 state = {H[tile][2 * half], H[tile][2 * half + 1]};
      if (!kOutput) {
        args.carry[((row.b * args.segments.count + row.segment) * channels + d) * kBlockStates + p] = state;
      } else if (p < args.a.size[1]) {
        args.final(row.b, d, p, 0) = state.x;
        args.final(row.b, d, p, 1) = kReverse ? -state.y : state.y;
      }
    }
  }
}

template <class T, bool kReverse, bool kOutput>
void launch(const Exec& exec, const BlockScan<T>& args, const char* op) {
  static_assert(sizeof(Shared<T>) <= 200 * 1024, "fits a multiprocessor");
  const auto kernel = block_scan_kernel<T, kReverse, kOutput>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared<T>)), op);
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(args.in.size[2], kGroup)),
                  static_cast<unsigned>(ceil_div<int64_t>(args.in.size[0] * args.segments.count, kRows)));
  kernel<<<grid, kThreads, sizeof(Shared<T>), stream_of(exec)>>>(args);
  check_launch(exec, op);
}

}  // namespace

template <class T>
void run_block_scan(const Exec& exec, BlockScan<T> scan, View<const int64_t, 2> position, bool reverse) {
  const char* op = reverse ? "diagonal_scan backward" : "diagonal_scan";
  const int64_t batch = scan.in.size[0], length = scan.in.size[1], channels = scan.in.size[2];
  const int64_t blocks = ceil_div<int64_t>(length, kBlock), rows = batch * scan.segments.count;
  const Scratch<uint32_t> tables(exec, channels * kTableWords * 32);
  make_tables(exec, scan.a, scan.c, scan.D, reverse, tables.get());
  scan.tables = tables.get();
  const Scratch<uint32_t> events(exec, position ? batch * blocks : 0);
  const Scratch<int64_t> kept(exec, position ? rows : 0);
  if (position) {
    find_events(exec, position, scan.segments, events.get(), kept.get());
    scan.events = events.get();
  }
  const Scratch<float2> carry(exec, scan.segments.count > 1 ? rows * channels * kBlockStates : 0);
  scan.carry = carry.get();
  if (scan.segments.count > 1) {
    reverse ? launch<T, true, false>(exec, scan, op) : launch<T, false, false>(exec, scan, op);
    fold_carries(exec, scan.a, scan.initial, length, scan.segments, position ? kept.get() : nullptr, reverse, batch,
                 scan.carry);
  }
  reverse ? launch<T, true, true>(exec, scan, op) : launch<T, false, true>(exec, scan, op);
}

template void run_block_scan<float>(const Exec&, BlockScan<float>, View<const int64_t, 2>, bool);
template void run_block_scan<BFloat16>(const Exec&, BlockScan<BFloat16>, View<const int64_t, 2>, bool);

}  // namespace blockstate::kernels::cuda
