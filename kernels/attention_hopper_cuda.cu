// SPDX-License-Identifier: Apache-2.0
// Persistent blocks of one warp that loads and several warpgroups of 64 queries each that compute (the division of
// labour of FlashAttention-3, Shah et al. 2024). A block takes 64 * kGroups queries of one head at a time; their keys
// come in stages of 128, counted from the first key that any of them sees, and every warpgroup computes only the halves
// of stages that its own 64 queries see. Masks are applied where a stage is not seen by all 64. The products of one
// stage run while the softmax of the next is computed: in the same warpgroup (the weights of stage t times V with Q
// times K of stage t + 1) and in the others.
#include <algorithm>

#include "kernels/attention.cuh"
#include "kernels/attention_hopper.h"
#include "kernels/hopper.cuh"

namespace blockstate::kernels::cuda {
namespace {

using namespace hopper;

constexpr int kKeys = 128;              // keys in a stage
constexpr int kHalf = 64 * 128;         // bytes of 64 rows of a panel
constexpr int kPanelBytes = 2 * kHalf;  // of a stage
constexpr int kSlots = 2;               // tiles of queries under way: one computed, the next one loaded

/// What the loading warp tells the others of a tile of queries.
template <int kGroups>
struct Tile {
  int b;  // -1: there are no more
  int h;
  int first;
  int low;  // keys [low, high), of all warpgroups
  int high;
  KeyRange range[kGroups];
  int2 seen[kGroups * 64];  // begin, end of each query
};

template <int kGroups, int kStages>
struct Barriers {
  uint64_t q_full[kSlots], q_empty[kSlots];
  uint64_t k_full[kStages], k_empty[kStages], v_full[kStages], v_empty[kStages];
};

/// Order of the tiles: heads whose keys and values fit the second-level cache together, and of those the last queries,
/// which tend to see most, first.
struct Schedule {
  int tiles;    // of one head
  int heads;    // B * H
  int section;  // heads worked on together
  int total;
  int* next;  // counts tiles given out beyond the first of each block
};

struct Ring {
  int stage = 0;
  int parity = 0;
  template <int kStages>
  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

template <int kPanels, int kGroups, int kStages>
__device__ void load_tiles(const AttentionForward<BFloat16, float>& args, const Schedule& schedule,
                           const CUtensorMap* q_map, const CUtensorMap* k_map, const CUtensorMap* v_map,
                           Barriers<kGroups, kStages>& bar, Tile<kGroups>* tiles, char* q, char* k, char* v) {
  const int lane = static_cast<int>(threadIdx.x) % 32, H = static_cast<int>(args.q.size[2]);
  Ring slot, ring;
  int index = static_cast<int>(blockIdx.x);
  for (;;) {
    barrier_wait(&bar.q_empty[slot.stage], slot.parity ^ 1);
    Tile<kGroups>& tile = tiles[slot.stage];
    if (index >= schedule.total) {
      if (lane == 0) {
        tile.b = -1;
        barrier_arrive(&bar.q_full[slot.stage]);
      }
      return;
    }
    int upcoming = 0;
    if (lane == 0) {
      upcoming = static_cast<int>(gridDim.x) + atomicAdd(schedule.next, 1);
    }
    const int section = index / (schedule.section * schedule.tiles), rest = index % (schedule.section * schedule.tiles);
    const int heads = min(schedule.section, schedule.heads - section * schedule.section);
    const int head = section * schedule.section + rest % heads;
    const int b = head / H, h = head % H, first = (schedule.tiles - 1 - rest / heads) * 64 * kGroups;
    int low = INT_MAX, high = 0;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const KeyRange range =
          warp_key_range(args.begin, args.end, b, first + 64 * g, 64,
                         [&](int i, int begin, int end) { tile.seen[64 * g + i] = make_int2(begin, end); });
      if (range.high > 0) {
        low = min(low, range.low);
        high = max(high, range.high);
      }
      if (lane == 0) {
        tile.range[g] = range;
      }
    }
    low = high == 0 ? 0 : low;
    __syncwarp();
    if (lane == 0) {
      tile.b = b;
      tile.h = h;
      tile.first = first;
      tile.low = low;
      tile.high = high;
      barrier_arrive_expect(&bar.q_full[slot.stage], kGroups * kPanels * kHalf);
      for (int g = 0; g < kGroups; ++g) {
        for (int p = 0; p < kPanels; ++p) {
          copy_tile(q + ((slot.stage * kGroups + g) * kPanels + p) * kHalf, q_map, 64 * p, h, first + 64 * g, b,
                    &bar.q_full[slot.stage]);
        }
      }
      for (int j = low; j < high; j += kKeys) {
        barrier_wait(&bar.k_empty[ring.stage], ring.parity ^ 1);
        barrier_arrive_expect(&bar.k_full[ring.stage], kPanels * kPanelBytes);
        for (int p = 0; p < kPanels; ++p) {
          copy_tile(k + (ring.stage * kPanels + p) * kPanelBytes, k_map, 64 * p, h, j, b, &bar.k_full[ring.stage]);
        }
        barrier_wait(&bar.v_empty[ring.stage], ring.parity ^ 1);
        barrier_arrive_expect(&bar.v_full[ring.stage], kPanels * kPanelBytes);
        for (int p = 0; p < kPanels; ++p) {
          copy_tile(v + (ring.stage * kPanels + p) * kPanelBytes, v_map, 64 * p, h, j, b, &bar.v_full[ring.stage]);
        }
        ring.advance<kStages>();
      }
    }
    slot.advance<kSlots>();
    index = __shfl_sync(0xffffffffu, upcoming, 0);
  }
}

/// The same in all lanes, and known to be so: branches on it do not part a warp.
__device__ inline int uniform(int x) { return __shfl_sync(0xffffffffu, x, 0); }

/// s (64 queries, 64 * kHalves keys) = q k^T. Starts it; the caller waits.
template <int kPanels, int kHalves>
__device__ void start_scores(uint64_t q, uint64_t k, float (&s)[32 * kHalves]) {
  products_begin();
#pragma unroll
  for (int p = 0; p < kPanels; ++p) {
    const uint64_t a = step(q, p * kHalf / 16), b = step(k, p * kPanelBytes / 16);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (kHalves == 2) {
        wgmma_m64n128k16<0, 0>(s, step(a, 2 * i), step(b, 2 * i), p + i > 0);
      } else {
        wgmma_m64n64k16<0, 0>(s, step(a, 2 * i), step(b, 2 * i), p + i > 0);
      }
    }
  }
  products_commit();
}

/// y += weights (64, 64 * kHalves) times v. Starts it; the caller waits.
template <int kPanels, int kHalves>
__device__ void start_values(const uint32_t (&weights)[4 * kHalves][4], uint64_t v, float (&y)[32 * kPanels]) {
  products_begin();
#pragma unroll
  for (int i = 0; i < 4 * kHalves; ++i) {
    if constexpr (kPanels == 2) {
      wgmma_m64n128k16<1>(y, weights[i], step(v, 128 * i), true);
    } else {
      wgmma_m64n64k16<1>(y, weights[i], step(v, 128 * i), true);
    }
  }
  products_commit();
}

template <int kHalves>
__device__ void pack_weights(const float (&s)[32 * kHalves], uint32_t (&weights)[4 * kHalves][4]) {
#pragma unroll
  for (int i = 0; i < 4 * kHalves; ++i) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      weights[i][e] = pack_bfloat16(s[8 * i + 2 * e], s[8 * i + 2 * e + 1]);
    }
  }
}

template <int N>
__device__ void shrink_rows(const float (&shrink)[2], float (&y)[N]) {
#pragma unroll
  for (int i = 0; i < N; i += 4) {
    y[i] *= shrink[0];
    y[i + 1] *= shrink[0];
    y[i + 2] *= shrink[1];
    y[i + 3] *= shrink[1];
  }
}

/// One thread's part of the softmax of a warpgroup: rows lane / 4 and lane / 4 + 8 of its warp's 16.
template <bool kBias>
struct Softmax {
  float factor;  // scale * log2 e; with a bias 1, for scores already hold it then
  float high[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};  // of this thread's columns

  /// Scores of keys [j0, j0 + 2 N) become weights relative to the new maximum; `shrink` is what earlier sums are
  /// multiplied by.
  /// `range` and `seen` (of this thread's first row) lie in shared memory: registers are short.
  template <int N>
  __device__ void apply(const KeyRange& range, const int2* seen, int j0, float (&s)[N], float (&shrink)[2]) {
    const int column = j0 + static_cast<int>(threadIdx.x) % 4 * 2;
    if (j0 < range.all_begin) {
      const int begin[2] = {seen[0].x - column, seen[8].x - column};
#pragma unroll
      for (int i = 0; i < N; ++i) {
        s[i] = 8 * (i / 4) + i % 2 < begin[i % 4 / 2] ? -INFINITY : s[i];
      }
    }
    if (j0 + 2 * N > range.all_end) {
      const int end[2] = {seen[0].y - column, seen[8].y - column};
#pragma unroll
      for (int i = 0; i < N; ++i) {
        s[i] = 8 * (i / 4) + i % 2 >= end[i % 4 / 2] ? -INFINITY : s[i];
      }
    }
    float base[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float highest = fmaxf(s[2 * r], s[2 * r + 1]);
#pragma unroll
      for (int i = 4; i < N; i += 4) {
        highest = fmaxf(highest, fmaxf(s[i + 2 * r], s[i + 2 * r + 1]));
      }
      highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
      highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2));
      highest = fmaxf(highest, high[r]);
      // A query that has seen no key yet has no maximum: any finite number keeps -inf - (-inf) away.
      base[r] = highest == -INFINITY ? 0.0f : highest * factor;
      shrink[r] = exp2_fast(high[r] * factor - base[r]);
      high[r] = highest;
      sum[r] *= shrink[r];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
      s[i] = exp2_fast(fmaf(s[i], factor, -base[i % 4 / 2]));
      sum[i % 4 / 2] += s[i];
    }
  }
};

template <int N>
__device__ void add_bias(const AttentionForward<BFloat16, float>& args, int h, int64_t nearest, float (&s)[N]) {
  const int64_t row = nearest + static_cast<int>(threadIdx.x) % 128 / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4 -
                      static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int64_t distance = row + i % 4 / 2 * 8 - (8 * (i / 4) + i % 2);
    const float bias = args.bias(h, min(max(distance, int64_t{0}), args.bias.size[1] - 1));
    s[i] = fmaf(s[i], args.scale * kLog2E, bias * kLog2E);
  }
}

/// Rows of v that no query of the tile sees may hold anything, and 0 times infinity is not 0: they become 0. Every
/// warpgroup writes the same zeros, before its own products.
template <int kPanels>
__device__ void clear_rows(char* v, int from, int to, int group) {
  for (int p = 0; p < kPanels; ++p) {
    for (int x = from * 8 + static_cast<int>(threadIdx.x) % 128; x < to * 8; x += 128) {
      *reinterpret_cast<uint4*>(v + p * kPanelBytes + x * 16) = make_uint4(0, 0, 0, 0);
    }
  }
  fence_shared();
  named_barrier_sync(1 + group, 128);
}

/// y of this warpgroup's queries, and their log_sum_exp.
template <int kPanels, bool kBias>
__device__ void store_queries(const AttentionForward<BFloat16, float>& args, int b, int h, int first,
                              const bool (&nothing)[2], const Softmax<kBias>& softmax, const float (&y)[32 * kPanels]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, c = lane % 4;
  const int row = first + static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane / 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float total = softmax.sum[r];
    total += __shfl_xor_sync(0xffffffffu, total, 1);
    total += __shfl_xor_sync(0xffffffffu, total, 2);
    const float inverse = 1 / total;
    const int64_t query = row + 8 * r;
    const bool inside = query < args.q.size[1];
    BFloat16* const to = args.y.data + b * args.y.stride[0] + query * args.y.stride[1] + h * args.y.stride[2];
#pragma unroll
    for (int q = 0; q < kPanels; ++q) {
#pragma unroll
      for (int x = 0; x < 2; ++x) {
        // The four lanes of a row hold two columns of each of four groups of 8; each is to store one group.
        uint32_t w[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int i = 32 * q + 16 * x + 4 * e + 2 * r;
          w[e] = nothing[r] ? 0 : pack_bfloat16(y[i] * inverse, y[i + 1] * inverse);
        }
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
          const uint32_t other = __shfl_xor_sync(0xffffffffu, c & 1 ? w[e] : w[e + 1], 1);
          w[e] = c & 1 ? other : w[e];
          w[e + 1] = c & 1 ? w[e + 1] : other;
        }
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const uint32_t other = __shfl_xor_sync(0xffffffffu, c & 2 ? w[e] : w[e + 2], 2);
          w[e] = c & 2 ? other : w[e];
          w[e + 2] = c & 2 ? w[e + 2] : other;
        }
        const int column = 64 * q + 32 * x + 8 * c;
        if (inside && column < args.q.size[3]) {
          *reinterpret_cast<uint4*>(to + column) = make_uint4(w[0], w[1], w[2], w[3]);
        }
      }
    }
    if (inside && c == 0 && args.log_sum_exp) {
      args.log_sum_exp(b, h, query) = nothing[r] ? -INFINITY : (softmax.high[r] * softmax.factor + log2f(total)) * kLn2;
    }
  }
}

template <int kPanels, int kGroups, int kStages, bool kBias>
__device__ void compute_tiles(const AttentionForward<BFloat16, float>& args, Barriers<kGroups, kStages>& bar,
                              const Tile<kGroups>* tiles, char* q, char* k, char* v) {
  const int group = uniform(static_cast<int>(threadIdx.x) / 128 - 1), lane = static_cast<int>(threadIdx.x) % 32;
  const int row = static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane / 4;
  const bool leader = lane == 0;  // of a warp: empty stages are counted by warps
  const uint64_t q_descriptor = descriptor(shared_address(q)), k_descriptor = descriptor(shared_address(k));
  const uint64_t v_descriptor = transposed_descriptor(shared_address(v), kPanelBytes);
  Ring slot, ring;
  for (;;) {
    barrier_wait(&bar.q_full[slot.stage], slot.parity);
    const Tile<kGroups>& tile = tiles[slot.stage];
    const int b = uniform(tile.b), h = uniform(tile.h), first = uniform(tile.first) + 64 * group;
    const int low = uniform(tile.low), high = uniform(tile.high);
    if (b < 0) {
      return;
    }
    const KeyRange& range = tile.range[group];
    const int2* const seen = tile.seen + 64 * group + row;
    const int own_low = uniform(range.low), own_high = uniform(range.high);
    const uint64_t q_at = step(q_descriptor, (slot.stage * kGroups + group) * (kPanels * kHalf / 16));
    Softmax<kBias> softmax;
    softmax.factor = kBias ? 1.0f : args.scale * kLog2E;
    float y[32 * kPanels];
#pragma unroll
    for (int i = 0; i < 32 * kPanels; ++i) {
      y[i] = 0;
    }
    const int stages = (high - low + kKeys - 1) / kKeys;
    const int half_begin = own_high == 0 ? 2 * stages : (own_low - low) / 64;
    const int half_end = own_high == 0 ? 2 * stages : (own_high - low + 63) / 64;
    const int64_t nearest = first + args.offset;

    const auto k_at = [&](int half) {
      return step(k_descriptor, ring.stage * (kPanels * kPanelBytes / 16) + half * (kHalf / 16));
    };
    const auto v_at = [&](const Ring& at, int half) {
      return step(v_descriptor, at.stage * (kPanels * kPanelBytes / 16) + half * (kHalf / 16));
    };
    const auto clear = [&](const Ring& at, int j0, int from, int to) {
      if (j0 + to > high) {
        clear_rows<kPanels>(v + at.stage * kPanels * kPanelBytes, max(from, high - j0), to, group);
      }
    };
    const auto skip = [&] {
      barrier_wait(&bar.k_full[ring.stage], ring.parity);
      barrier_wait(&bar.v_full[ring.stage], ring.parity);
      if (leader) {
        barrier_arrive(&bar.k_empty[ring.stage]);
        barrier_arrive(&bar.v_empty[ring.stage]);
      }
      ring.advance<kStages>();
    };
    const auto one_half = [&](int t, int half) {
      const int j0 = low + t * kKeys + half * 64;
      float s[32], shrink[2];
      uint32_t weights[4][4];
      barrier_wait(&bar.k_full[ring.stage], ring.parity);
      start_scores<kPanels, 1>(q_at, k_at(half), s);
      products_wait<0>();
      if (leader) {
        barrier_arrive(&bar.k_empty[ring.stage]);
      }
      if constexpr (kBias) {
        add_bias(args, h, nearest - j0, s);
      }
      softmax.apply(range, seen, j0, s, shrink);
      shrink_rows(shrink, y);
      pack_weights<1>(s, weights);
      barrier_wait(&bar.v_full[ring.stage], ring.parity);
      clear(ring, j0 - half * 64, half * 64, half * 64 + 64);
      start_values<kPanels, 1>(weights, v_at(ring, half), y);
      products_wait<0>();
      if (leader) {
        barrier_arrive(&bar.v_empty[ring.stage]);
      }
      ring.advance<kStages>();
    };

    int t = 0;
    for (; t < half_begin / 2; ++t) {
      skip();
    }
    if (half_begin % 2 != 0 && half_begin < half_end) {
      one_half(t, 1);
      ++t;
    }
    if (t < half_end / 2) {
      float s[64], shrink[2];
      uint32_t weights[8][4];
      int j0 = low + t * kKeys;
      barrier_wait(&bar.k_full[ring.stage], ring.parity);
      start_scores<kPanels, 2>(q_at, k_at(0), s);
      products_wait<0>();
      if (leader) {
        barrier_arrive(&bar.k_empty[ring.stage]);
      }
      if constexpr (kBias) {
        add_bias(args, h, nearest - j0, s);
      }
      softmax.apply(range, seen, j0, s, shrink);
      shrink_rows(shrink, y);
      pack_weights<2>(s, weights);
      for (++t; t < half_end / 2; ++t) {
        const Ring before = ring;
        ring.advance<kStages>();
        j0 += kKeys;
        barrier_wait(&bar.k_full[ring.stage], ring.parity);
        start_scores<kPanels, 2>(q_at, k_at(0), s);
        barrier_wait(&bar.v_full[before.stage], before.parity);
        start_values<kPanels, 2>(weights, v_at(before, 0), y);
        products_wait<1>();
        if (leader) {
          barrier_arrive(&bar.k_empty[ring.stage]);
        }
        if constexpr (kBias) {
          add_bias(args, h, nearest - j0, s);
        }
        softmax.apply(range, seen, j0, s, shrink);
        hold(s);
        products_wait<0>();
        if (leader) {
          barrier_arrive(&bar.v_empty[before.stage]);
        }
        shrink_rows(shrink, y);
        pack_weights<2>(s, weights);
      }
      barrier_wait(&bar.v_full[ring.stage], ring.parity);
      clear(ring, j0, 0, kKeys);
      start_values<kPanels, 2>(weights, v_at(ring, 0), y);
      products_wait<0>();
      if (leader) {
        barrier_arrive(&bar.v_empty[ring.stage]);
      }
      ring.advance<kStages>();
    }
    if (half_end % 2 != 0 && half_begin < half_end && t <= half_end / 2) {
      one_half(t, 0);
      ++t;
    }
    for (; t < stages; ++t) {
      skip();
    }
    const bool nothing[2] = {seen[0].x >= seen[0].y, seen[8].x >= seen[8].y};
    __syncwarp();
    if (leader) {
      barrier_arrive(&bar.q_empty[slot.stage]);
    }
    slot.advance<kSlots>();
    store_queries<kPanels, kBias>(args, b, h, first, nothing, softmax, y);
  }
}

template <int kPanels, int kGroups, int kStages>
constexpr int hopper_bytes() {
  return kSlots * kGroups * kPanels * kHalf + 2 * kStages * kPanels * kPanelBytes + 1024;
}

template <int kPanels, int kGroups, int kStages, bool kBias>
__global__ __launch_bounds__(128 * (kGroups + 1),
                             1) void attention_hopper_kernel(AttentionForward<BFloat16, float> args, Schedule schedule,
                                                             const __grid_constant__ CUtensorMap q_map,
                                                             const __grid_constant__ CUtensorMap k_map,
                                                             const __grid_constant__ CUtensorMap v_map) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ Barriers<kGroups, kStages> bar;
  __shared__ Tile<kGroups> tiles[kSlots];
  extern __shared__ char memory[];
  uint32_t start = (1024 - shared_address(memory) % 1024) % 1024;
  asm volatile("" : "+r"(start));  // computed once, not at every use
  char* const q = memory + start;
  char* const k = q + kSlots * kGroups * kPanels * kHalf;
  char* const v = k + kStages * kPanels * kPanelBytes;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kSlots; ++i) {
      barrier_init(&bar.q_full[i], 1);
      barrier_init(&bar.q_empty[i], 4 * kGroups);
    }
    for (int i = 0; i < kStages; ++i) {
      barrier_init(&bar.k_full[i], 1);
      barrier_init(&bar.v_full[i], 1);
      barrier_init(&bar.k_empty[i], 4 * kGroups);
      barrier_init(&bar.v_empty[i], 4 * kGroups);
    }
    barrier_init_fence();
    prefetch_map(&q_map);
    prefetch_map(&k_map);
    prefetch_map(&v_map);
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    fewer_registers<kGroups == 3 ? 32 : 24>();
    if (threadIdx.x < 32) {
      load_tiles<kPanels, kGroups, kStages>(args, schedule, &q_map, &k_map, &v_map, bar, tiles, q, k, v);
    }
  } else {
    more_registers<kGroups == 3 ? 160 : 240>();
    compute_tiles<kPanels, kGroups, kStages, kBias>(args, bar, tiles, q, k, v);
  }
#endif
}

template <int kPanels, int kGroups, int kStages, bool kBias>
bool launch(const Exec& exec, const AttentionForward<BFloat16, float>& args) {
  const auto kernel = attention_hopper_kernel<kPanels, kGroups, kStages, kBias>;
  constexpr int kBytes = hopper_bytes<kPanels, kGroups, kStages>();
  // Code made without wgmma has an empty body, and so no shared memory.
  static const bool usable = [&] {
    cudaFuncAttributes attributes{};
    const bool found = cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess && attributes.sharedSizeBytes > 0 &&
                       cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes) == cudaSuccess;
    cudaGetLastError();
    return found;
  }();
  CUtensorMap q_map, k_map, v_map;
  if (!usable || !tile_map(args.q, 64, &q_map) || !tile_map(args.k, kKeys, &k_map) ||
      !tile_map(args.v, kKeys, &v_map)) {
    return false;
  }
  const int64_t tiles = ceil_div(args.q.size[1], int64_t{64 * kGroups}), heads = args.q.size[0] * args.q.size[2];
  if (tiles * heads >= INT_MAX / 2) {
    return false;
  }
  constexpr int64_t kCached = int64_t{24} << 20;
  const int64_t head_bytes = 4 * args.k.size[1] * args.k.size[3];
  Scratch<int> next(exec, 1);
  check_cuda(cudaMemsetAsync(next.get(), 0, sizeof(int), stream_of(exec)), "attention");
  const Schedule schedule{static_cast<int>(tiles), static_cast<int>(heads),
                          static_cast<int>(std::min(heads, std::max<int64_t>(1, kCached / head_bytes))),
                          static_cast<int>(tiles * heads), next.get()};
  const int blocks = std::min(multiprocessors(exec), schedule.total);
  kernel<<<blocks, 128 * (kGroups + 1), kBytes, stream_of(exec)>>>(args, schedule, q_map, k_map, v_map);
  check_launch(exec, "attention");
  return true;
}

}  // namespace

bool attention_forward_hopper(const Exec& exec, const AttentionForward<BFloat16, float>& args) {
  int major = 0;
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, exec.device), "device attributes");
  const int64_t P = args.q.size[3];
  bool suits = major == 9 && P >= 8 && P <= 128 && P % 8 == 0 && args.scale > 0 && args.k.size[1] > 0 &&
               args.q.size[1] < INT_MAX / 2 && reinterpret_cast<uintptr_t>(args.y.data) % 16 == 0;
  for (int i = 0; i < 3; ++i) {
    suits = suits && (args.y.size[i] <= 1 || args.y.stride[i] % 8 == 0);
  }
  if (!suits) {
    return false;
  }
  if (P <= 64) {
    return args.bias ? launch<1, 3, 5, true>(exec, args) : launch<1, 3, 5, false>(exec, args);
  }
  return args.bias ? launch<2, 2, 2, true>(exec, args) : launch<2, 2, 2, false>(exec, args);
}

}  // namespace blockstate::kernels::cuda
