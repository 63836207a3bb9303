// SPDX-License-Identifier: Apache-2.0
// What the backward pass of range attention must know of its ranges before it starts: which keys a tile of queries
// sees, and which tiles of queries see a tile of keys. The first is a reduction; the second follows from it by a search
// once tiles without a visible key are skipped: a running maximum of the ends and a running minimum of the begins (from
// the right) are monotone whatever the ranges are.
#pragma once

#include <climits>

#include "core/base/check.h"
#include "core/base/view.h"
#include "kernels/cuda_support.cuh"

namespace blockstate::kernels::cuda {

/// Keys that a tile of queries sees, empty ranges left out. No key at all: low = INT_MAX, high = 0.
struct alignas(16) QueryTileKeys {
  int low;  // [low, high): seen by some query
  int high;
  int all_begin;  // [all_begin, all_end): seen by every query that sees anything
  int all_end;
};

/// Whether a tile of queries and the keys [first, first + count) have anything to do with each other.
__device__ inline bool meets(const QueryTileKeys& tile, int first, int count) {
  return tile.low < first + count && tile.high > first;
}

struct alignas(8) IntRange {
  int begin;
  int end;
};

namespace attention_tiles {

constexpr int kSearchThreads = 1024;

__device__ inline int warp_min_int(int value) { return __reduce_min_sync(0xffffffffu, value); }
__device__ inline int warp_max_int(int value) { return __reduce_max_sync(0xffffffffu, value); }

/// A warp for each tile of kTile queries. `ranges` (B, tiles * kTile) gets every query's range, [0, 0) for empty ones
/// and past the end.
template <int kTile>
__global__ void summarize(View<const int64_t, 2> begin, View<const int64_t, 2> end, int tiles, QueryTileKeys* summary,
                          IntRange* ranges, int* most_visitors) {
  const int warps = static_cast<int>(blockDim.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t task = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / 32;
  if (task >= begin.size[0] * tiles) {
    return;
  }
  if (task == 0 && lane == 0) {
    *most_visitors = 0;
  }
  const int64_t b = task / tiles, first = task % tiles * kTile;
  QueryTileKeys keys{INT_MAX, 0, 0, INT_MAX};
  for (int i = lane; i < kTile; i += 32) {
    IntRange range{0, 0};
    if (first + i < begin.size[1]) {
      range = {static_cast<int>(begin(b, first + i)), static_cast<int>(end(b, first + i))};
    }
    if (range.begin < range.end) {
      keys.low = min(keys.low, range.begin);
      keys.high = max(keys.high, range.end);
      keys.all_begin = max(keys.all_begin, range.begin);
      keys.all_end = min(keys.all_end, range.end);
    } else {
      range = {0, 0};
    }
    ranges[task * kTile + i] = range;
  }
  keys = {warp_min_int(keys.low), warp_max_int(keys.high), warp_max_int(keys.all_begin), warp_min_int(keys.all_end)};
  if (lane == 0) {
    summary[task] = keys;
  }
}

/// Running maximum (kReverse: minimum from the right) over `count` values of one row, in place; a block.
template <bool kReverse>
__device__ inline void running(int* values, int count, int* shared) {
  const int thread = static_cast<int>(threadIdx.x);
  const auto pick = [](int a, int b) { return kReverse ? min(a, b) : max(a, b); };
  int carry = kReverse ? INT_MAX : 0;
  for (int start = 0; start < count; start += kSearchThreads) {
    const int at = kReverse ? count - 1 - start - thread : start + thread;
    const bool inside = start + thread < count;
    shared[thread] = inside ? values[at] : carry;
    __syncthreads();
    for (int step = 1; step < kSearchThreads; step *= 2) {
      const int other = thread >= step ? shared[thread - step] : shared[thread];
      __syncthreads();
      shared[thread] = pick(shared[thread], other);
      __syncthreads();
    }
    if (inside) {
      values[at] = pick(carry, shared[thread]);
    }
    carry = pick(carry, shared[kSearchThreads - 1]);
    __syncthreads();
  }
}

/// A block for each row: the tiles of queries [begin, end) between which all those lie that meet a tile of keys.
template <int kKeyTile>
__global__ void search(const QueryTileKeys* summary, int tiles, int key_tiles, int* highs, int* lows,
                       IntRange* visitors, int* most_visitors) {
  __shared__ int shared[kSearchThreads];
  const int64_t b = blockIdx.x;
  summary += b * tiles;
  highs += b * tiles;
  lows += b * tiles;
  visitors += b * key_tiles;
  for (int m = static_cast<int>(threadIdx.x); m < tiles; m += kSearchThreads) {
    highs[m] = summary[m].high;
    lows[m] = summary[m].low;
  }
  __syncthreads();
  running<false>(highs, tiles, shared);
  running<true>(lows, tiles, shared);
  __syncthreads();
  int most = 0;
  for (int n = static_cast<int>(threadIdx.x); n < key_tiles; n += kSearchThreads) {
    const int64_t first = static_cast<int64_t>(n) * kKeyTile;
    int low = 0, high = tiles;  // the first tile that reaches beyond the first key
    while (low < high) {
      const int middle = (low + high) / 2;
      if (highs[middle] > first) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    const int begin = low;
    high = tiles;  // the first tile after which none begins before the last key
    while (low < high) {
      const int middle = (low + high) / 2;
      if (lows[middle] < first + kKeyTile) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    visitors[n] = {begin, low};
    most = max(most, low - begin);
  }
  most = warp_max_int(most);
  if (threadIdx.x % 32 == 0) {
    atomicMax(most_visitors, most);
  }
}

}  // namespace attention_tiles

/// Holds the two tables for as long as kernels of this stream are being launched that read them.
template <int kQueryTile, int kKeyTile>
class AttentionTiles {
 public:
  AttentionTiles(const Exec& exec, View<const int64_t, 2> begin, View<const int64_t, 2> end, int64_t keys)
      : rows_(begin.size[0]),
        query_tiles_(tiles_of(begin.size[1], kQueryTile)),
        key_tiles_(tiles_of(keys, kKeyTile)),
        summary_(exec, rows_ * query_tiles_),
        ranges_(exec, rows_ * query_tiles_ * kQueryTile),
        visitors_(exec, rows_ * key_tiles_),
        most_visitors_(exec, 1) {
    if (rows_ == 0 || key_tiles_ + query_tiles_ == 0) {
      return;
    }
    const Scratch<int> sorted(exec, 2 * rows_ * query_tiles_);
    if (query_tiles_ > 0) {
      const unsigned blocks = static_cast<unsigned>(ceil_div<int64_t>(rows_ * query_tiles_, 8));
      attention_tiles::summarize<kQueryTile><<<blocks, 256, 0, stream_of(exec)>>>(
          begin, end, query_tiles_, summary_.get(), ranges_.get(), most_visitors_.get());
      check_launch(exec, "attention");
    }
    attention_tiles::search<kKeyTile>
        <<<static_cast<unsigned>(rows_), attention_tiles::kSearchThreads, 0, stream_of(exec)>>>(
            summary_.get(), query_tiles_, key_tiles_, sorted.get(), sorted.get() + rows_ * query_tiles_,
            visitors_.get(), most_visitors_.get());
    check_launch(exec, "attention");
  }

  int query_tiles() const { return query_tiles_; }
  int key_tiles() const { return key_tiles_; }
  const QueryTileKeys* summary() const { return summary_.get(); }    // (B, query tiles)
  const IntRange* ranges() const { return ranges_.get(); }           // (B, query tiles * tile)
  const IntRange* visitors() const { return visitors_.get(); }       // (B, key tiles): tiles of queries
  const int* most_visitors() const { return most_visitors_.get(); }  // where there are queries: of any tile of keys

 private:
  static int tiles_of(int64_t steps, int tile) {
    require(steps <= INT_MAX - 4096, "attention: rows of ", steps, " steps are longer than the CUDA kernels can index");
    return static_cast<int>(ceil_div<int64_t>(steps, tile));
  }

  int64_t rows_;
  int query_tiles_;
  int key_tiles_;
  Scratch<QueryTileKeys> summary_;
  Scratch<IntRange> ranges_;
  Scratch<IntRange> visitors_;
  Scratch<int> most_visitors_;
};

}  // namespace blockstate::kernels::cuda
