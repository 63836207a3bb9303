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

// diagonal_scan_setup_cuda.cu

/// tables: (channels, kTableWords, 32).
void make_tables(const Exec& exec, View<const float, 3> a, View<const float, 3> c, View<const float, 1> D, bool reverse,
                 uint32_t* tables);

/// events: (B, blocks); kept: (B, segments), the valid steps of each segment, -1 where a record starts in it.
void find_events(const Exec& exec, View<const int64_t, 2> position, Segments segments, uint32_t* events, int64_t* kept);

/// From where each segment ends when it starts from zero to where each starts.
void fold_carries(const Exec& exec, View<const float, 3> a, View<const float, 4> initial, int64_t length,
                  Segments segments, const int64_t* kept, bool reverse, int64_t batch, float2* carry);

}  // namespace blockstate::kernels::cuda
