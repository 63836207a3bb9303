// SPDX-License-Identifier: Apache-2.0
// The diagonal scan in blocks (diagonal_scan_cuda.cuh), either way in time.
#include "kernels/cuda_support.cuh"
#include "kernels/diagonal_scan_blocks.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 32 * kGroup;
static_assert(kThreads == kRows * kBlock, "a thread moves one step of one segment");

template <class T>
struct Shared {
  T in[kRing][kDepth * kBlockElements];
  T out[2][kDepth * kBlockElements];
  float saved[32][kThreads];  // states before a block with events
};

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

/// The states before stage n.
template <class T, bool kReverse>
__device__ __noinline__ void store_checkpoint(const BlockScan<T>& args, const Row<kReverse> (&rows)[2], int64_t n,
                                              int64_t d, bool served, const float (&H)[8][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t window = (rows[half].first + n * kStage) / kDiagonalCheckpoint;
    if (!served || window * kDiagonalCheckpoint >= rows[half].length) {
      continue;
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const int64_t p = 4 * (i / 2) + threadIdx.x % 4;
      if (p < args.a.size[1]) {
        args.checkpoint(rows[half].b, window, p, i % 2, d) = H[i / 2][2 * half + i % 2];
      }
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

/// y of a block from the states before it and its inputs: (rows, 8 steps) twice.
template <int kParts>
__device__ inline void read_states(const uint32_t (&inputs)[kParts][4], const float (&H)[8][4],
                                   const uint32_t (&read)[kPieces][8][2], const uint32_t (&toeplitz)[kPieces][2][2],
                                   float (&sums)[2][4]) {
  float parts[2][2][4] = {};  // even and odd pairs of tiles: two chains each, to hide the latency
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    product<kParts>(inputs, toeplitz, i, parts[i][1]);
  }
#pragma unroll
  for (int pair = 0; pair < 4; ++pair) {
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
          multiply_add(states[piece], read[order - piece][2 * pair + i], parts[i][pair % 2]);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    sums[i / 4][i % 4] = parts[i / 4][0][i % 4] + parts[i / 4][1][i % 4];
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
  const int64_t batch = args.in.size[0], length = args.in.size[1];
  const Row<kReverse> moved(batch, length, args.segments, first_row + threadIdx.x / kBlock);
  const Row<kReverse> rows[2] = {{batch, length, args.segments, first_row + lane / 4},
                                 {batch, length, args.segments, first_row + lane / 4 + 8}};
  const int step = threadIdx.x % kBlock, place = place_of(threadIdx.x / kBlock, step);
  const bool vector_in = group + kGroup <= channels && aligned(args.in);
  const bool vector_out = kOutput && group + kGroup <= channels && aligned(args.out);

  uint32_t inject[kPieces][8][2], read[kPieces][8][2], toeplitz[kPieces][2][2];
  float power[8][2];
  const uint32_t* const table = args.tables + d * kTableWords * 32 + lane;
#pragma unroll
  for (int i = 0; i < kPieces * 16; ++i) {
    inject[i / 16][i / 2 % 8][i % 2] = table[(kInject + i) * 32];
    read[i / 16][i / 2 % 8][i % 2] = kOutput ? table[(kRead + i) * 32] : 0;
  }
#pragma unroll
  for (int i = 0; i < kPieces * 4; ++i) {
    toeplitz[i / 4][i / 2 % 2][i % 2] = kOutput ? table[(kToeplitz + i) * 32] : 0;
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
      const float2 start = kOutput ? start_of(args, rows[half], d, 4 * tile + lane % 4) : float2{0, 0};
      H[tile][2 * half] = start.x;
      H[tile][2 * half + 1] = start.y;
    }
  }

  // Backwards, a short sequence starts after the padding of its only segment.
  const int64_t end = args.segments.length / kStage,
                stages = ceil_div<int64_t>(min(args.segments.length, length), kStage);
  const int64_t begin = kReverse ? end - stages : 0, last = begin + stages;
  const auto fetch_stage = [&](int64_t n, int slot) {
    if (n < last) {
      T* const to = shared.in[slot] + place;
#pragma unroll
      for (int i = 0; i < kDepth; ++i) {
        fetch(args.in, moved.b, moved.time(n * kStage + i * kBlock + step), moved.length, group, vector_in,
              to + i * kBlockElements);
      }
    }
    commit_async();
  };
  const auto put_stage = [&](int64_t n) {
    const T* const from = shared.out[n % 2] + place;
#pragma unroll
    for (int i = 0; i < kDepth; ++i) {
      put(args.out, moved.b, moved.time(n * kStage + i * kBlock + step), moved.length, group, vector_out,
          from + i * kBlockElements);
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
    if (kOutput && args.checkpoint && n % kStagesPerCheckpoint == 0) {
      store_checkpoint(args, rows, n, d, served, H);
    }
#pragma unroll 1
    for (int i = 0; i < kDepth; ++i) {
      const T* const in = stage_in + i * kBlockElements;
      T* const out = stage_out + i * kBlockElements;
      const bool any = eventful >> i & 1;
      if (any) {
#pragma unroll
        for (int at = 0; at < 32; ++at) {
          shared.saved[at][threadIdx.x] = H[at / 4][at % 4];
        }
      }
      uint32_t inputs[kParts][4];
      load_inputs(in, inputs);
      if (kOutput) {
        float sums[2][4];
        read_states<kParts>(inputs, H, read, toeplitz, sums);
#pragma unroll
        for (int at = 0; at < 8; ++at) {
          const int k = at / 4 * 8 + 2 * (lane % 4) + at % 2;
          out[place_of(lane / 4 + at / 2 % 2 * 8, k)] = from_float<T>(sums[at / 4][at % 4]);
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
        __syncwarp();  // the outputs of rows with events are written again
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const uint32_t events = rows[half].events(args.events, n * kDepth + i);
          if (__any_sync(0xffffffffu, events != 0)) {
            float states[16];
#pragma unroll
            for (int at = 0; at < 16; ++at) {
              states[at] = shared.saved[at / 2 * 4 + 2 * half + at % 2][threadIdx.x];
            }
            walk_events<T, kReverse, kOutput>(args, d, events, lane / 4 + 8 * half, in, out, states);
#pragma unroll
            for (int at = 0; at < 16; ++at) {
              float& to = H[at / 2][2 * half + at % 2];
              to = events != 0 ? states[at] : to;
            }
          }
        }
      }
    }
    if (n % kStagesPerCheckpoint == kStagesPerCheckpoint - 1) {
      correct_states(table, H);
    }
  }
  wait_async<0>();
  __syncthreads();
  if (kOutput && last > begin) {
    put_stage(last - 1);
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Row<kReverse>& row = rows[half];
    const bool is_last = row.segment == (kReverse ? 0 : args.segments.count - 1);
    if (!served || row.length == 0 || (kOutput && !(is_last && args.final))) {
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
