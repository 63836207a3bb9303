// SPDX-License-Identifier: Apache-2.0
// For kernels that live by bandwidth: a few neighbouring elements of a row, moved as they lie in memory (so that many
// loads can be under way in few registers) and turned into floats when they are used; sums over partial results.
#pragma once

#include "kernels/cuda_launch.cuh"

namespace blockstate::kernels::cuda {

/// N neighbouring elements as they lie in memory. Accesses are as wide as N allows (16 bytes at most): the address must
/// be a multiple of N * sizeof(T), or of 16 bytes where that is less.
template <class T, int N>
struct Raw {
  static constexpr int kBytes = N * static_cast<int>(sizeof(T));
  static constexpr int kWords = kBytes < 4 ? 1 : kBytes / 4;
  uint32_t word[kWords];
};

template <class T, int N>
__device__ inline Raw<T, N> load_raw(const T* from) {
  Raw<T, N> raw;
  constexpr int kWords = Raw<T, N>::kWords;
  if constexpr (Raw<T, N>::kBytes == 2) {
    raw.word[0] = *reinterpret_cast<const uint16_t*>(from);
  } else if constexpr (kWords == 1) {
    raw.word[0] = *reinterpret_cast<const uint32_t*>(from);
  } else if constexpr (kWords == 2) {
    const uint2 v = *reinterpret_cast<const uint2*>(from);
    raw.word[0] = v.x, raw.word[1] = v.y;
  } else {
    static_assert(kWords % 4 == 0, "whole 16-byte pieces");
#pragma unroll
    for (int i = 0; i < kWords; i += 4) {
      const uint4 v = *reinterpret_cast<const uint4*>(reinterpret_cast<const uint32_t*>(from) + i);
      raw.word[i] = v.x, raw.word[i + 1] = v.y, raw.word[i + 2] = v.z, raw.word[i + 3] = v.w;
    }
  }
  return raw;
}

template <class T, int N>
__device__ inline Raw<T, N> zero_raw() {
  Raw<T, N> raw;
#pragma unroll
  for (int i = 0; i < Raw<T, N>::kWords; ++i) {
    raw.word[i] = 0;
  }
  return raw;
}

/// Element i; i is known when compiling.
template <class T, int N>
__device__ inline float element(const Raw<T, N>& raw, int i) {
  if constexpr (sizeof(T) == 4) {
    return __uint_as_float(raw.word[i]);
  } else {
    return __uint_as_float(i % 2 == 0 ? raw.word[i / 2] << 16 : raw.word[i / 2] & 0xffff0000u);
  }
}

template <class T, int N>
__device__ inline void store_raw(T* to, const float (&from)[N]) {
  Raw<T, N> raw;
  constexpr int kWords = Raw<T, N>::kWords;
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      raw.word[i] = __float_as_uint(from[i]);
    }
  } else if constexpr (N == 1) {
    raw.word[0] = from_float<BFloat16>(from[0]).bits;
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(from[i], from[i + 1]);
      raw.word[i / 2] = *reinterpret_cast<const uint32_t*>(&pair);
    }
  }
  if constexpr (Raw<T, N>::kBytes == 2) {
    *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(raw.word[0]);
  } else if constexpr (kWords == 1) {
    *reinterpret_cast<uint32_t*>(to) = raw.word[0];
  } else if constexpr (kWords == 2) {
    *reinterpret_cast<uint2*>(to) = make_uint2(raw.word[0], raw.word[1]);
  } else {
#pragma unroll
    for (int i = 0; i < kWords; i += 4) {
      *reinterpret_cast<uint4*>(reinterpret_cast<uint32_t*>(to) + i) =
          make_uint4(raw.word[i], raw.word[i + 1], raw.word[i + 2], raw.word[i + 3]);
    }
  }
}

// --- copies to shared memory that run while the thread goes on -------------------------------------------------------

template <int kBytes>
__device__ inline void copy_async(void* shared, const void* global) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "what one instruction copies");
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(kBytes) : "memory");
  }
}

/// Ends a group of the thread's copies.
__device__ inline void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most kPending groups are under way.
template <int kPending>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/// Rows of the view can be read in packs of N from their first element on (an absent view can be).
template <int N, class T, int R>
bool packs_fit(const View<T, R>& view) {
  constexpr int64_t kBytes = N * static_cast<int64_t>(sizeof(T)) < 16 ? N * static_cast<int64_t>(sizeof(T)) : 16;
  bool fit = reinterpret_cast<uintptr_t>(view.data) % kBytes == 0;
  for (int i = 0; i + 1 < R; ++i) {
    fit = fit && (view.size[i] <= 1 || view.stride[i] * static_cast<int64_t>(sizeof(T)) % kBytes == 0);
  }
  return fit;
}

/// write(c, sum over rows of partial[row * columns + c]), in an order that depends on the sizes alone. Launched with
/// kSumThreads threads a block, kSumColumns columns each.
constexpr int kSumColumns = 32;
constexpr int kSumThreads = 1024;

template <class Write>
__global__ void __launch_bounds__(kSumThreads)
    sum_rows_kernel(const float* partial, int64_t rows, int64_t columns, Write write) {
  constexpr int kRows = kSumThreads / kSumColumns;
  __shared__ double sums[kRows][kSumColumns + 1];
  const int x = threadIdx.x % kSumColumns, y = threadIdx.x / kSumColumns;
  const int64_t column = int64_t{blockIdx.x} * kSumColumns + x;
  wait_for_earlier_work();
  double sum = 0;
  if (column < columns) {
#pragma unroll 4
    for (int64_t row = y; row < rows; row += kRows) {
      sum += static_cast<double>(partial[row * columns + column]);
    }
  }
  sums[y][x] = sum;
  __syncthreads();
  if (y == 0 && column < columns) {
    for (int other = 1; other < kRows; ++other) {
      sum += sums[other][x];
    }
    write(column, static_cast<float>(sum));
  }
}

template <class Write>
void sum_rows(const Exec& exec, const char* op, const float* partial, int64_t rows, int64_t columns, Write write) {
  if (columns > 0) {
    launch_early<sum_rows_kernel<Write>>(exec, op, static_cast<unsigned>(ceil_div<int64_t>(columns, kSumColumns)),
                                         kSumThreads, 0, partial, rows, columns, write);
  }
}

}  // namespace blockstate::kernels::cuda
