// SPDX-License-Identifier: Apache-2.0
// How kernels over the elements of matrices cut them up: packs of neighbours in a row, 16 bytes where all views are
// aligned to that, single elements elsewhere.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/base/view.h"
#include "kernels/cuda_support.cuh"

namespace blockstate::kernels::cuda {

/// n / divisor for n < 2^31 by a multiplication. Granlund and Montgomery, "Division by invariant integers using
/// multiplication", PLDI 1994, fig. 4.1.
class FastDivide {
 public:
  FastDivide() = default;
  /// 0 < divisor < 2^31
  explicit FastDivide(uint32_t divisor) : divisor_(divisor) {
    while ((uint64_t{1} << shift_) < divisor) {
      ++shift_;
    }
    multiplier_ = static_cast<uint32_t>(((uint64_t{1} << 32) * ((uint64_t{1} << shift_) - divisor)) / divisor + 1);
  }
  __device__ uint32_t quotient(uint32_t n) const { return (__umulhi(n, multiplier_) + n) >> shift_; }
  __device__ uint32_t divisor() const { return divisor_; }

 private:
  uint32_t divisor_ = 1, multiplier_ = 1, shift_ = 0;
};

/// Elements of 16 bytes.
template <class T>
inline constexpr int kPackElements = 16 / static_cast<int>(sizeof(T));

/// True where element 0 of every row of the view starts on `bytes` bytes.
template <class T, int R>
bool rows_aligned(const View<T, R>& view, int64_t bytes) {
  bool aligned = reinterpret_cast<uintptr_t>(view.data) % static_cast<uintptr_t>(bytes) == 0;
  for (int i = 0; i < R - 1; ++i) {
    aligned = aligned && (view.size[i] <= 1 || view.stride[i] * static_cast<int64_t>(sizeof(T)) % bytes == 0);
  }
  return aligned;
}

/// True where every row is made of whole packs of 16 bytes.
template <class T, int R>
bool rows_packed(const View<T, R>& view) {
  return view.size[R - 1] % kPackElements<std::remove_const_t<T>> == 0 && rows_aligned(view, 16);
}

/// Blocks of one launch; the grid's first dimension takes 2^31 - 1.
inline unsigned grid_size(int64_t items, int64_t items_per_block, const char* op) {
  const int64_t blocks = ceil_div(items, items_per_block);
  require(blocks <= INT32_MAX, op, ": ", items, " elements are too many for one launch");
  return static_cast<unsigned>(blocks);
}

/// The packs of all rows in one count: item i is pack i % packs of row i / packs.
struct PackGrid {
  int64_t columns = 0;
  int64_t packs = 0;  ///< a row
  int64_t items = 0;
  FastDivide divide;

  PackGrid() = default;
  PackGrid(int64_t rows, int64_t row_columns, int pack)
      : columns(row_columns), packs(ceil_div<int64_t>(row_columns, pack)), items(rows * packs) {
    divide = FastDivide(packs < kLongRow ? static_cast<uint32_t>(packs > 0 ? packs : 1) : 1);
  }

  struct Place {
    int64_t row;
    int64_t pack;
  };
  /// Item first + step, where step < 2^30: the division that costs is done once for `first`, which all threads of a
  /// block share.
  __device__ Place place(int64_t first, uint32_t step) const {
    const int64_t row = first / packs, pack = first - row * packs;
    if (packs >= kLongRow) {
      const bool next = pack + step >= packs;  // a step is shorter than a row
      return {row + next, pack + step - (next ? packs : 0)};
    }
    const uint32_t at = static_cast<uint32_t>(pack) + step;
    const uint32_t more = divide.quotient(at);
    return {row + more, static_cast<int64_t>(at - more * divide.divisor())};
  }

 private:
  static constexpr int64_t kLongRow = int64_t{1} << 30;
};

/// N floats, in accesses of at most 16 bytes.
template <int N>
__device__ inline void load_floats(const float* from, float (&to)[N]) {
  constexpr int kPart = N < 4 ? N : 4;
#pragma unroll
  for (int i = 0; i < N; i += kPart) {
    float part[kPart];
    load_pack<kPart>(from + i, part);
#pragma unroll
    for (int k = 0; k < kPart; ++k) {
      to[i + k] = part[k];
    }
  }
}

template <int N>
__device__ inline void store_floats(float* to, const float (&from)[N]) {
  constexpr int kPart = N < 4 ? N : 4;
#pragma unroll
  for (int i = 0; i < N; i += kPart) {
    float part[kPart];
#pragma unroll
    for (int k = 0; k < kPart; ++k) {
      part[k] = from[i + k];
    }
    store_pack<kPart>(to + i, part);
  }
}

/// Rows of a matrix as kernels walk them.
template <class T>
struct RowPointer {
  T* data;
  int64_t stride;
  RowPointer() = default;
  template <class U>
  explicit RowPointer(const View<U, 2>& view) : data(view.data), stride(view.stride[0]) {}
  __device__ T* at(int64_t row, int64_t column) const { return data + row * stride + column; }
};

}  // namespace blockstate::kernels::cuda
