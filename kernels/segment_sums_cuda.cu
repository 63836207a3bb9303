// SPDX-License-Identifier: Apache-2.0
// Few sums: each group of threads keeps a table of all of them in shared memory, adds its rows one after another, and
// the tables are added in order. Many sums: the rows are sorted by key, keeping their order; a group of threads walks a
// piece of the sorted rows with one sum in registers. A run of equal keys that ends where it began, inside a piece, is
// added to its row at once: nobody else does. The parts of longer runs are put aside and added in order by a last
// kernel.
#include <algorithm>
#include <cub/device/device_radix_sort.cuh>

#include "kernels/piece_sums.cuh"
#include "kernels/row_map.cuh"
#include "kernels/segment_sums.h"

namespace blockstate::kernels::cuda {
namespace {

struct Place {
  int64_t b;
  int64_t t;
};

// Rows are numbered b * L + t. kFlat: B is 1, and nothing has to be divided.
template <bool kFlat, class T>
__device__ inline Place place_of(const SegmentRows<T>& rows, int64_t row) {
  if (kFlat) {
    return {0, row};
  }
  const int64_t b = row / rows.x.size[1];
  return {b, row - b * rows.x.size[1]};
}

template <class T>
__device__ inline const T* address(const SegmentRows<T>& rows, Place place, int64_t column) {
  return rows.x.data + place.b * rows.x.stride[0] + place.t * rows.x.stride[1] + column;
}

// All rows as those of one sequence, where each view's rows follow each other at one stride.
template <class T>
SegmentRows<T> flattened(SegmentRows<T> rows) {
  const int64_t B = rows.x.size[0], L = rows.x.size[1];
  const bool possible = rows.x.stride[0] == L * rows.x.stride[1] && rows.key.stride[0] == L * rows.key.stride[1] &&
                        (!rows.weight || rows.weight.stride[0] == L * rows.weight.stride[1]);
  if (possible) {
    rows.x.size[0] = rows.key.size[0] = rows.weight.size[0] = 1;
    rows.x.size[1] = rows.key.size[1] = rows.weight.size[1] = B * L;
  }
  return rows;
}

constexpr int kThreads = 256;
constexpr int kRowsAtOnce = 8;

/// How columns are shared out: `lanes` neighbouring threads take a pack each, and there are `tiles` such groups a row.
struct Columns {
  int lanes = 32;
  int64_t tiles = 1;
  Columns(int64_t columns, int pack) {
    while (lanes > 1 && lanes / 2 * pack >= columns) {
      lanes /= 2;
    }
    tiles = ceil_div<int64_t>(columns, int64_t{lanes} * pack);
  }
};

// --- few sums
// ---------------------------------------------------------------------------------------------------------

/// Bytes of the tables of one block.
inline int64_t table_bytes(int64_t sums, int pack) { return sums * kThreads * pack * 4; }

// A thread's place in its group's table, in vectors of four floats (or one) side by side for neighbouring threads.
template <int kPack>
__device__ inline void add_to_table(float* table, int lanes, int lane, int key, const float (&value)[kPack]) {
  constexpr int kVector = kPack < 4 ? kPack : 4;
#pragma unroll
  for (int part = 0; part < kPack / kVector; ++part) {
    float* at = table + ((key * (kPack / kVector) + part) * lanes + lane) * kVector;
    float sum[kVector];
    load_pack<kVector>(at, sum);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      sum[i] += value[part * kVector + i];
    }
    store_pack<kVector>(at, sum);
  }
}

template <int kPack, bool kFlat, class T>
__global__ void __launch_bounds__(kThreads)
    table_kernel(float* partial, const SegmentRows<T> rows, int64_t sums, int64_t piece, int lanes) {
  extern __shared__ float4 tables[];
  const int lane = threadIdx.x % lanes, group = threadIdx.x / lanes, groups = kThreads / lanes;
  float* all = reinterpret_cast<float*>(tables);
  const int area = static_cast<int>(sums) * lanes * kPack;  // of one group's table
  float* table = all + group * area;
  for (int i = threadIdx.x; i < groups * area; i += kThreads) {
    all[i] = 0;
  }
  __syncthreads();
  const int64_t count = rows.x.size[0] * rows.x.size[1], columns = rows.x.size[2];
  const int64_t tile = static_cast<int64_t>(blockIdx.y) * lanes * kPack, column = tile + lane * kPack;
  const int64_t begin = blockIdx.x * piece, end = begin + piece < count ? begin + piece : count;
  if (column < columns) {
    int current = -1;
    float sum[kPack];
    for (int64_t row = begin + group; row < end; row += kRowsAtOnce * groups) {
      int key[kRowsAtOnce];
      float weight[kRowsAtOnce], value[kRowsAtOnce][kPack];
#pragma unroll
      for (int k = 0; k < kRowsAtOnce; ++k) {
        const int64_t at = row + k * groups;
        const auto place = place_of<kFlat>(rows, at < end ? at : row);
        const int64_t found = rows.key(place.b, place.t);
        key[k] = at < end && found >= 0 && found < sums ? static_cast<int>(found) : -1;
        weight[k] = rows.weight ? rows.weight(place.b, place.t) : 1.0f;
        load_pack<kPack>(address(rows, place, column), value[k]);
      }
#pragma unroll
      for (int k = 0; k < kRowsAtOnce; ++k) {
        if (key[k] < 0) {
          continue;
        }
        const bool other = key[k] != current;
        if (other && current >= 0) {
          add_to_table(table, lanes, lane, current, sum);
        }
        current = key[k];
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          sum[i] = fmaf(weight[k], value[k][i], other ? 0.0f : sum[i]);
        }
      }
    }
    if (current >= 0) {
      add_to_table(table, lanes, lane, current, sum);
    }
  }
  __syncthreads();
  // The groups in order.
  constexpr int kVector = kPack < 4 ? kPack : 4;
  for (int i = threadIdx.x; i < area; i += kThreads) {
    float total = 0;
    for (int g = 0; g < groups; ++g) {
      total += all[g * area + i];
    }
    const int vector = i / kVector, of_lane = vector % lanes, part = vector / lanes % (kPack / kVector);
    const int key = vector / lanes / (kPack / kVector);
    const int64_t at = tile + of_lane * kPack + part * kVector + i % kVector;
    if (at < columns) {
      partial[(blockIdx.x * sums + key) * columns + at] = total;
    }
  }
}

/// What the tables may take: nearly all that a block of this GPU can have.
int64_t most_table_bytes(const Exec& exec) {
  int bytes = 0;
  check_cuda(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, exec.device), "device attributes");
  return bytes - 1024;
}

template <int kPack, bool kFlat, class T>
void sum_by_tables(const Exec& exec, const char* op, View<float, 2> sum, const SegmentRows<T>& rows) {
  const int64_t count = rows.x.size[0] * rows.x.size[1], columns = rows.x.size[2], sums = sum.size[0];
  const Columns shared_out(columns, kPack);
  require(shared_out.tiles <= 65535, op, ": ", columns, " columns are too many");
  const int64_t least = kThreads / shared_out.lanes * kRowsAtOnce;
  const int64_t piece = ceil_div(std::max(least, ceil_div(count * shared_out.tiles, kSumBlocks)), least) * least;
  const int64_t pieces = ceil_div(count, piece);
  const Scratch<float> partial(exec, pieces * sums * columns);
  const int64_t bytes = table_bytes(sums, kPack);
  const auto kernel = table_kernel<kPack, kFlat, T>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)), op);
  const dim3 grid(static_cast<unsigned>(pieces), static_cast<unsigned>(shared_out.tiles));
  kernel<<<grid, kThreads, static_cast<size_t>(bytes), stream_of(exec)>>>(partial.get(), rows, sums, piece,
                                                                          shared_out.lanes);
  check_launch(exec, op);
  add_pieces(exec, op, sum, partial.get(), pieces);
}

// --- many sums
// --------------------------------------------------------------------------------------------------------

template <bool kFlat, class T>
__global__ void __launch_bounds__(kThreads)
    keys_kernel(uint32_t* key, uint32_t* index, const SegmentRows<T> rows, int64_t first, int64_t count, int64_t sums) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) {
    const auto place = place_of<kFlat>(rows, first + i);
    const int64_t found = rows.key(place.b, place.t);
    key[i] = static_cast<uint32_t>(found >= 0 && found < sums ? found : sums);
    index[i] = static_cast<uint32_t>(i);
  }
}

struct Sorted {
  const uint32_t* key;    // ascending; `sums` for rows to skip
  const uint32_t* index;  // row - first
  int64_t first;
  int64_t count;
  int64_t piece;
};

// parts[0][p]: what piece p has of a run that began before it; parts[1][p]: of a run that begins in it and goes on.
template <int kPack, bool kFlat, class T>
__global__ void __launch_bounds__(kThreads) runs_kernel(View<float, 2> sum, float* parts, const SegmentRows<T> rows,
                                                        const Sorted sorted, int lanes, int64_t tiles, int64_t pieces) {
  const int64_t group = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / lanes;
  const int64_t p = group / tiles, columns = rows.x.size[2];
  const int64_t column = ((group - p * tiles) * lanes + threadIdx.x % lanes) * kPack;
  if (p >= pieces || column >= columns) {
    return;
  }
  const uint32_t sums = static_cast<uint32_t>(sum.size[0]);
  const int64_t begin = p * sorted.piece;
  const int64_t end = begin + sorted.piece < sorted.count ? begin + sorted.piece : sorted.count;
  uint32_t current = sorted.key[begin];
  bool began_before = begin > 0 && sorted.key[begin - 1] == current;
  float total[kPack] = {};
  const auto finish = [&](bool goes_on) {
    if (current >= sums) {
      return;
    }
    if (began_before || goes_on) {
      store_floats<kPack>(parts + ((began_before ? 0 : pieces) + p) * tiles * lanes * kPack + column, total);
      return;
    }
    float* to = sum.data + current * sum.stride[0] + column;
    float before[kPack];
    load_floats<kPack>(to, before);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      before[i] += total[i];
    }
    store_floats<kPack>(to, before);
  };
  for (int64_t at = begin; at < end && current < sums; at += kRowsAtOnce) {
    uint32_t key[kRowsAtOnce];
    float weight[kRowsAtOnce], value[kRowsAtOnce][kPack];
#pragma unroll
    for (int k = 0; k < kRowsAtOnce; ++k) {
      const int64_t i = at + k < end ? at + k : at;
      key[k] = at + k < end ? sorted.key[i] : UINT32_MAX;
      const auto place = place_of<kFlat>(rows, sorted.first + sorted.index[i]);
      weight[k] = rows.weight ? rows.weight(place.b, place.t) : 1.0f;
      load_pack<kPack>(address(rows, place, column), value[k]);
    }
#pragma unroll
    for (int k = 0; k < kRowsAtOnce; ++k) {
      if (key[k] == UINT32_MAX) {
        continue;
      }
      if (key[k] != current) {
        finish(false);
        current = key[k];
        began_before = false;
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          total[i] = 0;
        }
      }
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        total[i] = fmaf(weight[k], value[k][i], total[i]);
      }
    }
  }
  finish(end < sorted.count && sorted.key[end] == current);
}

constexpr int kJoinSlots = kThreads / 32;

// For each run that begins in piece blockIdx.x and ends in a later one: its parts, in order within each of some
// interleaved sums and those in order.
__global__ void __launch_bounds__(kThreads)
    join_kernel(View<float, 2> sum, const float* parts, int64_t pitch, const Sorted sorted, int64_t pieces) {
  const int64_t p = blockIdx.x, columns = sum.size[1], begin = p * sorted.piece, end = begin + sorted.piece;
  if (end >= sorted.count) {
    return;
  }
  const uint32_t key = sorted.key[end];
  const bool from_here =
      key == sorted.key[end - 1] && (key != sorted.key[begin] || begin == 0 || key != sorted.key[begin - 1]);
  if (!from_here || key >= static_cast<uint32_t>(sum.size[0])) {
    return;
  }
  int64_t low = end, high = sorted.count;  // the first position after the run is in (low, high]
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (sorted.key[middle] == key ? low : high) = middle;
  }
  const int64_t last = low / sorted.piece;
  const int64_t column = static_cast<int64_t>(blockIdx.y) * 32 + threadIdx.x % 32;
  const int slot = threadIdx.x / 32;
  double total = 0;
  if (column < columns) {
#pragma unroll 8
    for (int64_t q = p + 1 + slot; q <= last; q += kJoinSlots) {
      total += static_cast<double>(parts[q * pitch + column]);
    }
  }
  __shared__ double shared[kJoinSlots][33];
  shared[slot][threadIdx.x % 32] = total;
  __syncthreads();
  if (slot == 0 && column < columns) {
    float& to = sum(key, column);
    total = static_cast<double>(to) + static_cast<double>(parts[(pieces + p) * pitch + column]);
    for (int s = 0; s < kJoinSlots; ++s) {
      total += shared[s][threadIdx.x];
    }
    to = static_cast<float>(total);
  }
}

template <int kPack, bool kFlat, class T>
void sum_by_sorting(const Exec& exec, const char* op, View<float, 2> sum, const SegmentRows<T>& rows) {
  const int64_t all = rows.x.size[0] * rows.x.size[1], columns = rows.x.size[2], sums = sum.size[0];
  require(sums < UINT32_MAX, op, ": ", sums, " rows of the table are too many");
  int bits = 1;
  while (int64_t{1} << bits <= sums) {
    ++bits;
  }
  const Columns shared_out(columns, kPack);
  constexpr int64_t kMostRows = int64_t{1} << 30;  // at a time
  for (int64_t first = 0; first < all; first += kMostRows) {
    const int64_t count = std::min(kMostRows, all - first);
    const Scratch<uint32_t> lists(exec, 4 * count);
    uint32_t *key = lists.get(), *index = key + count, *sorted_key = index + count, *sorted_index = sorted_key + count;
    keys_kernel<kFlat, T>
        <<<grid_size(count, kThreads, op), kThreads, 0, stream_of(exec)>>>(key, index, rows, first, count, sums);
    check_launch(exec, op);
    size_t bytes = 0;
    const auto sort = [&](void* scratch) {
      check_cuda(cub::DeviceRadixSort::SortPairs(scratch, bytes, key, sorted_key, index, sorted_index,
                                                 static_cast<int>(count), 0, bits, stream_of(exec)),
                 op);
    };
    sort(nullptr);
    const Scratch<std::byte> scratch(exec, static_cast<int64_t>(bytes));
    sort(scratch.get());
    // Cut by the shape alone: work for a GPU's threads, in pieces that are long beside the sums they leave.
    constexpr int64_t kGroupThreads = int64_t{1} << 18;
    const int64_t wanted = ceil_div(count * shared_out.tiles * shared_out.lanes, kGroupThreads);
    const int64_t piece = std::clamp<int64_t>(ceil_div<int64_t>(wanted, kRowsAtOnce) * kRowsAtOnce, 32, 4096);
    const int64_t pieces = ceil_div(count, piece);
    const int64_t pitch = shared_out.tiles * shared_out.lanes * kPack;  // whole packs, so that they are aligned
    const Scratch<float> parts(exec, 2 * pieces * pitch);
    const Sorted sorted{sorted_key, sorted_index, first, count, piece};
    runs_kernel<kPack, kFlat, T>
        <<<grid_size(pieces * shared_out.tiles * shared_out.lanes, kThreads, op), kThreads, 0, stream_of(exec)>>>(
            sum, parts.get(), rows, sorted, shared_out.lanes, shared_out.tiles, pieces);
    check_launch(exec, op);
    if (pieces > 1) {
      const int64_t tiles = ceil_div<int64_t>(columns, 32);
      require(tiles <= 65535, op, ": ", columns, " columns are too many");
      const dim3 grid(static_cast<unsigned>(pieces), static_cast<unsigned>(tiles));
      join_kernel<<<grid, kThreads, 0, stream_of(exec)>>>(sum, parts.get(), pitch, sorted, pieces);
      check_launch(exec, op);
    }
  }
}

}  // namespace

template <class T>
void segment_sums(const Exec& exec, const char* op, View<float, 2> sum, const SegmentRows<T>& rows) {
  const int64_t count = rows.x.size[0] * rows.x.size[1];
  if (count == 0 || sum.elements() == 0) {
    return;
  }
  constexpr int kPack = kPackElements<T>;
  const SegmentRows<T> flat = flattened(rows);
  const bool few = table_bytes(sum.size[0], kPack) <= most_table_bytes(exec);
  const bool packed = rows_packed(rows.x) && (few || rows_aligned(sum, 16));
  const auto run = [&](auto by_table, auto by_sorting) {
    few ? by_table(exec, op, sum, flat) : by_sorting(exec, op, sum, flat);
  };
  if (flat.x.size[0] == 1) {
    packed ? run(sum_by_tables<kPack, true, T>, sum_by_sorting<kPack, true, T>)
           : run(sum_by_tables<1, true, T>, sum_by_sorting<1, true, T>);
  } else {
    packed ? run(sum_by_tables<kPack, false, T>, sum_by_sorting<kPack, false, T>)
           : run(sum_by_tables<1, false, T>, sum_by_sorting<1, false, T>);
  }
}

template void segment_sums<float>(const Exec&, const char*, View<float, 2>, const SegmentRows<float>&);
template void segment_sums<BFloat16>(const Exec&, const char*, View<float, 2>, const SegmentRows<BFloat16>&);

}  // namespace blockstate::kernels::cuda
