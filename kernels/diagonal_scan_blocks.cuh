// SPDX-License-Identifier: Apache-2.0
// Pieces of the diagonal scan in blocks: products of split floats on the tensor cores, asynchronous copies, and the
// small kernels around the passes.
#pragma once

#include "kernels/diagonal_scan_cuda.cuh"

namespace blockstate::kernels::cuda {

/// D += A B: A (16, 16) and B (16, 8) of bfloat16, D (16, 8) of float.
__device__ inline void multiply_add(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&d)[4]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Two floats as sums of three bfloat16, exactly (but for what underflows): the upper halves of what is left.
__device__ inline void split_pair(float first, float second, uint32_t (&pieces)[kPieces]) {
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const uint32_t x = __float_as_uint(first), y = __float_as_uint(second);
    pieces[i] = __byte_perm(x, y, 0x7632);
    if (i + 1 < kPieces) {
      first -= __uint_as_float(x & 0xffff0000u);
      second -= __uint_as_float(y & 0xffff0000u);
    }
  }
}

/// sums += A B[.][column], A and B split, the smallest products first.
template <int kParts, int kColumns>
__device__ inline void product(const uint32_t (&a)[kParts][4], const uint32_t (&b)[kPieces][kColumns][2], int column,
                               float (&sums)[4]) {
#pragma unroll
  for (int order = kPieces - 1; order >= 0; --order) {
#pragma unroll
    for (int i = 0; i < kParts && i <= order; ++i) {
      multiply_add(a[i], b[order - i][column], sums);
    }
  }
}

/// 16 bytes into shared memory, zeros where not `inside`.
__device__ inline void copy_async(void* to, const void* from, bool inside) {
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))),
      "l"(from), "r"(inside ? 16 : 0)
      : "memory");
}
__device__ inline void commit_async() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ inline void wait_async() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/// Each group of kGroup channels may be moved in 16-byte pieces.
template <class T>
__device__ inline bool aligned(const View<T, 3>& view) {
  constexpr int64_t kElements = 16 / static_cast<int64_t>(sizeof(T));
  return reinterpret_cast<uintptr_t>(view.data) % 16 == 0 && view.stride[0] % kElements == 0 &&
         view.stride[1] % kElements == 0;
}

inline constexpr int kDepth = 4;                // blocks of a stage: between barriers
inline constexpr int kStage = kDepth * kBlock;  // steps
inline constexpr int kRing = 3;                 // stages of input under way
inline constexpr int kBlockElements = kRows * kBlock * kGroup;
inline constexpr int kStagesPerCheckpoint = static_cast<int>(kDiagonalCheckpoint / kStage);
static_assert(kDiagonalCheckpoint % kStage == 0, "checkpoints lie between stages");

/// Where a warp's element of (row, step) lies: neighbouring rows are swapped pairwise against bank conflicts.
__device__ inline int place_of(int row, int step) { return (row * kBlock + (step ^ (row & 1))) * kGroup; }

/// The segment that a row of a thread block walks, in the order of the walk.
template <bool kReverse>
struct Row {
  int64_t b = 0, segment = 0, first = 0;
  int64_t length = 0;  // of the sequence; 0 for rows that are not in use
  int64_t steps;       // of the segment

  __device__ Row(int64_t batch, int64_t total, Segments segments, int64_t row) {
    steps = segments.length;
    if (row < batch * segments.count) {
      b = row / segments.count;
      segment = row % segments.count;
      first = segment * segments.length;
      length = total;
    }
  }
  /// Time of the n-th step of the walk.
  __device__ int64_t time(int64_t n) const { return kReverse ? first + steps - 1 - n : first + n; }
  /// True where `count` steps of the walk from the n-th on are steps of the sequence.
  __device__ bool inside(int64_t n, int64_t count) const { return (kReverse ? time(n) : time(n + count - 1)) < length; }
  /// Events of the n-th block of the walk.
  __device__ uint32_t events(const uint32_t* all, int64_t n) const {
    const int64_t block = kReverse ? first / kBlock + steps / kBlock - 1 - n : first / kBlock + n;
    const int64_t left = length - block * kBlock;
    if (left <= 0) {
      return kAllPadding;
    }
    uint32_t found = all != nullptr ? all[b * ceil_div<int64_t>(length, kBlock) + block] : 0;
    if (left < kBlock) {
      found |= kAllPadding << left;
    }
    return kReverse ? (__brev(found) >> 16) | (__brev(found) << 16) : found;
  }
};

template <class T>
__device__ __noinline__ void fetch_each(const T* from, int64_t count, T* to) {
  for (int i = 0; i < kGroup; ++i) {
    to[i] = i < count ? from[i] : from_float<T>(0.0f);
  }
}

/// Copies a thread's step of a block into shared memory, zeros past the end.
template <class T>
__device__ inline void fetch(const View<const T, 3>& in, int64_t b, int64_t t, int64_t length, int64_t channel,
                             bool vector, T* to) {
  const T* from = in.data + b * in.stride[0] + t * in.stride[1] + channel;
  const bool inside = t < length;
  if (vector) {
#pragma unroll
    for (int i = 0; i < static_cast<int>(kGroup * sizeof(T) / 16); ++i) {
      copy_async(to + i * (16 / sizeof(T)), inside ? from + i * (16 / sizeof(T)) : in.data, inside);
    }
  } else {
    fetch_each(from, inside ? in.size[2] - channel : 0, to);
  }
}

/// Two neighbouring elements of a matrix of mma as register r, split into `kParts` bfloat16.
template <int kParts, class T>
__device__ inline void pair_parts(T first, T second, int r, uint32_t (&parts)[kParts][4]) {
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

/// The warp's channel of a block as the left-hand matrix (rows, steps) of mma.
template <int kParts, class T>
__device__ inline void load_inputs(const T* in, uint32_t (&parts)[kParts][4]) {
  const int row = threadIdx.x % 32 / 4, step = 2 * (threadIdx.x % 4);
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    pair_parts<kParts>(in[place_of(row + r % 2 * 8, step + r / 2 * 8)],
                       in[place_of(row + r % 2 * 8, step + r / 2 * 8 + 1)], r, parts);
  }
}

// diagonal_scan_setup_cuda.cu

/// tables: (channels, kTableWords, 32).
void make_tables(const Exec& exec, View<const float, 3> a, View<const float, 3> c, View<const float, 1> D, Tables kind,
                 uint32_t* tables);

/// events: (B, blocks); kept: (B, segments), the valid steps of each segment, -1 where a record starts in it.
void find_events(const Exec& exec, View<const int64_t, 2> position, Segments segments, uint32_t* events, int64_t* kept);

/// From where each segment ends when it starts from zero to where each starts.
void fold_carries(const Exec& exec, View<const float, 3> a, View<const float, 4> initial, int64_t length,
                  Segments segments, const int64_t* kept, bool reverse, int64_t batch, float2* carry);

}  // namespace blockstate::kernels::cuda
