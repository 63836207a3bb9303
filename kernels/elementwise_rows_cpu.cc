// SPDX-License-Identifier: Apache-2.0
// The functions of elementwise.h that are not element-wise: column sums and copies between any strides.
#include <algorithm>
#include <cstring>
#include <memory>

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "kernels/elementwise_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise_rows_cpu.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first
#include "kernels/row_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {

// sum[c] = sum over rows [begin, end) of x[r, c], row after row.
template <class T>
void SumRows(T* sum, View<const T, 2> x, int64_t begin, int64_t end) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t columns = x.size[1];
  int64_t c = 0;
  for (; c + 4 * lanes <= columns; c += 4 * lanes) {
    auto s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
    for (int64_t r = begin; r < end; ++r) {
      const T* row = x.data + r * x.stride[0] + c;
      s0 = hn::Add(s0, hn::LoadU(d, row));
      s1 = hn::Add(s1, hn::LoadU(d, row + lanes));
      s2 = hn::Add(s2, hn::LoadU(d, row + 2 * lanes));
      s3 = hn::Add(s3, hn::LoadU(d, row + 3 * lanes));
    }
    hn::StoreU(s0, d, sum + c);
    hn::StoreU(s1, d, sum + c + lanes);
    hn::StoreU(s2, d, sum + c + 2 * lanes);
    hn::StoreU(s3, d, sum + c + 3 * lanes);
  }
  for (; c < columns; c += lanes) {
    const size_t n = static_cast<size_t>(std::min(lanes, columns - c));
    auto s = hn::Zero(d);
    for (int64_t r = begin; r < end; ++r) {
      const T* row = x.data + r * x.stride[0] + c;
      s = hn::Add(s, static_cast<int64_t>(n) == lanes ? hn::LoadU(d, row) : LoadFirst(d, row, n));
    }
    if (static_cast<int64_t>(n) == lanes) {
      hn::StoreU(s, d, sum + c);
    } else {
      StoreFirst(d, s, sum + c, n);
    }
  }
}

void SumRowsFloat(float* sum, View<const float, 2> x, int64_t begin, int64_t end) { SumRows(sum, x, begin, end); }
void SumRowsDouble(double* sum, View<const double, 2> x, int64_t begin, int64_t end) { SumRows(sum, x, begin, end); }

}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace blockstate::kernels {

HWY_EXPORT(SumRowsFloat);
HWY_EXPORT(SumRowsDouble);

namespace cpu {
namespace {

void sum_rows(float* sum, View<const float, 2> x, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(SumRowsFloat)(sum, x, begin, end);
}
void sum_rows(double* sum, View<const double, 2> x, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(SumRowsDouble)(sum, x, begin, end);
}

constexpr int64_t kTile = 16;

// body(r, c) over a tile, stepping fastest where the stride is smaller.
template <class T, class Body>
void for_each_of_tile(View<T, 2> view, int64_t rows, int64_t columns, const Body& body) {
  if (view.stride[0] < view.stride[1]) {
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t r = 0; r < rows; ++r) {
        body(r, c);
      }
    }
    return;
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      body(r, c);
    }
  }
}

// Through a buffer, so that each side is walked along its own lines: a stride that is a power of two would otherwise
// put all lines of a tile into one set of the cache.
template <class T>
void copy_tile(View<T, 2> y, View<const T, 2> x, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  T tile[kTile][kTile];
  for_each_of_tile(x, rows, columns, [&](int64_t r, int64_t c) { tile[r][c] = x(row + r, column + c); });
  for_each_of_tile(y, rows, columns, [&](int64_t r, int64_t c) { y(row + r, column + c) = tile[r][c]; });
}

}  // namespace

template <class T>
void add_column_sums(View<T, 1> sum, View<const T, 2> x) {
  const int64_t rows = x.size[0];
  const int64_t columns = x.size[1];
  check_column_sums(sum, x);
  if (rows == 0 || columns == 0) {
    return;
  }
  // Sums of fixed pieces of rows, then the pieces in order, in double.
  const int64_t piece = std::clamp<int64_t>((int64_t{1} << 15) / columns, 16, 512);
  const int64_t pieces = (rows + piece - 1) / piece;
  const auto partial = std::make_unique_for_overwrite<T[]>(static_cast<size_t>(pieces * columns));
  parallel_for(rows, piece,
               [&](int64_t begin, int64_t end) { sum_rows(partial.get() + begin / piece * columns, x, begin, end); });
  parallel_for(columns, std::max<int64_t>(16, (int64_t{1} << 15) / pieces), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      double total = static_cast<double>(sum(c));
      for (int64_t p = 0; p < pieces; ++p) {
        total += static_cast<double>(partial[static_cast<size_t>(p * columns + c)]);
      }
      sum(c) = static_cast<T>(total);
    }
  });
}

template <class T>
void copy(View<T, 2> y, View<const T, 2> x) {
  require(y.size[0] == x.size[0] && y.size[1] == x.size[1], "copy: y is (", y.size[0], ", ", y.size[1], "), x is (",
          x.size[0], ", ", x.size[1], ")");
  const int64_t columns = x.size[1];
  if (x.elements() == 0) {
    return;
  }
  if (y.contiguous() && x.contiguous()) {
    parallel_for(x.elements(), int64_t{1} << 16, [&](int64_t begin, int64_t end) {
      std::memcpy(y.data + begin, x.data + begin, static_cast<size_t>(end - begin) * sizeof(T));
    });
    return;
  }
  const bool whole_rows = y.stride[1] == 1 && x.stride[1] == 1;
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 15) / columns / kTile) * kTile;
  parallel_for(x.size[0], grain, [&](int64_t begin, int64_t end) {
    if (whole_rows) {
      for (int64_t r = begin; r < end; ++r) {
        std::memcpy(&y(r, 0), &x(r, 0), static_cast<size_t>(columns) * sizeof(T));
      }
      return;
    }
    for (int64_t c = 0; c < columns; c += kTile) {  // down the columns: the transposed side is read in long runs
      for (int64_t r = begin; r < end; r += kTile) {
        copy_tile(y, x, r, std::min(kTile, end - r), c, std::min(kTile, columns - c));
      }
    }
  });
}

template void copy<float>(View<float, 2>, View<const float, 2>);
template void copy<double>(View<double, 2>, View<const double, 2>);
template void add_column_sums<float>(View<float, 1>, View<const float, 2>);
template void add_column_sums<double>(View<double, 1>, View<const double, 2>);

}  // namespace cpu
}  // namespace blockstate::kernels
#endif  // HWY_ONCE
