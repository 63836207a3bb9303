// SPDX-License-Identifier: Apache-2.0
// What forward and backward of range attention share. Included once for each instruction set.
//
// Lanes are queries: scores lie as [key][query], so the maximum and the sum of the softmax are plain vector operations
// over rows, masks and biases are vectors, and both products of the forward pass (and three of the five of the
// backward) are one micro-kernel that broadcasts an element of k or v against vectors of queries.
#if defined(BLOCKSTATE_KERNELS_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BLOCKSTATE_KERNELS_ATTENTION_INL_H_
#undef BLOCKSTATE_KERNELS_ATTENTION_INL_H_
#else
#define BLOCKSTATE_KERNELS_ATTENTION_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "kernels/attention.h"
#include "kernels/flush_denormals.h"
#include "kernels/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {
namespace {

constexpr bool kManyRegisters = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64;
constexpr int kVectors = kManyRegisters ? 4 : 2;  // vectors of queries in a tile
constexpr int kRows = 4;                          // rows of the micro-kernel: kRows * kVectors sums in registers
constexpr int64_t kKeys = 64;                     // keys in a tile: scores and one operand stay in L1

/// C[r][x] (+)= sum_k A[r * a_row + k * a_column] * B[k][x] for R rows and V vectors of columns.
template <int R, int V, class D, class T = hn::TFromD<D>>
HWY_INLINE void multiply_block(D d, int64_t depth, const T* HWY_RESTRICT a, int64_t a_row, int64_t a_column,
                               const T* HWY_RESTRICT b, int64_t b_row, T* HWY_RESTRICT c, int64_t c_row,
                               bool accumulate) {
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  hn::Vec<D> sum[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) {
      sum[r][v] = accumulate ? hn::Load(d, c + r * c_row + v * N) : hn::Zero(d);
    }
  }
  for (int64_t k = 0; k < depth; ++k, a += a_column, b += b_row) {
    hn::Vec<D> row[V];
    for (int v = 0; v < V; ++v) {
      row[v] = hn::Load(d, b + v * N);
    }
    for (int r = 0; r < R; ++r) {
      const auto factor = hn::Set(d, a[r * a_row]);
      for (int v = 0; v < V; ++v) {
        sum[r][v] = hn::MulAdd(factor, row[v], sum[r][v]);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) {
      hn::Store(sum[r][v], d, c + r * c_row + v * N);
    }
  }
}

template <int V, class D, class T = hn::TFromD<D>>
void multiply_rows(D d, int64_t rows, int64_t depth, const T* a, int64_t a_row, int64_t a_column, const T* b,
                   int64_t b_row, T* c, int64_t c_row, bool accumulate) {
  constexpr int kTall = kRows * kVectors / V;  // narrow tiles take more rows: the sums hide each other's latency
  int64_t r = 0;
  for (; kTall > kRows && r + kTall <= rows; r += kTall) {
    multiply_block<kTall, V>(d, depth, a + r * a_row, a_row, a_column, b, b_row, c + r * c_row, c_row, accumulate);
  }
  for (; r + kRows <= rows; r += kRows) {
    multiply_block<kRows, V>(d, depth, a + r * a_row, a_row, a_column, b, b_row, c + r * c_row, c_row, accumulate);
  }
  for (; r < rows; ++r) {
    multiply_block<1, V>(d, depth, a + r * a_row, a_row, a_column, b, b_row, c + r * c_row, c_row, accumulate);
  }
}

/// C (rows, width) = or += A (rows, depth) B (depth, width); width a multiple of a vector, rows of B and C aligned.
template <class D, class T = hn::TFromD<D>>
void multiply(D d, int64_t rows, int64_t width, int64_t depth, const T* a, int64_t a_row, int64_t a_column, const T* b,
              int64_t b_row, T* c, int64_t c_row, bool accumulate) {
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t x = 0; x < width;) {
    const int64_t vectors = std::min<int64_t>(kVectors, (width - x) / N);
    switch (vectors) {
      case 1:
        multiply_rows<1>(d, rows, depth, a, a_row, a_column, b + x, b_row, c + x, c_row, accumulate);
        break;
      case 2:
        multiply_rows<2>(d, rows, depth, a, a_row, a_column, b + x, b_row, c + x, c_row, accumulate);
        break;
      case 3:
        multiply_rows<(kVectors > 3 ? 3 : 1)>(d, rows, depth, a, a_row, a_column, b + x, b_row, c + x, c_row,
                                              accumulate);
        break;
      default:
        multiply_rows<kVectors>(d, rows, depth, a, a_row, a_column, b + x, b_row, c + x, c_row, accumulate);
        break;
    }
    x += vectors * N;
  }
}

/// A tile of queries of one row and head, and the keys that they see together.
struct QueryTile {
  int64_t b;
  int64_t h;
  int64_t first;      // query of lane 0
  int64_t count;      // queries
  int64_t width;      // lanes: count rounded up to vectors
  int64_t low;        // keys [low, high) are seen by some query
  int64_t high;       // low == high: every range is empty
  int64_t all_begin;  // keys [all_begin, all_end) are seen by every query whose range is not empty
  int64_t all_end;
};

template <class T>
QueryTile query_tile(const AttentionForward<T>& args, int64_t b, int64_t h, int64_t first, int64_t N) {
  QueryTile tile{};
  tile.b = b;
  tile.h = h;
  tile.first = first;
  tile.count = std::min<int64_t>(kVectors * N, args.q.size[1] - first);
  tile.width = (tile.count + N - 1) / N * N;
  tile.all_end = std::numeric_limits<int64_t>::max();
  for (int64_t i = first; i < first + tile.count; ++i) {
    const int64_t begin = args.begin(b, i), end = args.end(b, i);
    if (begin >= end) {
      continue;
    }
    tile.low = tile.high == 0 ? begin : std::min(tile.low, begin);
    tile.high = std::max(tile.high, end);
    tile.all_begin = std::max(tile.all_begin, begin);
    tile.all_end = std::min(tile.all_end, end);
  }
  return tile;
}

template <class T>
bool sees_nothing(const AttentionForward<T>& args, const QueryTile& tile, int64_t lane) {
  return lane >= tile.count || args.begin(tile.b, tile.first + lane) >= args.end(tile.b, tile.first + lane);
}

/// Rows [first, first + count) of one row and head of a (B, L, H, P) view, times `scale`: as [p][lane], the lanes past
/// the end 0.
template <class T, class U>
void load_transposed(View<T, 4> view, const QueryTile& tile, U scale, U* to) {
  for (int64_t p = 0; p < view.size[3]; ++p) {
    std::fill(to + p * tile.width + tile.count, to + (p + 1) * tile.width, U(0));
  }
  for (int64_t i = 0; i < tile.count; ++i) {
    const T* const from = &view(tile.b, tile.first + i, tile.h, 0);
    for (int64_t p = 0; p < view.size[3]; ++p) {
      to[p * tile.width + i] = scale * from[p];
    }
  }
}

/// Keys [j0, j0 + count) of one row and head, side by side: rows of a head may lie kilobytes apart, where they would
/// share few cache sets.
template <class D, class T = hn::TFromD<D>>
void load_keys(D d, View<const T, 4> view, const QueryTile& tile, int64_t j0, int64_t count, T* to) {
  const int64_t N = static_cast<int64_t>(hn::Lanes(d)), P = view.size[3];
  for (int64_t j = 0; j < count; ++j, to += P) {
    const T* const from = &view(tile.b, j0 + j, tile.h, 0);
    int64_t p = 0;
    for (; p + N <= P; p += N) {
      hn::StoreU(hn::LoadU(d, from + p), d, to + p);
    }
    for (; p < P; ++p) {
      to[p] = from[p];
    }
  }
}

/// Biases of a tile of keys: to[x] such that key j and lane i read to[count - 1 - j + i].
template <class T>
void load_bias(const AttentionForward<T>& args, const QueryTile& tile, int64_t j0, int64_t count, T* to) {
  const int64_t nearest = tile.first + args.offset - (j0 + count - 1);
  for (int64_t x = 0; x < count + tile.width - 1; ++x) {
    to[x] = args.bias(tile.h, std::clamp<int64_t>(nearest + x, 0, args.bias.size[1] - 1));
  }
}

/// Adds the bias to scores [key][lane] and puts -infinity outside each query's range. `limits` holds 2 * width.
template <class D, class T = hn::TFromD<D>>
void bias_and_mask(D d, const AttentionForward<T>& args, const QueryTile& tile, int64_t j0, int64_t count,
                   const T* bias, T* limits, T* scores) {
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  const bool masked = j0 < tile.all_begin || j0 + count > tile.all_end;
  if (!masked && !args.bias) {
    return;
  }
  for (int64_t i = 0; i < tile.width && masked; ++i) {
    const bool whole = sees_nothing(args, tile, i);  // such lanes are put right at the end
    const int64_t query = tile.first + i;
    limits[i] = whole ? T(0) : static_cast<T>(std::clamp<int64_t>(args.begin(tile.b, query) - j0, 0, count));
    limits[tile.width + i] =
        whole ? static_cast<T>(count) : static_cast<T>(std::clamp<int64_t>(args.end(tile.b, query) - j0, 0, count));
  }
  const auto hidden = hn::Set(d, -std::numeric_limits<T>::infinity());
  for (int64_t j = 0; j < count; ++j) {
    const auto at = hn::Set(d, static_cast<T>(j));
    for (int64_t x = 0; x < tile.width; x += N) {
      auto s = hn::Load(d, scores + j * tile.width + x);
      if (args.bias) {
        s = hn::Add(s, hn::LoadU(d, bias + count - 1 - j + x));
      }
      if (masked) {
        const auto seen =
            hn::And(hn::Ge(at, hn::Load(d, limits + x)), hn::Lt(at, hn::Load(d, limits + tile.width + x)));
        s = hn::IfThenElse(seen, s, hidden);
      }
      hn::Store(s, d, scores + j * tile.width + x);
    }
  }
}

}  // namespace
}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
