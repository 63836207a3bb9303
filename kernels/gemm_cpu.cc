// SPDX-License-Identifier: Apache-2.0
#include <cblas.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <type_traits>

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "kernels/gemm.h"
#include "kernels/gemm_check.h"

namespace blockstate::kernels::cpu {
namespace {

// One BLAS call: op(a) (m, k) * op(b) (k, n) into c (m, n), row-major.
template <class T>
struct Product {
  int64_t m, n, k;
  const T* a;
  int64_t lda;
  bool transpose_a;
  const T* b;
  int64_t ldb;
  bool transpose_b;
  T* c;
  int64_t ldc;
  T alpha, beta;
};

// The sequential build of OpenBLAS hands out its packing buffers without a lock: two concurrent calls can get the same
// one and return wrong numbers (docs/decisions/0002-blas.md). All builds share one file name, so which one is loaded
// is known only here: the threaded builds are told to use one thread, the sequential one is called by one at a time.
class Blas {
 public:
  static Blas& instance() {
    static Blas blas;
    return blas;
  }

  template <class Call>
  void run(const Call& call) {
    if (concurrent_) {
      call();
    } else {
      std::lock_guard one_at_a_time(mutex_);
      call();
    }
  }

 private:
  Blas() : concurrent_(openblas_get_parallel() != OPENBLAS_SEQUENTIAL) { openblas_set_num_threads(1); }
  const bool concurrent_;
  std::mutex mutex_;
};

CBLAS_TRANSPOSE blas_transpose(bool transpose) { return transpose ? CblasTrans : CblasNoTrans; }

blasint blas_int(int64_t value) { return static_cast<blasint>(value); }

template <class T>
void blas_matrix_vector(bool transpose, int64_t rows, int64_t columns, T alpha, const T* a, int64_t lda, const T* x,
                        int64_t incx, T* y, int64_t incy) {
  Blas::instance().run([&] {
    if constexpr (std::is_same_v<T, float>) {
      cblas_sgemv(CblasRowMajor, blas_transpose(transpose), blas_int(rows), blas_int(columns), alpha, a, blas_int(lda),
                  x, blas_int(incx), 1, y, blas_int(incy));
    } else {
      cblas_dgemv(CblasRowMajor, blas_transpose(transpose), blas_int(rows), blas_int(columns), alpha, a, blas_int(lda),
                  x, blas_int(incx), 1, y, blas_int(incy));
    }
  });
}

template <class T>
void blas_matrix_matrix(const Product<T>& p) {
  Blas::instance().run([&] {
    if constexpr (std::is_same_v<T, float>) {
      cblas_sgemm(CblasRowMajor, blas_transpose(p.transpose_a), blas_transpose(p.transpose_b), blas_int(p.m),
                  blas_int(p.n), blas_int(p.k), p.alpha, p.a, blas_int(p.lda), p.b, blas_int(p.ldb), p.beta, p.c,
                  blas_int(p.ldc));
    } else {
      cblas_dgemm(CblasRowMajor, blas_transpose(p.transpose_a), blas_transpose(p.transpose_b), blas_int(p.m),
                  blas_int(p.n), blas_int(p.k), p.alpha, p.a, blas_int(p.lda), p.b, blas_int(p.ldb), p.beta, p.c,
                  blas_int(p.ldc));
    }
  });
}

// c = beta * c + bias, or bias (or 0) alone where beta is 0; c may hold anything then, NaN included.
template <class T>
void start_rows(T* c, int64_t ldc, int64_t m, int64_t n, T beta, const T* bias) {
  for (int64_t i = 0; i < m; ++i) {
    T* row = c + i * ldc;
    if (beta == 0) {
      if (bias) {
        std::copy(bias, bias + n, row);
      } else {
        std::fill(row, row + n, T(0));
      }
      continue;
    }
    for (int64_t j = 0; j < n; ++j) {
      row[j] = beta * row[j] + (bias ? bias[j] : T(0));
    }
  }
}

// c = alpha * op(a) * op(b) + beta * c + bias for one piece, on the calling thread.
template <class T>
void multiply(Product<T> p, const T* bias) {
  const bool vector = p.m == 1 || p.n == 1;
  if (bias || vector || p.k == 0) {
    if (bias || p.beta != 1) {
      start_rows(p.c, p.ldc, p.m, p.n, p.beta, bias);
    }
    p.beta = 1;
  }
  if (p.k == 0) {
    return;
  }
  if (p.m == 1) {  // c^T = op(b)^T * a^T
    const int64_t rows = p.transpose_b ? p.n : p.k;
    const int64_t columns = p.transpose_b ? p.k : p.n;
    blas_matrix_vector(!p.transpose_b, rows, columns, p.alpha, p.b, p.ldb, p.a, p.transpose_a ? p.lda : 1, p.c,
                       int64_t{1});
  } else if (p.n == 1) {
    const int64_t rows = p.transpose_a ? p.k : p.m;
    const int64_t columns = p.transpose_a ? p.m : p.k;
    blas_matrix_vector(p.transpose_a, rows, columns, p.alpha, p.a, p.lda, p.b, p.transpose_b ? 1 : p.ldb, p.c, p.ldc);
  } else {
    blas_matrix_matrix(p);
  }
}

// How the work is cut: tiles of c, and pieces of k where c alone is too small to share out (weight gradients: few rows
// and columns, a k of batch times length). Depends on the shape only, so the bits do not depend on the threads.
struct Split {
  int64_t tile_m, tile_n, tiles_m, tiles_n;
  int64_t piece_k, pieces_k;
};

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Cuts `size` into equal parts of about `target`, each a multiple of 16 but the last.
int64_t even_part(int64_t size, int64_t target) {
  const int64_t parts = divide_up(size, target);
  return divide_up(divide_up(size, parts), 16) * 16;
}

Split split(int64_t m, int64_t n, int64_t k) {
  constexpr double kSmall = 2e6;      // multiply-adds: below, waking the pool costs more than it brings
  constexpr int64_t kTileRows = 256;  // fewer, and packing b for each tile shows
  constexpr int64_t kTileColumns = 512;
  constexpr int64_t kFewTiles = 8;
  constexpr int64_t kPieceK = 1024;
  constexpr int64_t kMaxPieces = 32;
  constexpr int64_t kMaxPartial = int64_t{1} << 22;  // elements of all partial products together
  Split s{m, n, 1, 1, k, 1};
  const double work = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  if (work <= kSmall) {
    return s;
  }
  if (n > 3 * kTileColumns / 2) {
    s.tile_n = even_part(n, kTileColumns);
    s.tiles_n = divide_up(n, s.tile_n);
  }
  const double row_work = static_cast<double>(s.tile_n) * static_cast<double>(k);
  const int64_t tile_rows = std::max(kTileRows, static_cast<int64_t>(kSmall / 2 / row_work));
  if (m > 3 * tile_rows / 2) {
    s.tile_m = even_part(m, tile_rows);
    s.tiles_m = divide_up(m, s.tile_m);
  }
  if (s.tiles_m * s.tiles_n < kFewTiles) {
    const int64_t pieces = std::min({k / kPieceK, kMaxPieces, kMaxPartial / (m * n)});
    if (pieces > 1) {
      s.piece_k = even_part(k, divide_up(k, pieces));
      s.pieces_k = divide_up(k, s.piece_k);
    }
  }
  return s;
}

// The part of `all` that computes rows [i, i + m), columns [j, j + n) from k in [l, l + k).
template <class T>
Product<T> part_of(const Product<T>& all, int64_t i, int64_t m, int64_t j, int64_t n, int64_t l, int64_t k) {
  Product<T> p = all;
  p.m = m;
  p.n = n;
  p.k = k;
  p.a += all.transpose_a ? l * all.lda + i : i * all.lda + l;
  p.b += all.transpose_b ? j * all.ldb + l : l * all.ldb + j;
  p.c += i * all.ldc + j;
  return p;
}

template <class T>
void multiply_tiles(const Product<T>& all, const Split& s, const T* bias) {
  parallel_for(s.tiles_m * s.tiles_n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t i = tile / s.tiles_n * s.tile_m;
      const int64_t j = tile % s.tiles_n * s.tile_n;
      multiply(part_of(all, i, std::min(s.tile_m, all.m - i), j, std::min(s.tile_n, all.n - j), 0, all.k),
               bias ? bias + j : nullptr);
    }
  });
}

template <class T>
void multiply_pieces(const Product<T>& all, const Split& s, const T* bias) {
  const int64_t area = all.m * all.n;
  const auto partial = std::make_unique_for_overwrite<T[]>(static_cast<size_t>(s.pieces_k * area));
  const int64_t tiles = s.tiles_m * s.tiles_n;
  parallel_for(s.pieces_k * tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t piece = item / tiles;
      const int64_t i = item % tiles / s.tiles_n * s.tile_m;
      const int64_t j = item % tiles % s.tiles_n * s.tile_n;
      const int64_t l = piece * s.piece_k;
      Product<T> p = all;
      p.c = partial.get() + piece * area;
      p.ldc = all.n;
      p.beta = 0;
      multiply<T>(part_of(p, i, std::min(s.tile_m, all.m - i), j, std::min(s.tile_n, all.n - j), l,
                          std::min(s.piece_k, all.k - l)),
                  nullptr);
    }
  });
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 16) / (all.n * s.pieces_k));
  parallel_for(all.m, grain, [&](int64_t begin, int64_t end) {
    start_rows(all.c + begin * all.ldc, all.ldc, end - begin, all.n, all.beta, bias);
    for (int64_t i = begin; i < end; ++i) {
      T* row = all.c + i * all.ldc;
      T* sum = partial.get() + i * all.n;
      for (int64_t piece = 1; piece < s.pieces_k; ++piece) {
        const T* term = partial.get() + piece * area + i * all.n;
        for (int64_t j = 0; j < all.n; ++j) {
          sum[j] += term[j];
        }
      }
      for (int64_t j = 0; j < all.n; ++j) {
        row[j] += sum[j];
      }
    }
  });
}

template <class T>
Product<T> checked(const Gemm<T>& args) {
  const auto [m, n, k] = check_gemm(args);
  const Product<T> p{m,
                     n,
                     k,
                     args.a.data,
                     gemm_row_stride("a", args.a),
                     args.transpose_a,
                     args.b.data,
                     gemm_row_stride("b", args.b),
                     args.transpose_b,
                     args.c.data,
                     gemm_row_stride("c", args.c),
                     args.alpha,
                     args.beta};
  constexpr int64_t kLimit = std::numeric_limits<int32_t>::max();
  require(std::max({n, k, p.lda, p.ldb, p.ldc}) <= kLimit,
          "gemm: n, k and the row strides must be below 2^31, found n = ", n, ", k = ", k, ", strides ", p.lda, ", ",
          p.ldb, ", ", p.ldc);
  return p;
}

}  // namespace

template <class T>
void gemm(const Gemm<T>& args) {
  const Product<T> all = checked(args);
  if (all.m == 0 || all.n == 0) {
    return;
  }
  const Split s = split(all.m, all.n, all.k);
  if (s.pieces_k > 1) {
    multiply_pieces(all, s, args.bias.data);
  } else {
    multiply_tiles(all, s, args.bias.data);
  }
}

template void gemm<float>(const Gemm<float>&);
template void gemm<double>(const Gemm<double>&);

}  // namespace blockstate::kernels::cpu
