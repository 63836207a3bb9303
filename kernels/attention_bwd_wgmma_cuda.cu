// SPDX-License-Identifier: Apache-2.0
// Backward pass of range attention for bfloat16 on sm_90a, heads of up to 64 channels, in one kernel of five products.
//
// A CTA owns a tile of 128 keys and walks the tiles of 64 queries that see it, from the last to the first. Everything
// is formed transposed (keys along rows), so that probabilities and gradients of scores go from one product into the
// next in registers:
//   two warpgroups, 64 keys each   S = K Q^T, D = V dY^T, P = exp(S - log sum), G = P (D - dy . y);
//                                  dV += P dY, dK += G Q; G to shared memory. K, V, dK, dV stay in registers
//   a third warpgroup              dQ^T = K^T G, K^T in registers
//   a loader                       tiles by the copy engine, four stages ahead
//   writers, in turn               add dQ to a float32 buffer by the copy engine
// Operands in registers halve what the products read from shared memory, which would bind otherwise.
// A query's dq has parts from several CTAs. They are added in the order of the key tiles, which a counter for each tile
// of queries enforces, so the bits do not depend on timing. Tiles of keys are handed out in that order too and queries
// are walked backwards: the CTA before is some steps ahead, nobody waits for long, and the longest walks of causal
// attention start first. The CTA with the last part reads the sum of the others and writes dq itself.
#include <algorithm>

#include "kernels/attention_bwd_cuda.cuh"
#include "kernels/attention_bwd_wgmma.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int64_t kAllSumBytes = int64_t{1} << 30;  // float32 dq of one launch

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int kKeyRegisters = 192, kQueryRegisters = 96, kCopyRegisters = 32;  // of a thread; 512 in all

/// dK and dV of 64 keys, by one of two warpgroups.
template <int kGroup>
__device__ void multiply_keys(const Problem& problem, Barriers& barriers, uint8_t* memory) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;  // 0 to 7
  const float scale = problem.scale * kLog2E;
  const Order order = order_of(problem);
  Ring<2> items, slopes;
  Ring<kStages> stages;
  int keys_parity = 0, entry = 0;
  while (next_item(barriers, items, &entry)) {
    float dk[32], dv[32];
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      dk[i] = dv[i] = 0;
    }
    if (entry % 2 == 1) {
      const int own_key =
          item_of(problem, order, entry / 2).n * kKeys + warp * 16 + lane / 4;  // and the one 8 further on
      hp::barrier_wait(&barriers.keys_full, keys_parity);
      keys_parity ^= 1;
      uint32_t keys[4][4], values[4][4];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        load_matrices<false>(matrix_address<false>(hp::shared_address(memory + kKeysAt), 16 * warp, 2 * k), keys[k]);
        load_matrices<false>(matrix_address<false>(hp::shared_address(memory + kValuesAt), 16 * warp, 2 * k),
                             values[k]);
      }
      arrive_warp(&barriers.keys_empty);
      int step;
#pragma unroll 1
      do {
        hp::barrier_wait(&barriers.full[stages.slot], stages.parity);
        step = barriers.step[stages.slot] >> (kGroup * kGroupBits);
        if (step & kSkipped) {
          hp::barrier_wait(&barriers.slopes_empty[slopes.slot], slopes.parity ^ 1);
          arrive_warp(&barriers.slopes_full[slopes.slot]);
          slopes.advance();
          arrive_warp(&barriers.empty[stages.slot]);
          stages.advance();
          continue;
        }
        const uint32_t queries = hp::shared_address(memory + kQueriesAt + stages.slot * kQueryBytes);
        const uint32_t dys = hp::shared_address(memory + kDysAt + stages.slot * kQueryBytes);
        // This thread has queries 2 (lane % 4), the next one, and those 8, 16, ... further on.
        const float* const rows =
            reinterpret_cast<const float*>(memory + kRowsAt + stages.slot * kRowBytes) + 2 * (lane % 4);
        float s[32], d[32];
        hp::products_begin();
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          hp::wgmma_m64n64k16<0>(s, keys[k], hp::descriptor(queries) + 2 * k, k > 0);
        }
        hp::products_commit();
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          hp::wgmma_m64n64k16<0>(d, values[k], hp::descriptor(dys) + 2 * k, k > 0);
        }
        hp::products_commit();
        hp::products_wait<1>();
        hp::hold(s);
        if (step & kMasked) {
          const IntRange* const ranges =
              reinterpret_cast<const IntRange*>(memory + kRangesAt + stages.slot * kRangeBytes) + 2 * (lane % 4);
#pragma unroll
          for (int j = 0; j < 8; ++j) {
            const int4 pair = *reinterpret_cast<const int4*>(ranges + 8 * j);
#pragma unroll
            for (int r = 0; r < 2; ++r) {
              const int key = own_key + 8 * r;
              const bool first = static_cast<unsigned>(key - pair.x) < static_cast<unsigned>(pair.y - pair.x);
              const bool second = static_cast<unsigned>(key - pair.z) < static_cast<unsigned>(pair.w - pair.z);
              s[4 * j + 2 * r] = first ? s[4 * j + 2 * r] : -INFINITY;
              s[4 * j + 2 * r + 1] = second ? s[4 * j + 2 * r + 1] : -INFINITY;
            }
          }
        }
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          const float2 base = *reinterpret_cast<const float2*>(rows + 8 * j);
          s[4 * j] = exp2_fast(fmaf(s[4 * j], scale, base.x));
          s[4 * j + 1] = exp2_fast(fmaf(s[4 * j + 1], scale, base.y));
          s[4 * j + 2] = exp2_fast(fmaf(s[4 * j + 2], scale, base.x));
          s[4 * j + 3] = exp2_fast(fmaf(s[4 * j + 3], scale, base.y));
        }
        hp::products_wait<0>();
        hp::hold(d);
        uint32_t p[4][4], g[4][4];
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          const float2 projection = *reinterpret_cast<const float2*>(rows + kQueries + 8 * j);
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            const float one = s[4 * j + 2 * r], other = s[4 * j + 2 * r + 1];
            p[j / 2][j % 2 * 2 + r] = hp::pack_bfloat16(one, other);
            g[j / 2][j % 2 * 2 + r] = hp::pack_bfloat16(one * (d[4 * j + 2 * r] - projection.x),
                                                        other * (d[4 * j + 2 * r + 1] - projection.y));
          }
        }
        hp::products_begin();
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          hp::wgmma_m64n64k16<1>(dv, p[k], hp::transposed_descriptor(dys, kQueryBytes) + 128 * k, true);
        }
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          hp::wgmma_m64n64k16<1>(dk, g[k], hp::transposed_descriptor(queries, kQueryBytes) + 128 * k, true);
        }
        hp::products_commit();
        hp::barrier_wait(&barriers.slopes_empty[slopes.slot], slopes.parity ^ 1);
        const uint32_t to = hp::shared_address(memory + kSlopesAt + slopes.slot * kSlopeBytes);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          store_matrices<false>(matrix_address<false>(to, 16 * warp, 2 * k), g[k]);
        }
        hp::fence_shared();
        arrive_warp(&barriers.slopes_full[slopes.slot]);
        slopes.advance();
        hp::products_wait<0>();
        hp::hold(dk);
        hp::hold(dv);
        arrive_warp(&barriers.empty[stages.slot]);
        stages.advance();
      } while ((step & (kLast >> (kGroup * kGroupBits))) == 0);
    }
    const Item item = item_of(problem, order, entry / 2);
    const int64_t first = static_cast<int64_t>(item.n) * kKeys + kGroup * (kKeys / 2);
    uint8_t* const tile = memory + kResultsAt + kGroup * (kKeyBytes / 2);
    store_rows<false, 2 + kGroup>(problem.dk, item.b, item.h, first, problem.scale, dk, tile);
    store_rows<false, 2 + kGroup>(problem.dv, item.b, item.h, first, 1.f, dv, tile);
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

__global__ __launch_bounds__(kThreads, 1) void backward(const __grid_constant__ Problem problem) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ uint8_t unaligned[];
  __shared__ Barriers barriers;
  uint8_t* const memory = unaligned + (1024 - hp::shared_address(unaligned) % 1024) % 1024;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      hp::barrier_init(&barriers.full[i], 1);
      hp::barrier_init(&barriers.empty[i], 8);
    }
    for (int i = 0; i < kSums; ++i) {
      hp::barrier_init(&barriers.sums_full[i], 4);
      hp::barrier_init(&barriers.sums_empty[i], 1);
    }
    for (int i = 0; i < 2; ++i) {
      hp::barrier_init(&barriers.slopes_full[i], 8);
      hp::barrier_init(&barriers.slopes_empty[i], 4);
      hp::barrier_init(&barriers.item_full[i], 1);
      hp::barrier_init(&barriers.item_empty[i], 12 + kSums);
    }
    hp::barrier_init(&barriers.keys_full, 1);
    hp::barrier_init(&barriers.keys_empty, 12);
    hp::barrier_init_fence();
  }
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (warp < 4) {
    hp::more_registers<kKeyRegisters>();
    multiply_keys<0>(problem, barriers, memory);
  } else if (warp < 8) {
    hp::more_registers<kKeyRegisters>();
    multiply_keys<1>(problem, barriers, memory);
  } else if (warp < 12) {
    hp::fewer_registers<kQueryRegisters>();
    multiply_queries(problem, barriers, memory);
  } else {
    hp::fewer_registers<kCopyRegisters>();
    if (threadIdx.x % 32 == 0) {
      if (warp == 12) {
        load(problem, barriers, memory);
      } else {
        write_sums(problem, barriers, memory, warp - 13);
      }
    }
  }
#endif
}

/// For each tile of queries of a row and head, by a block: its rows of numbers, its counter, and dq where no query sees
/// anything.
__global__ __launch_bounds__(256) void prepare(View<const BFloat16, 4> dy, View<const BFloat16, 4> y,
                                               View<const float, 3> log_sum_exp, View<BFloat16, 4> dq,
                                               const QueryTileKeys* summary, const IntRange* ranges, int first_head,
                                               int query_tiles, float* rows, int* parts, int* next) {
  const int64_t head = first_head + blockIdx.y, b = head / y.size[2], h = head % y.size[2];
  const int m = static_cast<int>(blockIdx.x), lane = static_cast<int>(threadIdx.x) % 8;
  const bool unseeing = summary[b * query_tiles + m].high == 0;
  rows += (head * query_tiles + m) * 2 * kQueries;
  for (int i = static_cast<int>(threadIdx.x) / 8; i < kQueries; i += 32) {
    const int64_t query = static_cast<int64_t>(m) * kQueries + i;
    const IntRange range = ranges[b * query_tiles * kQueries + query];
    const bool sees = range.begin < range.end;
    float sum = 0;
    if (8 * lane < y.size[3] && query < y.size[1]) {
      float one[8], other[8];
      load_pack<8>(&dy(b, query, h, 8 * lane), one);
      load_pack<8>(&y(b, query, h, 8 * lane), other);
#pragma unroll
      for (int p = 0; p < 8; ++p) {
        sum = fmaf(one[p], other[p], sum);
      }
      if (unseeing) {
        const float zeros[8] = {};
        store_pack<8>(&dq(b, query, h, 8 * lane), zeros);
      }
    }
    sum = warp_sum<8>(sum);
    if (lane == 0) {
      rows[i] = sees ? -kLog2E * log_sum_exp(b, h, query) : -INFINITY;
      rows[kQueries + i] = sees ? sum : 0.f;
    }
  }
  if (threadIdx.x == 0) {
    parts[blockIdx.y * query_tiles + m] = 0;
    if (m == 0 && blockIdx.y == 0) {
      *next = 0;
    }
  }
}

template <class T>
bool aligned(const View<T, 4>& view) {
  return reinterpret_cast<uintptr_t>(view.data) % 16 == 0 && view.stride[0] % 8 == 0 && view.stride[1] % 8 == 0 &&
         view.stride[2] % 8 == 0;
}

/// Whether this process's code for the GPU has the kernel's body: it alone has static shared memory.
bool has_code() {
  cudaFuncAttributes attributes;
  if (cudaFuncGetAttributes(&attributes, backward) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  return attributes.sharedSizeBytes > 0;
}

}  // namespace

bool attention_backward_wgmma(const Exec& exec, const AttentionBackward<BFloat16, float>& args) {
  constexpr const char* kOp = "attention backward";
  const AttentionForward<BFloat16, float>& in = args.forward;
  const int64_t B = in.q.size[0], L = in.q.size[1], H = in.q.size[2], P = in.q.size[3], J = in.k.size[1];
  Problem problem;
  if (in.bias || P % 8 != 0 || P > kWidth || L == 0 || J == 0 || B * H > INT_MAX / 2 || !aligned(in.y) ||
      !aligned(args.dq) || !aligned(args.dk) || !aligned(args.dv) || !has_code() ||
      !hp::tile_map(in.q, kQueries, &problem.q) || !hp::tile_map(in.k, kKeys, &problem.k) ||
      !hp::tile_map(in.v, kKeys, &problem.v) || !hp::tile_map(args.dy, kQueries, &problem.dy)) {
    return false;
  }
  const AttentionTiles<kQueries, kKeys> tiles(exec, in.begin, in.end, J);
  const int64_t query_tiles = tiles.query_tiles(), key_tiles = tiles.key_tiles();
  const int64_t at_once = std::clamp<int64_t>(kAllSumBytes / (query_tiles * kSumBytes), 1,
                                              std::max<int64_t>(1, INT_MAX / 4 / std::max(query_tiles, key_tiles)));
  const int64_t heads = std::min({at_once, B * H, int64_t{65535}});
  const Scratch<float> rows(exec, B * H * query_tiles * 2 * kQueries);
  const Scratch<float> sums(exec, heads * query_tiles * kSumBytes / 4);
  const Scratch<int> parts(exec, heads * query_tiles + 1);
  problem.dq = args.dq;
  problem.dk = args.dk;
  problem.dv = args.dv;
  problem.summary = tiles.summary();
  problem.ranges = tiles.ranges();
  problem.visitors = tiles.visitors();
  problem.rows = rows.get();
  problem.sums = sums.get();
  problem.next = parts.get();
  problem.parts = parts.get() + 1;
  problem.H = static_cast<int>(H);
  problem.query_tiles = static_cast<int>(query_tiles);
  problem.key_tiles = static_cast<int>(key_tiles);
  problem.scale = in.scale;
  const int64_t processors = multiprocessors(exec);
  problem.chains = static_cast<int>(ceil_div<int64_t>(processors, 2));
  problem.most_steps = tiles.most_visitors();
  check_cuda(cudaFuncSetAttribute(backward, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes), kOp);
  for (int64_t first = 0; first < B * H; first += heads) {
    problem.first_head = static_cast<int>(first);
    problem.heads = static_cast<int>(std::min(heads, B * H - first));
    prepare<<<dim3(static_cast<unsigned>(query_tiles), static_cast<unsigned>(problem.heads)), 256, 0,
              stream_of(exec)>>>(args.dy, in.y, in.log_sum_exp, args.dq, tiles.summary(), tiles.ranges(),
                                 problem.first_head, problem.query_tiles, rows.get(), problem.parts, problem.next);
    check_launch(exec, kOp);
    const int64_t items = problem.heads * key_tiles;
    backward<<<static_cast<unsigned>(std::min(items, processors)), kThreads, kSharedBytes, stream_of(exec)>>>(problem);
    check_launch(exec, kOp);
  }
  return true;
}

}  // namespace blockstate::kernels::cuda
