// SPDX-License-Identifier: Apache-2.0
// The diagonal scan in blocks (diagonal_scan_cuda.cuh), either way in time.
#include "kernels/cuda_support.cuh"
#include "kernels/diagonal_scan_blocks.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kHalves = 2;  // two warps a channel, 16 states each
constexpr int kTiles = 8 / kHalves;
constexpr int kThreads = 32 * kGroup * kHalves;
constexpr int kMoved = kRows * kBlock * kDepth / kThreads;  // steps of a stage that a thread moves
static_assert(kThreads == 2 * kRows * kBlock && kMoved * 2 == kDepth, "a thread moves one step of every other block");

template <class T>
struct Shared {
  T in[kRing][kDepth * kBlockElements];
  T out[2][kDepth * kBlockElements];
  float4 sums[2][kThreads];                       // of outputs, for the channel's other warp
  float events[kGroup][kHalves][kRows * kBlock];  // the same, of blocks with events
  float saved[4 * kTiles][kThreads];              // states before a block with events
};

/// The two warps of a channel wait for each other.
__device__ inline void meet(int channel) { asm volatile("bar.sync %0, 64;" ::"r"(1 + channel) : "memory"); }

template <class T>
__device__ __noinline__ void put_each(const T* from, int64_t count, T* to) {
  for (int i = 0; i < kGroup && i < count; ++i) {
    to[i] = from[i];
  }
}

template <class T>
__device__ inline void put(const View<T, 3>& out, int64_t b, int64_t t, int64_t length, int64_t channel, bool vector,
                           const T* from) {
  if (t >= length) {
    return;
  }
  T* to = out.data + b * out.stride[0] + t * out.stride[1] + channel;
  if (vector) {
#pragma unroll
    for (int i = 0; i < static_cast<int>(kGroup * sizeof(T) / 16); ++i) {
      reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
    }
  } else {
    put_each(from, out.size[2] - channel, to);
  }
}

/// State p of channel d where a row's segment starts.
template <class T, bool kReverse>
__device__ inline float2 start_of(const BlockScan<T>& args, const Row<kReverse>& row, int64_t d, int64_t p) {
  if (row.length == 0) {
    return {0, 0};
  }
  if (args.segments.count > 1) {
    return args.carry[((row.b * args.segments.count + row.segment) * args.in.size[2] + d) * kBlockStates + p];
  }
  if (!args.initial || p >= args.a.size[1]) {
    return {0, 0};
  }
  return {args.initial(row.b, d, p, 0), kReverse ? -args.initial(row.b, d, p, 1) : args.initial(row.b, d, p, 1)};
}

/// The states before stage n, of the warp's half.
template <class T, bool kReverse>
__device__ __noinline__ void store_checkpoint(const BlockScan<T>& args, const Row<kReverse> (&rows)[2], int64_t n,
                                              int64_t d, int half, const float (&H)[kTiles][4]) {
#pragma unroll
  for (int at = 0; at < 2; ++at) {
    const int64_t window = (rows[at].first + n * kStage) / kDiagonalCheckpoint;
    if (window * kDiagonalCheckpoint >= rows[at].length) {
      continue;
    }
#pragma unroll
    for (int i = 0; i < 2 * kTiles; ++i) {
      const int64_t p = 4 * (half * kTiles + i / 2) + threadIdx.x % 4;
      if (p < args.a.size[1]) {
        args.checkpoint(rows[at].b, window, p, i % 2, d) = H[i / 2][2 * at + i % 2];
      }
    }
  }
}

/// A block with events, step by step, for eight rows: four lanes a row, four states of the warp's half each. `states`:
/// [2 tile + part], before the block on entry, after it on return; `sums`: the half's part of the outputs.
template <class T, bool kReverse, bool kOutput>
__device__ __noinline__ void walk_events(const BlockScan<T>& args, int64_t d, int half, uint32_t events, int row,
                                         const T* in, float* sums, float* states) {
  if (__all_sync(0xffffffffu, events == 0 || events == kAllPadding)) {
    return;
  }
  float2 a[kTiles], c[kTiles], h[kTiles];
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    const int64_t p = 4 * (half * kTiles + tile) + threadIdx.x % 4;
    const bool valid = p < args.a.size[1];
    a[tile] = valid ? float2{args.a(d, p, 0), args.a(d, p, 1)} : float2{0, 0};
    c[tile] = valid ? float2{args.c(d, p, 0), args.c(d, p, 1)} : float2{0, 0};
    h[tile] = {states[2 * tile], states[2 * tile + 1]};
  }
#pragma unroll 1
  for (int k = 0; k < kBlock; ++k) {
    const bool starts = events >> k & 1, padding = events >> (16 + k) & 1;
    const float u = to_float(in[place_of(row, k)]);
    float sum = 0;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      float2 next;
      if (!kReverse) {
        const float2 left = starts ? float2{0, 0} : h[tile];
        next.x = fmaf(-a[tile].y, left.y, fmaf(a[tile].x, left.x, u));
        next.y = fmaf(a[tile].x, left.y, a[tile].y * left.x);
        sum = fmaf(-c[tile].y, next.y, fmaf(c[tile].x, next.x, sum));
      } else {
        const float re = fmaf(c[tile].x, u, h[tile].x), im = fmaf(c[tile].y, u, h[tile].y);
        sum += re;
        next.x = starts ? 0.0f : fmaf(-a[tile].y, im, a[tile].x * re);
        next.y = starts ? 0.0f : fmaf(a[tile].x, im, a[tile].y * re);
      }
      h[tile] = padding ? h[tile] : next;
    }
    if (kOutput) {
      sum = warp_sum<4>(sum);
      if (threadIdx.x % 4 == 0) {
        sums[row * kBlock + k] = sum;
      }
    }
  }
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    states[2 * tile] = h[tile].x;
    states[2 * tile + 1] = h[tile].y;
  }
}

/// What the half's states before a block give to its outputs, for 8 steps twice. `even` and `odd` pairs of tiles are
/// chains of their own, to hide the latency.
__device__ inline void read_states(const float (&H)[kTiles][4], const uint32_t (&read)[kPieces][kTiles][2],
                                   float (&even)[2][4], float (&odd)[2][4]) {
#pragma unroll
  for (int pair = 0; pair < kTiles / 2; ++pair) {
    uint32_t states[kPieces][4];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      uint32_t split[kPieces];
      split_pair(H[2 * pair + r / 2][r % 2 * 2], H[2 * pair + r / 2][r % 2 * 2 + 1], split);
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        states[i][r] = split[i];
      }
    }
#pragma unroll
    for (int order = kPieces - 1; order >= 0; --order) {
#pragma unroll
      for (int piece = 0; piece <= order; ++piece) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          multiply_add(states[piece], read[order - piece][2 * pair + i], pair % 2 == 0 ? even[i] : odd[i]);
        }
      }
    }
  }
}

template <class T, bool kReverse, bool kOutput>
__global__ void __launch_bounds__(kThreads, 1) block_scan_kernel(const __grid_constant__ BlockScan<T> args) {
  constexpr int kParts = sizeof(T) == 2 ? 1 : kPieces;
  extern __shared__ __align__(16) unsigned char memory[];
  Shared<T>& shared = *reinterpret_cast<Shared<T>*>(memory);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % kGroup, half = threadIdx.x / 32 / kGroup;
  const int64_t channels = args.in.size[2], group = static_cast<int64_t>(blockIdx.x) * kGroup;
  const bool served = group + warp < channels;
  const int64_t d = served ? group + warp : channels - 1;  // warps without a channel keep step with the others
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kRows;
  // The step that this thread moves, and the rows whose states it holds.
  const int64_t batch = args.in.size[0], length = args.in.size[1];
  const int moved_row = threadIdx.x / kBlock % kRows, step = threadIdx.x % kBlock, moved_block = half;
  const int place = moved_block * kBlockElements + place_of(moved_row, step);
  const Row<kReverse> moved(batch, length, args.segments, first_row + moved_row);
  const Row<kReverse> rows[2] = {{batch, length, args.segments, first_row + lane / 4},
                                 {batch, length, args.segments, first_row + lane / 4 + 8}};
  const bool vector_in = group + kGroup <= channels && aligned(args.in);
  const bool vector_out = kOutput && group + kGroup <= channels && aligned(args.out);

  uint32_t inject[kPieces][kTiles][2], read[kPieces][kTiles][2], toeplitz[kPieces][1][2];
  float2 power[kTiles];
  const uint32_t* const table = args.tables + d * kTableWords * 32 + lane;
#pragma unroll
  for (int i = 0; i < kPieces * kTiles * 2; ++i) {
    const int word = i / (kTiles * 2) * 16 + half * kTiles * 2 + i % (kTiles * 2);
    inject[i / (kTiles * 2)][i / 2 % kTiles][i % 2] = table[(kInject + word) * 32];
    read[i / (kTiles * 2)][i / 2 % kTiles][i % 2] = kOutput ? table[(kRead + word) * 32] : 0;
  }
#pragma unroll
  for (int i = 0; i < kPieces * 2; ++i) {  // each warp finishes 8 steps
    toeplitz[i / 2][0][i % 2] = kOutput ? table[(kToeplitz + i / 2 * 4 + half * 2 + i % 2) * 32] : 0;
  }
  float H[kTiles][4];  // [tile of 4 states][re im of the first row, re im of the second]; the state is lane % 4
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    power[tile].x = __uint_as_float(table[(kPower + 2 * (half * kTiles + tile)) * 32]);
    power[tile].y = __uint_as_float(table[(kPower + 2 * (half * kTiles + tile) + 1) * 32]);
#pragma unroll
    for (int at = 0; at < 2; ++at) {
      const float2 start = kOutput ? start_of(args, rows[at], d, 4 * (half * kTiles + tile) + lane % 4) : float2{0, 0};
      H[tile][2 * at] = start.x;
      H[tile][2 * at + 1] = start.y;
    }
  }

  // Backwards, a short sequence starts after the padding of its only segment.
  const int64_t end = args.segments.length / kStage,
                stages = ceil_div<int64_t>(min(args.segments.length, length), kStage);
  const int64_t begin = kReverse ? end - stages : 0, last = begin + stages;
  const auto fetch_stage = [&](int64_t n, int slot) {
    if (n < last) {
#pragma unroll
      for (int i = 0; i < kMoved; ++i) {
        const int64_t t = moved.time(n * kStage + (2 * i + moved_block) * kBlock + step);
        fetch(args.in, moved.b, t, moved.length, group, vector_in, shared.in[slot] + place + 2 * i * kBlockElements);
      }
    }
    commit_async();
  };
  const auto put_stage = [&](int64_t n) {
#pragma unroll
    for (int i = 0; i < kMoved; ++i) {
      const int64_t t = moved.time(n * kStage + (2 * i + moved_block) * kBlock + step);
      put(args.out, moved.b, t, moved.length, group, vector_out, shared.out[n % 2] + place + 2 * i * kBlockElements);
    }
  };
  for (int i = 0; i < kRing - 1; ++i) {
    fetch_stage(begin + i, i);
  }
  int slot = 0;
#pragma unroll 1
  for (int64_t n = begin; n < last; ++n) {
    wait_async<kRing - 2>();
    __syncthreads();
    fetch_stage(n + kRing - 1, slot == 0 ? kRing - 1 : slot - 1);
    if (kOutput && n > begin) {
      put_stage(n - 1);
    }
    const T* const stage_in = shared.in[slot] + warp;
    T* const stage_out = shared.out[n % 2] + warp;
    slot = slot + 1 == kRing ? 0 : slot + 1;
    // Bit i: block i of the stage has events in one of the warp's rows.
    uint32_t eventful = 0;
    if (!__all_sync(0xffffffffu, args.events == nullptr && rows[0].inside(n * kStage, kStage) &&
                                     rows[1].inside(n * kStage, kStage))) {
#pragma unroll
      for (int i = 0; i < kDepth; ++i) {
        const uint32_t found =
            rows[0].events(args.events, n * kDepth + i) | rows[1].events(args.events, n * kDepth + i);
        eventful |= __any_sync(0xffffffffu, found != 0) ? 1u << i : 0;
      }
    }
    if (kOutput && args.checkpoint && n % kStagesPerCheckpoint == 0 && served) {
      store_checkpoint(args, rows, n, d, half, H);
    }
#pragma unroll 1
    for (int i = 0; i < kDepth; ++i) {
      const T* const in = stage_in + i * kBlockElements;
      T* const out = stage_out + i * kBlockElements;
      const bool any = eventful >> i & 1;
      if (any) {
#pragma unroll
        for (int at = 0; at < 4 * kTiles; ++at) {
          shared.saved[at][threadIdx.x] = H[at / 4][at % 4];
        }
      }
      uint32_t inputs[kParts][4];
      load_inputs(in, inputs);
      float own[4] = {};
      if (kOutput) {
        float even[2][4] = {}, odd[2][4] = {}, direct[4] = {};
        product<kParts>(inputs, toeplitz, 0, direct);
        read_states(H, read, even, odd);
        float4 others;
#pragma unroll
        for (int at = 0; at < 4; ++at) {
          own[at] = (half == 0 ? even[0][at] + odd[0][at] : even[1][at] + odd[1][at]) + direct[at];
          (&others.x)[at] = half == 0 ? even[1][at] + odd[1][at] : even[0][at] + odd[0][at];
        }
        shared.sums[i % 2][threadIdx.x ^ (32 * kGroup)] = others;
      }
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        float added[4] = {};
        product<kParts>(inputs, inject, tile, added);
#pragma unroll
        for (int at = 0; at < 2; ++at) {
          const float re = H[tile][2 * at], im = H[tile][2 * at + 1];
          H[tile][2 * at] = fmaf(-power[tile].y, im, fmaf(power[tile].x, re, added[2 * at]));
          H[tile][2 * at + 1] = fmaf(power[tile].y, re, fmaf(power[tile].x, im, added[2 * at + 1]));
        }
      }
      if (kOutput) {
        meet(warp);
        const float4 others = shared.sums[i % 2][threadIdx.x];
#pragma unroll
        for (int at = 0; at < 4; ++at) {
          const int k = 8 * half + 2 * (lane % 4) + at % 2;
          out[place_of(lane / 4 + at / 2 * 8, k)] = from_float<T>(own[at] + (&others.x)[at]);
        }
      }
      if (any) {
#pragma unroll
        for (int at = 0; at < 2; ++at) {
          const uint32_t events = rows[at].events(args.events, n * kDepth + i);
          if (__any_sync(0xffffffffu, events != 0)) {
            float states[2 * kTiles];
#pragma unroll
            for (int part = 0; part < 2 * kTiles; ++part) {
              states[part] = shared.saved[part / 2 * 4 + 2 * at + part % 2][threadIdx.x];
            }
            walk_events<T, kReverse, kOutput>(args, d, half, events, lane / 4 + 8 * at, in, shared.events[warp][half],
                                              states);
#pragma unroll
            for (int part = 0; part < 2 * kTiles; ++part) {
              float& to = H[part / 2][2 * at + part % 2];
              to = events != 0 ? states[part] : to;
            }
          }
        }
        if (kOutput) {
          meet(warp);
          const float skip = args.D ? args.D(d) : 0.0f;
#pragma unroll
          for (int at = 0; at < 4; ++at) {
            const uint32_t events = rows[at / 2].events(args.events, n * kDepth + i);
            const int row = lane / 4 + at / 2 * 8, k = 8 * half + 2 * (lane % 4) + at % 2;
            if (events != 0) {
              const float sum = shared.events[warp][0][row * kBlock + k] + shared.events[warp][1][row * kBlock + k];
              const bool padding = events >> (16 + k) & 1;
              out[place_of(row, k)] = from_float<T>(padding ? 0.0f : fmaf(skip, to_float(in[place_of(row, k)]), sum));
            }
          }
        }
      }
    }
    if (n % kStagesPerCheckpoint == kStagesPerCheckpoint - 1) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const float2 rest = {__uint_as_float(table[(kRest + 2 * (half * kTiles + tile)) * 32]),
                             __uint_as_float(table[(kRest + 2 * (half * kTiles + tile) + 1) * 32])};
#pragma unroll
        for (int at = 0; at < 2; ++at) {
          const float re = H[tile][2 * at], im = H[tile][2 * at + 1];
          H[tile][2 * at] = fmaf(-rest.y, im, fmaf(rest.x, re, re));
          H[tile][2 * at + 1] = fmaf(rest.y, re, fmaf(rest.x, im, im));
        }
      }
    }
  }
  wait_async<0>();
  __syncthreads();
  if (kOutput && last > begin) {
    put_stage(last - 1);
  }

#pragma unroll
  for (int at = 0; at < 2; ++at) {
    const Row<kReverse>& row = rows[at];
    const bool is_last = row.segment == (kReverse ? 0 : args.segments.count - 1);
    if (!served || row.length == 0 || (kOutput && !(is_last && args.final))) {
      continue;
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const int64_t p = 4 * (half * kTiles + tile) + lane % 4;
      const float2 state = {H[tile][2 * at], H[tile][2 * at + 1]};
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
  static_assert(sizeof(Shared<T>) <= kBlockSharedMemory, "fits a multiprocessor");
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
  make_tables(exec, scan.a, scan.c, scan.D, reverse ? Tables::kReverse : Tables::kForward, tables.get());
  scan.tables = tables.get();
  const Scratch<uint32_t> events(exec, position ? batch * blocks : 0);
  const Scratch<int64_t> kept(exec, position ? rows : 0);
  if (position) {
    find_events(exec, position, scan.segments, events.get(), kept.get());
    scan.events = events.get();
  }
  if (scan.segments.count > 1) {
    reverse ? launch<T, true, false>(exec, scan, op) : launch<T, false, false>(exec, scan, op);
    fold_carries(exec, scan.a, scan.initial, length, scan.segments, position ? kept.get() : nullptr, reverse, batch,
                 scan.carry);
  }
  if (scan.out) {
    reverse ? launch<T, true, true>(exec, scan, op) : launch<T, false, true>(exec, scan, op);
  }
}

template void run_block_scan<float>(const Exec&, BlockScan<float>, View<const int64_t, 2>, bool);
template void run_block_scan<BFloat16>(const Exec&, BlockScan<BFloat16>, View<const int64_t, 2>, bool);

}  // namespace blockstate::kernels::cuda
