// SPDX-License-Identifier: Apache-2.0
// Gradients of a, c and D of the diagonal scan, in blocks (diagonal_scan_cuda.cuh).
//
// With H[j] the state before block j, E[j] the adjoint that enters it from the right, T = kBlock, and of each block
//   S = sum_k a^(T-1-k) u[k],  V = sum_k (T-1-k) a^(T-2-k) u[k],  Q = sum_k a^k dy[k],  W = sum_k k a^(k-1) dy[k],
//   R[m] = sum_k dy[k] u[k-m]
// the sums over all blocks
//   conj(dc) = a sum H Q + sum_m a^m R[m]
//   conj(da) = c (a sum H W + sum H Q) + sum E V + T a^(T-1) sum E H + c sum_m m a^(m-1) R[m]
// need H and E at the same time in one term only. Summation by parts over a window of N blocks, with
// H[j+1] = a^T H[j] + S[j] and E[j-1] = a^T E[j] + c a Q[j], frees it of that:
//   a^T sum_j E[j] H[j] = N E[-1] H[0] + sum_j (N-1-j) E[j] S[j] - c a sum_j (N-j) H[j] Q[j]
// where E[-1], H[0] belong to the window's left edge, and H[0] is the checkpoint. So one walk forward with H and one
// backward with E, of the same kind: "own" inputs drive the state, products with the "other" ones are summed.
#include <algorithm>

#include "kernels/cuda_support.cuh"
#include "kernels/diagonal_scan_blocks.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kHalves = 2;  // two warps a channel, 16 states each
constexpr int kThreads = 32 * kGroup * kHalves;
constexpr int kTiles = 8 / kHalves;
constexpr int kSums = 8;  // floats that a walk sums for each state
static_assert(kThreads == 2 * kRows * kBlock, "a thread moves one step of one segment of one input");

template <class T>
struct BlockGradients {
  View<const T, 3> u, dy;
  View<const float, 3> a, c;
  View<const float, 4> dfinal;
  View<float, 5> checkpoint;
  const uint32_t* tables;  // Tables::kGradient
  const float2* carry;
  Segments segments;
  int64_t length;     // of whole windows
  float* state_sums;  // [rows / kRows][channel][kBlockStates][kSums], one for each walk
  float* lag_sums;    // [rows / kRows][channel][kBlock][kBlock]: sums of dy[k] u[i]
};

template <class T>
struct Shared {
  T in[kRing][2][kDepth * kBlockElements];  // own, other
};

/// One warp's part of the sums of dy[k] u[i] over rows: all k, eight i.
template <int kParts, class T>
__device__ inline void multiply_lags(const T* u, const T* dy, int half, float (&sums)[4]) {
  const int lane = threadIdx.x % 32, row = 2 * (lane % 4), step = lane / 4;
  uint32_t left[kParts][4], right[kPieces][1][2] = {};
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const int k = kBlock - 1 - (step + r % 2 * 8), from = row + r / 2 * 8;  // dy lies in reverse
    pair_parts<kParts>(dy[place_of(from, k)], dy[place_of(from + 1, k)], r, left);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int i = 8 * half + step, from = row + r * 8;
    uint32_t split[kParts][4];
    pair_parts<kParts>(u[place_of(from, i)], u[place_of(from + 1, i)], 0, split);
#pragma unroll
    for (int piece = 0; piece < kParts; ++piece) {
      right[piece][0][r] = split[piece][0];
    }
  }
  float products[4] = {};
  if constexpr (kParts == 1) {
    multiply_add(left[0], right[0][0], products);
  } else {
    product<kParts>(left, right, 0, products);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sums[i] += products[i];
  }
}

/// sum += x y, complex.
__device__ inline void add_product(float2& sum, float2 x, float2 y) {
  sum.x = fmaf(-x.y, y.y, fmaf(x.x, y.x, sum.x));
  sum.y = fmaf(x.y, y.x, fmaf(x.x, y.y, sum.y));
}

/// Forward: sums of H Q, H W, (N - j) H Q. Backward: of E S, E V, (j + 1) E S, E H at the windows' left edges.
template <class T, bool kReverse>
__global__ void __launch_bounds__(kThreads, 1) gradient_kernel(const __grid_constant__ BlockGradients<T> args) {
  constexpr int kParts = sizeof(T) == 2 ? 1 : kPieces;
  extern __shared__ __align__(16) unsigned char memory[];
  Shared<T>& shared = *reinterpret_cast<Shared<T>*>(memory);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % kGroup, half = threadIdx.x / 32 / kGroup;
  const int64_t batch = args.u.size[0], channels = args.u.size[2], group = static_cast<int64_t>(blockIdx.x) * kGroup;
  const bool served = group + warp < channels;
  const int64_t d = served ? group + warp : channels - 1;
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kRows;
  // The step and the input that this thread moves; the other input goes against the walk.
  const bool moves_own = threadIdx.x < kRows * kBlock;
  const int moved_row = threadIdx.x / kBlock % kRows, step = threadIdx.x % kBlock;
  const Row<kReverse> moved(batch, args.length, args.segments, first_row + moved_row);
  const int place = place_of(moved_row, moves_own ? step : kBlock - 1 - step);
  const View<const T, 3>& input = moves_own == kReverse ? args.dy : args.u;
  const bool vector = group + kGroup <= channels && aligned(input);
  const Row<kReverse> rows[2] = {{batch, args.length, args.segments, first_row + lane / 4},
                                 {batch, args.length, args.segments, first_row + lane / 4 + 8}};

  uint32_t powers[kPieces][kTiles][2], slopes[kPieces][kTiles][2];
  float2 power[kTiles], gain[kTiles];
  const uint32_t* const table = args.tables + d * kTableWords * 32 + lane;
#pragma unroll
  for (int i = 0; i < kPieces * kTiles * 2; ++i) {
    const int word = i / (kTiles * 2) * 16 + half * kTiles * 2 + i % (kTiles * 2);
    powers[i / (kTiles * 2)][i / 2 % kTiles][i % 2] = table[(kInject + word) * 32];
    slopes[i / (kTiles * 2)][i / 2 % kTiles][i % 2] = table[(kRead + word) * 32];
  }
  float2 H[kTiles][2], inner[kTiles] = {}, weighted[kTiles] = {}, sloped[kTiles] = {};  // H: state; E on the way back
  float2 inner_sum[kTiles] = {}, weighted_sum[kTiles] = {}, edge_sum[kTiles] = {};
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    const int64_t p = 4 * (half * kTiles + tile) + lane % 4;
    power[tile].x = __uint_as_float(table[(kPower + 2 * (half * kTiles + tile)) * 32]);
    power[tile].y = __uint_as_float(table[(kPower + 2 * (half * kTiles + tile) + 1) * 32]);
    gain[tile] = {0, 0};
    H[tile][0] = H[tile][1] = {0, 0};
    if (kReverse && p < args.a.size[1]) {  // c a
      add_product(gain[tile], {args.a(d, p, 0), args.a(d, p, 1)}, {args.c(d, p, 0), args.c(d, p, 1)});
    }
  }
  const auto checkpoint_of = [&](const Row<kReverse>& row, int64_t window, int64_t p) {
    return p < args.a.size[1] ? float2{args.checkpoint(row.b, window, p, 0, d), args.checkpoint(row.b, window, p, 1, d)}
                              : float2{0, 0};
  };
  float lags[4] = {};

  const int64_t end = args.segments.length / kStage,
                stages = ceil_div<int64_t>(min(args.segments.length, args.length), kStage);
  const int64_t begin = kReverse ? end - stages : 0, last = begin + stages;
  const auto fetch_stage = [&](int64_t n, int slot) {
    if (n < last) {
      T* const to = shared.in[slot][moves_own ? 0 : 1] + place;
#pragma unroll
      for (int i = 0; i < kDepth; ++i) {
        fetch(input, moved.b, moved.time(n * kStage + i * kBlock + step), moved.length, group, vector,
              to + i * kBlockElements);
      }
    }
    commit_async();
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
    const T* const own = shared.in[slot][0] + warp;
    const T* const other = shared.in[slot][1] + warp;
    slot = slot + 1 == kRing ? 0 : slot + 1;
    if (n % kStagesPerCheckpoint == 0) {  // rows that start here, from what the walks before have found
#pragma unroll
      for (int at = 0; at < 2; ++at) {
        const Row<kReverse>& row = rows[at];
        const int64_t later = row.first + row.steps - row.length;  // steps of the segment past the end
        const int64_t starts = kReverse && later > 0 ? later / kStage : 0;
        if (n == starts && row.first < row.length) {
#pragma unroll
          for (int tile = 0; tile < kTiles; ++tile) {
            const int64_t p = 4 * (half * kTiles + tile) + lane % 4;
            if (!kReverse) {
              H[tile][at] = checkpoint_of(row, row.first / kDiagonalCheckpoint, p);
            } else if (args.segments.count > 1) {
              H[tile][at] = args.carry[((row.b * args.segments.count + row.segment) * channels + d) * kBlockStates + p];
            } else if (args.dfinal && p < args.a.size[1]) {
              H[tile][at] = {args.dfinal(row.b, d, p, 0), -args.dfinal(row.b, d, p, 1)};
            }
          }
        }
      }
    }
#pragma unroll 1
    for (int i = 0; i < kDepth; ++i) {
      uint32_t own_parts[kParts][4], other_parts[kParts][4];
      load_inputs(own + i * kBlockElements, own_parts);
      load_inputs(other + i * kBlockElements, other_parts);
      if (!kReverse) {
        multiply_lags<kParts>(own + i * kBlockElements, other + i * kBlockElements, half, lags);
      }
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        float added[4] = {}, plain[4] = {}, slope[4] = {};
        product<kParts>(own_parts, powers, tile, added);
        product<kParts>(other_parts, powers, tile, plain);
        product<kParts>(other_parts, slopes, tile, slope);
#pragma unroll
        for (int at = 0; at < 2; ++at) {
          const float2 state = H[tile][at];
          add_product(inner[tile], state, {plain[2 * at], plain[2 * at + 1]});
          add_product(sloped[tile], state, {slope[2 * at], slope[2 * at + 1]});
          float2 next = {added[2 * at], added[2 * at + 1]};
          if (kReverse) {
            const float2 local = next;
            next = {0, 0};
            add_product(next, gain[tile], local);
          }
          add_product(next, power[tile], state);
          H[tile][at] = next;
        }
        weighted[tile].x += inner[tile].x;
        weighted[tile].y += inner[tile].y;
      }
    }
    if (n % kStagesPerCheckpoint == kStagesPerCheckpoint - 1) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const int64_t p = 4 * (half * kTiles + tile) + lane % 4;
        const float2 rest = {__uint_as_float(table[(kRest + 2 * (half * kTiles + tile)) * 32]),
                             __uint_as_float(table[(kRest + 2 * (half * kTiles + tile) + 1) * 32])};
#pragma unroll
        for (int at = 0; at < 2; ++at) {
          add_product(H[tile][at], rest, H[tile][at]);
          const int64_t window = rows[at].time(n * kStage + kStage - 1) / kDiagonalCheckpoint;
          if (kReverse && window * kDiagonalCheckpoint < rows[at].length) {
            add_product(edge_sum[tile], H[tile][at], checkpoint_of(rows[at], window, p));
          }
        }
        inner_sum[tile].x += inner[tile].x;
        inner_sum[tile].y += inner[tile].y;
        weighted_sum[tile].x += weighted[tile].x;
        weighted_sum[tile].y += weighted[tile].y;
        inner[tile] = weighted[tile] = {0, 0};
      }
    }
  }
  wait_async<0>();

  const int64_t place_of_sums = static_cast<int64_t>(blockIdx.y) * channels + d;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    const int p = 4 * (half * kTiles + tile) + lane % 4;
    float sums[kSums] = {inner_sum[tile].x,    inner_sum[tile].y,    sloped[tile].x,   sloped[tile].y,
                         weighted_sum[tile].x, weighted_sum[tile].y, edge_sum[tile].x, edge_sum[tile].y};
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
#pragma unroll
      for (int offset = 4; offset < 32; offset *= 2) {
        sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], offset);
      }
      if (served && lane < 4) {
        args.state_sums[(place_of_sums * kBlockStates + p) * kSums + i] = sums[i];
      }
    }
  }
#pragma unroll
  for (int i = 0; !kReverse && served && i < 4; ++i) {
    args.lag_sums[place_of_sums * kBlock * kBlock + (lane / 4 + i / 2 * 8) * kBlock + 8 * half + 2 * (lane % 4) +
                  i % 2] = lags[i];
  }
}

__device__ double2 operator+(double2 x, double2 y) { return {x.x + y.x, x.y + y.y}; }
__device__ double2 operator*(double s, double2 x) { return {s * x.x, s * x.y}; }
__device__ double2 operator*(double2 x, double2 y) { return {x.x * y.x - x.y * y.y, x.x * y.y + x.y * y.x}; }

/// One block of kBlockStates threads a channel: adds up the row groups in order and puts the gradients together.
__global__ void __launch_bounds__(kBlockStates)
    combine_kernel(View<const float, 3> a, View<const float, 3> c, View<float, 3> da, View<float, 3> dc,
                   View<float, 1> dD, int64_t row_groups, const float* forward, const float* backward,
                   const float* lag_sums) {
  const int64_t channels = a.size[0], d = blockIdx.x;
  const int p = threadIdx.x;
  __shared__ double R[kBlock];
  if (p < kBlock) {
    double sum = 0;
    for (int64_t g = 0; g < row_groups; ++g) {
      for (int k = p; k < kBlock; ++k) {
        sum += lag_sums[(g * channels + d) * kBlock * kBlock + k * kBlock + k - p];
      }
    }
    R[p] = sum;
  }
  __syncthreads();
  if (dD && p == 0) {
    dD(d) += static_cast<float>(R[0]);
  }
  if (p >= a.size[1]) {
    return;
  }
  double sums[2][kSums] = {};
  for (int64_t g = 0; g < row_groups; ++g) {
    for (int i = 0; i < kSums; ++i) {
      sums[0][i] += forward[((g * channels + d) * kBlockStates + p) * kSums + i];
      sums[1][i] += backward[((g * channels + d) * kBlockStates + p) * kSums + i];
    }
  }
  const auto pair = [&](int walk, int i) { return double2{sums[walk][2 * i], sums[walk][2 * i + 1]}; };
  const double2 decay = {a(d, p, 0), a(d, p, 1)}, out = {c(d, p, 0), c(d, p, 1)};
  double2 plain = {0, 0}, slope = {0, 0}, power = {1, 0};
  for (int m = 0; m < kBlock; ++m) {
    plain = plain + R[m] * power;
    if (m + 1 < kBlock) {
      slope = slope + ((m + 1) * R[m + 1]) * power;
    }
    power = power * decay;
  }
  const double2 HQ = pair(0, 0);
  const double2 conj_dc = decay * HQ + plain;
  double2 conj_da = out * (decay * pair(0, 1) + HQ + slope) + pair(1, 1);
  // T a^(T-1) sum E H, from a^T times it. Where a^T is nothing next to 1 the term is, too, and would be mere rounding.
  const double size = decay.x * decay.x + decay.y * decay.y;
  if (size > 0.05) {
    const double2 windows = static_cast<double>(kBlocksPerCheckpoint) * (pair(1, 3) + pair(1, 0)) + -1.0 * pair(1, 2) +
                            -1.0 * (out * decay * pair(0, 2));
    conj_da = conj_da + (kBlock / size) * (double2{decay.x, -decay.y} * windows);
  }
  da(d, p, 0) += static_cast<float>(conj_da.x);
  da(d, p, 1) -= static_cast<float>(conj_da.y);
  dc(d, p, 0) += static_cast<float>(conj_dc.x);
  dc(d, p, 1) -= static_cast<float>(conj_dc.y);
}

template <class T, bool kReverse>
void launch(const Exec& exec, const BlockGradients<T>& args, int64_t row_groups) {
  const char* op = "diagonal_scan backward";
  static_assert(sizeof(Shared<T>) <= kBlockSharedMemory, "fits a multiprocessor");
  const auto kernel = gradient_kernel<T, kReverse>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared<T>)), op);
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(args.u.size[2], kGroup)), static_cast<unsigned>(row_groups));
  kernel<<<grid, kThreads, sizeof(Shared<T>), stream_of(exec)>>>(args);
  check_launch(exec, op);
}

}  // namespace

template <class T>
void run_block_gradients(const Exec& exec, const DiagonalScanBackward<T, float>& args, Segments segments,
                         const float2* carry) {
  const DiagonalScanForward<T, float>& in = args.forward;
  const int64_t batch = in.u.size[0], channels = in.u.size[2];
  const int64_t row_groups = ceil_div<int64_t>(batch * segments.count, kRows), places = row_groups * channels;
  const Scratch<uint32_t> tables(exec, channels * kTableWords * 32);
  make_tables(exec, in.a, in.c, {}, Tables::kGradient, tables.get());
  const Scratch<float> sums(exec, places * (2 * kBlockStates * kSums + kBlock * kBlock));
  float* const forward = sums.get();
  float* const backward = forward + places * kBlockStates * kSums;
  BlockGradients<T> work{in.u,        args.dy,       in.a,         in.c,
                         args.dfinal, in.checkpoint, tables.get(), carry,
                         segments,    in.u.size[1],  forward,      backward + places * kBlockStates * kSums};
  launch<T, false>(exec, work, row_groups);
  work.state_sums = backward;
  launch<T, true>(exec, work, row_groups);
  combine_kernel<<<static_cast<unsigned>(channels), kBlockStates, 0, stream_of(exec)>>>(
      in.a, in.c, args.da, args.dc, args.dD, row_groups, forward, backward, work.lag_sums);
  check_launch(exec, "diagonal_scan backward");
}

template void run_block_gradients<float>(const Exec&, const DiagonalScanBackward<float, float>&, Segments,
                                         const float2*);
template void run_block_gradients<BFloat16>(const Exec&, const DiagonalScanBackward<BFloat16, float>&, Segments,
                                            const float2*);

}  // namespace blockstate::kernels::cuda
