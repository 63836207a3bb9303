// SPDX-License-Identifier: Apache-2.0
// Pieces of attention_bwd_wgmma_cuda.cu (which says how they play together): tables, the loader, the writers of dq, and
// the warpgroup that computes dq.
#pragma once

#include "kernels/attention.cuh"
#include "kernels/attention_tiles.cuh"
#include "kernels/hopper.cuh"

namespace blockstate::kernels::cuda {
namespace {

namespace hp = hopper;

constexpr int kQueries = 64;  // of a tile
constexpr int kKeys = 128;    // of a tile, half of them for each of two warpgroups
constexpr int kWidth = 64;    // channels of a head, zeros beyond the view's
constexpr int kStages = 4;
constexpr int kSums = 3;  // tiles of dq on their way, each with a thread that writes it
constexpr int kQueryBytes = kQueries * kWidth * 2;
constexpr int kKeyBytes = kKeys * kWidth * 2;
constexpr int kSlopeBytes = kKeys * kQueries * 2;  // gradients of scores
constexpr int kSumBytes = kQueries * kWidth * 4;   // float32 dq
constexpr int kRowBytes = 2 * kQueries * 4;        // -log sum and dy . y
constexpr int kRangeBytes = kQueries * 8;
constexpr int kStageBytes = 2 * kQueryBytes + kRowBytes + kRangeBytes;

/// Shared memory, from a multiple of 1024 bytes on.
constexpr int kKeysAt = 0, kValuesAt = kKeysAt + kKeyBytes, kQueriesAt = kValuesAt + kKeyBytes,
              kDysAt = kQueriesAt + kStages * kQueryBytes, kSlopesAt = kDysAt + kStages * kQueryBytes,
              kSumsAt = kSlopesAt + 2 * kSlopeBytes, kResultsAt = kSumsAt + kSums * kSumBytes,
              kRowsAt = kResultsAt + kKeyBytes, kRangesAt = kRowsAt + kStages * kRowBytes,
              kSharedBytes = kRangesAt + kStages * kRangeBytes + 1024;

struct Problem {
  CUtensorMap q, k, v, dy;
  View<BFloat16, 4> dq, dk, dv;
  const QueryTileKeys* summary;
  const IntRange* ranges;
  const IntRange* visitors;
  const float* rows;  // (B H, query tiles, 2, kQueries): -log2 e log_sum_exp, dy . y
  float* sums;        // (heads, query tiles, 8, 128, 4): dq so far, as the threads of the warpgroup hold it
  int* parts;         // (heads, query tiles): how many CTAs have added to it
  int* next;          // item to be handed out
  int heads;          // of this launch: rows times heads, from first_head on
  int first_head;
  int H;
  int query_tiles;
  int key_tiles;
  int chains;             // of items in flight: enough that an item seldom waits for the one before
  const int* most_steps;  // of an item
  float scale;
};

/// The order in which items are handed out, and with it that of the parts of a query's dq. Tiles of keys of a head are
/// cut into segments of `stride`; the first tiles of all segments of all heads of a group come first, then the second
/// ones, and so on: neighbours share queries, and would wait for one another if they ran at the same time. Where most
/// keys see most queries segments do not help: there is one, and the longest walks come first.
struct Order {
  int group;  // heads; the last group may have fewer
  int segments;
  int stride;
};

__device__ Order order_of(const Problem& problem) {
  Order order;
  order.group = min(problem.heads, problem.chains);
  const int reach = 4 * ceil_div(*problem.most_steps * kQueries, kKeys);  // a segment must be longer than its items
  order.segments = max(1, min(problem.chains / order.group, problem.key_tiles / max(1, reach)));
  order.stride = ceil_div(problem.key_tiles, order.segments);
  return order;
}

/// How many of the tiles of keys [low, high] come before n, one of them.
__device__ int parts_before(const Order& order, int low, int high, int n) {
  if (order.segments == 1) {
    return n - low;
  }
  const int rest = n % order.stride;
  const auto smaller = [&](int end) { return end / order.stride * rest + min(end % order.stride, rest); };
  return smaller(high + 1) - smaller(low) + (n - low) / order.stride;
}

/// A tile of keys of one row and head.
struct Item {
  int b;
  int h;
  int head;  // of this launch
  int n;     // not less than key_tiles: no item
};

__device__ Item item_of(const Problem& problem, const Order& order, int index) {
  const int per_group = order.group * order.segments * order.stride;
  const int group = index / per_group, inside = index % per_group;
  const int size = min(order.group, problem.heads - group * order.group);
  const int place = inside / size;
  Item item;
  item.head = group * order.group + inside % size;
  item.n = place % order.segments * order.stride + place / order.segments;
  item.b = (problem.first_head + item.head) / problem.H;
  item.h = (problem.first_head + item.head) % problem.H;
  return item;
}

/// A step's part of dq: how many come before it, and whether it is the last.
struct Part {
  int before;
  bool last;
};

__device__ Part part_of(const Order& order, const QueryTileKeys& seen, int n) {
  const int low = seen.low / kKeys, high = (seen.high - 1) / kKeys;
  Part part;
  part.before = parts_before(order, low, high, n);
  part.last = part.before == high - low;
  return part;
}

struct Barriers {
  uint64_t full[kStages], empty[kStages];  // queries
  uint64_t keys_full, keys_empty;
  uint64_t slopes_full[2], slopes_empty[2];
  uint64_t sums_full[kSums], sums_empty[kSums];
  uint64_t item_full[2], item_empty[2];
  int item[2];        // 2 * index + whether any query sees the keys; -1: no more
  int step[kStages];  // flags
};

/// Of a step: for each warpgroup of keys, whether nothing is seen there, and whether some but not all is; and whether
/// the step is the last of its item.
constexpr int kSkipped = 1, kMasked = 2, kGroupBits = 2, kLast = 16;

__device__ int flags_of(const QueryTileKeys& tile, int first) {
  constexpr int kCount = kKeys / 2;
  return (meets(tile, first, kCount) ? 0 : kSkipped) +
         (first < tile.all_begin || first + kCount > tile.all_end ? kMasked : 0);
}

/// Position in a ring of N slots, and the parity of its turn.
template <int N>
struct Ring {
  int slot = 0;
  int parity = 0;
  __device__ void advance() {
    slot = slot + 1 == N ? 0 : slot + 1;
    parity ^= slot == 0 ? 1 : 0;
  }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

__device__ void arrive_warp(uint64_t* barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) {
    hp::barrier_arrive(barrier);
  }
}

__device__ void copy_bytes(void* to, const void* from, int bytes, uint64_t* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   hp::shared_address(to)),
               "l"(from), "r"(bytes), "r"(hp::shared_address(barrier))
               : "memory");
}

__device__ void wait_for_parts(const int* parts, int wanted) {
  int found;
  do {
    asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(found) : "l"(parts) : "memory");
  } while (found < wanted);
  asm volatile("fence.acq_rel.gpu;\nfence.proxy.async;" ::: "memory");
}

/// The next item, by all lanes of a warp; false: no more.
__device__ bool next_item(Barriers& barriers, Ring<2>& ring, int* item) {
  hp::barrier_wait(&barriers.item_full[ring.slot], ring.parity);
  *item = barriers.item[ring.slot];
  arrive_warp(&barriers.item_empty[ring.slot]);
  ring.advance();
  return *item >= 0;
}

/// Calls step(tile, its keys) for every tile of queries that sees a tile of keys, from the last to the first.
template <class Step>
__device__ void for_visitors(const Problem& problem, const Item& item, Step step) {
  const IntRange visitors = problem.visitors[item.b * problem.key_tiles + item.n];
  const QueryTileKeys* const summary = problem.summary + static_cast<int64_t>(item.b) * problem.query_tiles;
  QueryTileKeys ahead{};
  if (visitors.begin < visitors.end) {
    ahead = summary[visitors.end - 1];
  }
#pragma unroll 1
  for (int m = visitors.end - 1; m >= visitors.begin; --m) {
    const QueryTileKeys seen = ahead;
    if (m > visitors.begin) {
      ahead = summary[m - 1];
    }
    if (meets(seen, item.n * kKeys, kKeys)) {
      step(m, seen);
    }
  }
}

/// One thread.
__device__ void load(const Problem& problem, Barriers& barriers, uint8_t* memory) {
  Ring<2> items;
  Ring<kStages> stages;
  int keys_parity = 1;
  const auto announce = [&](int value) {
    hp::barrier_wait(&barriers.item_empty[items.slot], items.parity ^ 1);
    barriers.item[items.slot] = value;
    hp::barrier_arrive(&barriers.item_full[items.slot]);
    items.advance();
  };
  const Order order = order_of(problem);
  const int count = problem.heads * order.segments * order.stride;
  int index = atomicAdd(problem.next, 1);
#pragma unroll 1
  while (index < count) {
    const int following = atomicAdd(problem.next, 1);
    const Item item = item_of(problem, order, index);
    if (item.n >= problem.key_tiles) {
      index = following;
      continue;
    }
    const int first = item.n * kKeys;
    const float* const rows =
        problem.rows + static_cast<int64_t>(problem.first_head + item.head) * problem.query_tiles * (2 * kQueries);
    const IntRange* const ranges = problem.ranges + static_cast<int64_t>(item.b) * problem.query_tiles * kQueries;
    int steps = 0;
    for_visitors(problem, item, [&](int, const QueryTileKeys&) { ++steps; });
    announce(2 * index + (steps > 0 ? 1 : 0));
    if (steps > 0) {
      hp::barrier_wait(&barriers.keys_empty, keys_parity);
      keys_parity ^= 1;
      hp::barrier_arrive_expect(&barriers.keys_full, 2 * kKeyBytes);
      hp::copy_tile(memory + kKeysAt, &problem.k, 0, item.h, first, item.b, &barriers.keys_full);
      hp::copy_tile(memory + kValuesAt, &problem.v, 0, item.h, first, item.b, &barriers.keys_full);
    }
    for_visitors(problem, item, [&](int m, const QueryTileKeys& seen) {
      hp::barrier_wait(&barriers.empty[stages.slot], stages.parity ^ 1);
      uint64_t* const full = &barriers.full[stages.slot];
      --steps;
      barriers.step[stages.slot] =
          flags_of(seen, first) + (flags_of(seen, first + kKeys / 2) << kGroupBits) + (steps == 0 ? kLast : 0);
      hp::barrier_arrive_expect(full, kStageBytes);
      hp::copy_tile(memory + kQueriesAt + stages.slot * kQueryBytes, &problem.q, 0, item.h, m * kQueries, item.b, full);
      copy_bytes(memory + kRowsAt + stages.slot * kRowBytes, rows + m * (2 * kQueries), kRowBytes, full);
      hp::copy_tile(memory + kDysAt + stages.slot * kQueryBytes, &problem.dy, 0, item.h, m * kQueries, item.b, full);
      copy_bytes(memory + kRangesAt + stages.slot * kRangeBytes, ranges + m * kQueries, kRangeBytes, full);
      stages.advance();
    });
    index = following;
  }
  announce(-1);
}

/// The float32 sums of a tile of queries.
__device__ char* sums_at(const Problem& problem, const Item& item, int m) {
  return reinterpret_cast<char*>(problem.sums) +
         (static_cast<int64_t>(item.head) * problem.query_tiles + m) * kSumBytes;
}

/// One thread of kSums: takes turns with the others.
__device__ void write_sums(const Problem& problem, Barriers& barriers, uint8_t* memory, int writer) {
  const Order order = order_of(problem);
  Ring<2> items;
  int parity = 0, turn = kSums - 1;
  for (;;) {
    hp::barrier_wait(&barriers.item_full[items.slot], items.parity);
    const int entry = barriers.item[items.slot];
    hp::barrier_arrive(&barriers.item_empty[items.slot]);
    items.advance();
    if (entry < 0) {
      break;
    }
    if (entry % 2 == 0) {
      continue;
    }
    const Item item = item_of(problem, order, entry / 2);
    for_visitors(problem, item, [&](int m, const QueryTileKeys& seen) {
      const Part part = part_of(order, seen, item.n);
      if (part.last) {
        return;  // the warpgroup writes dq itself
      }
      turn = turn + 1 == kSums ? 0 : turn + 1;
      if (turn != writer) {
        return;
      }
      int* const parts = problem.parts + item.head * problem.query_tiles + m;
      if (part.before > 0) {
        wait_for_parts(parts, part.before);
      }
      char* const to = sums_at(problem, item, m);
      const uint32_t from = hp::shared_address(memory + kSumsAt + writer * kSumBytes);
      hp::barrier_wait(&barriers.sums_full[writer], parity);
      parity ^= 1;
      if (part.before > 0) {
        asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to), "r"(from),
                     "n"(kSumBytes)
                     : "memory");
      } else {
        asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from), "n"(kSumBytes)
                     : "memory");
      }
      asm volatile("cp.async.bulk.commit_group;" ::: "memory");
      asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
      hp::barrier_arrive(&barriers.sums_empty[writer]);
      asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
      asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(parts), "r"(part.before + 1) : "memory");
    });
  }
}

/// Where a lane of a warp has its row of one of four 8 by 8 matrices, for ldmatrix and stmatrix: the second matrix
/// follows the first along columns (kAcross) or rows, the other two along the other dimension. `row` is a multiple
/// of 8.
template <bool kAcross>
__device__ uint32_t matrix_address(uint32_t tile, int row, int chunk) {
  const int lane = static_cast<int>(threadIdx.x) % 32, odd = lane / 8 % 2, upper = lane / 16;
  row += 8 * (kAcross ? upper : odd) + lane % 8;
  chunk += kAcross ? odd : upper;
  return tile + static_cast<uint32_t>(row * 128 + ((chunk ^ (lane % 8)) * 16));
}

template <bool kTranspose>
__device__ void load_matrices(uint32_t from, uint32_t (&to)[4]) {
  if (kTranspose) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from)
                 : "memory");
  }
}

template <bool kTranspose>
__device__ void store_matrices(uint32_t to, const uint32_t (&from)[4]) {
  if (kTranspose) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(from[0]),
                 "r"(from[1]), "r"(from[2]), "r"(from[3])
                 : "memory");
  } else {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(from[0]),
                 "r"(from[1]), "r"(from[2]), "r"(from[3])
                 : "memory");
  }
}

/// Writes 64 rows of a gradient that a warpgroup holds after a product (kTranspose: as columns) by way of `tile` in
/// shared memory, so that neighbouring threads write neighbouring bytes.
template <bool kTranspose, int kBarrier>
__device__ void store_rows(const View<BFloat16, 4>& view, int b, int h, int64_t first, float factor,
                           const float (&sum)[32], uint8_t* tile) {
  const int warp = static_cast<int>(threadIdx.x) / 32 % 4;
  const uint32_t to = hp::shared_address(tile);
#pragma unroll
  for (int j = 0; j < 8; j += 2) {
    uint32_t packed[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      packed[i] = hp::pack_bfloat16(factor * sum[4 * j + 2 * i], factor * sum[4 * j + 2 * i + 1]);
    }
    const uint32_t at =
        kTranspose ? matrix_address<true>(to, 8 * j, 2 * warp) : matrix_address<false>(to, 16 * warp, j);
    store_matrices<kTranspose>(at, packed);
  }
  hp::named_barrier_sync(kBarrier, 128);
  const int thread = static_cast<int>(threadIdx.x) % 128, chunk = thread % 8;
  BFloat16* const rows = view.data + b * view.stride[0] + h * view.stride[2] + 8 * chunk;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = thread / 8 + 16 * i;
    const uint4 value = *reinterpret_cast<const uint4*>(tile + row * 128 + (chunk ^ (row % 8)) * 16);
    if (first + row < view.size[1] && 8 * chunk < view.size[3]) {
      *reinterpret_cast<uint4*>(rows + (first + row) * view.stride[1]) = value;
    }
  }
  hp::named_barrier_sync(kBarrier, 128);
}

/// dQ^T = K^T G, by a warpgroup.
__device__ void multiply_queries(const Problem& problem, Barriers& barriers, uint8_t* memory) {
  const int thread = static_cast<int>(threadIdx.x) % 128;
  const Order order = order_of(problem);
  Ring<2> items, slopes;
  Ring<kSums> sums;
  int keys_parity = 0, entry = 0;
  while (next_item(barriers, items, &entry)) {
    if (entry % 2 == 0) {
      continue;
    }
    const Item item = item_of(problem, order, entry / 2);
    hp::barrier_wait(&barriers.keys_full, keys_parity);
    keys_parity ^= 1;
    uint32_t keys[8][4];
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      load_matrices<true>(matrix_address<true>(hp::shared_address(memory + kKeysAt), 16 * k, thread / 32 * 2), keys[k]);
    }
    arrive_warp(&barriers.keys_empty);
    for_visitors(problem, item, [&](int m, const QueryTileKeys& seen) {
      const Part part = part_of(order, seen, item.n);
      const bool lower = meets(seen, item.n * kKeys, kKeys / 2);
      const bool upper = meets(seen, item.n * kKeys + kKeys / 2, kKeys / 2);
      hp::barrier_wait(&barriers.slopes_full[slopes.slot], slopes.parity);
      const uint64_t right =
          hp::transposed_descriptor(hp::shared_address(memory + kSlopesAt + slopes.slot * kSlopeBytes), kSlopeBytes);
      float sum[32];
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        sum[i] = 0;
      }
      if (lower) {
        hp::products_begin();
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          hp::wgmma_m64n64k16<1>(sum, keys[k], right + 128 * k, true);
        }
      }
      if (upper) {
        hp::products_begin();
#pragma unroll
        for (int k = 4; k < 8; ++k) {
          hp::wgmma_m64n64k16<1>(sum, keys[k], right + 128 * k, true);
        }
      }
      hp::products_commit();
      hp::products_wait<0>();
      hp::hold(sum);
      arrive_warp(&barriers.slopes_empty[slopes.slot]);
      slopes.advance();
      uint8_t* const tile = memory + kSumsAt + sums.slot * kSumBytes;
      hp::barrier_wait(&barriers.sums_empty[sums.slot], sums.parity ^ 1);
      if (!part.last) {
        float4* const to = reinterpret_cast<float4*>(tile) + thread;
#pragma unroll
        for (int c = 0; c < 8; ++c) {
          to[c * 128] = make_float4(sum[4 * c], sum[4 * c + 1], sum[4 * c + 2], sum[4 * c + 3]);
        }
        hp::fence_shared();
        arrive_warp(&barriers.sums_full[sums.slot]);
        sums.advance();
        return;
      }
      if (part.before > 0) {
        if (thread % 32 == 0) {
          wait_for_parts(problem.parts + item.head * problem.query_tiles + m, part.before);
        }
        __syncwarp();
        const float4* const from = reinterpret_cast<const float4*>(sums_at(problem, item, m)) + thread;
#pragma unroll
        for (int c = 0; c < 8; ++c) {
          const float4 before = __ldcg(from + c * 128);
          sum[4 * c] += before.x;
          sum[4 * c + 1] += before.y;
          sum[4 * c + 2] += before.z;
          sum[4 * c + 3] += before.w;
        }
      }
      store_rows<true, 1>(problem.dq, item.b, item.h, static_cast<int64_t>(m) * kQueries, problem.scale, sum, tile);
    });
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace
}  // namespace blockstate::kernels::cuda
