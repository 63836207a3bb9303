// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/parallel.h"
#include "kernels/pool_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/pool_cpu.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first
#include "kernels/row_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {

// sum[c] += factor * x[c]
template <class T>
void AddScaledRow(T* HWY_RESTRICT sum, const T* x, T factor, int64_t columns) {
  const hn::ScalableTag<T> d;
  const auto f = hn::Set(d, factor);
  ForEachVector(d, columns, [&](int64_t i, auto access) HWY_ATTR {
    access.Store(d, hn::MulAdd(f, access.Load(d, x + i), access.Load(d, sum + i)), sum + i);
  });
}

// dx[c] = factor * dy[c]; returns the sum of x * dy. x and dx may be the same.
template <class T>
T SpreadRow(T* dx, const T* dy, const T* x, T factor, int64_t columns) {
  const hn::ScalableTag<T> d;
  const auto f = hn::Set(d, factor);
  auto sum = hn::Zero(d);
  ForEachVector(d, columns, [&](int64_t i, auto access) HWY_ATTR {
    const auto gradient = access.Load(d, dy + i);
    sum = hn::MulAdd(gradient, access.Load(d, x + i), sum);
    access.Store(d, hn::Mul(f, gradient), dx + i);
  });
  return Total(d, sum);
}

void AddScaledRowFloat(float* sum, const float* x, float factor, int64_t columns) {
  AddScaledRow(sum, x, factor, columns);
}
void AddScaledRowDouble(double* sum, const double* x, double factor, int64_t columns) {
  AddScaledRow(sum, x, factor, columns);
}
float SpreadRowFloat(float* dx, const float* dy, const float* x, float factor, int64_t columns) {
  return SpreadRow(dx, dy, x, factor, columns);
}
double SpreadRowDouble(double* dx, const double* dy, const double* x, double factor, int64_t columns) {
  return SpreadRow(dx, dy, x, factor, columns);
}

}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace blockstate::kernels {

HWY_EXPORT(AddScaledRowFloat);
HWY_EXPORT(AddScaledRowDouble);
HWY_EXPORT(SpreadRowFloat);
HWY_EXPORT(SpreadRowDouble);

namespace cpu {
namespace {

void add_scaled_row(float* sum, const float* x, float factor, int64_t columns) {
  HWY_DYNAMIC_DISPATCH(AddScaledRowFloat)(sum, x, factor, columns);
}
void add_scaled_row(double* sum, const double* x, double factor, int64_t columns) {
  HWY_DYNAMIC_DISPATCH(AddScaledRowDouble)(sum, x, factor, columns);
}
float spread_row(float* dx, const float* dy, const float* x, float factor, int64_t columns) {
  return HWY_DYNAMIC_DISPATCH(SpreadRowFloat)(dx, dy, x, factor, columns);
}
double spread_row(double* dx, const double* dy, const double* x, double factor, int64_t columns) {
  return HWY_DYNAMIC_DISPATCH(SpreadRowDouble)(dx, dy, x, factor, columns);
}

void check_records(const char* op, View<const int64_t, 2> record, int64_t records) {
  for (int64_t b = 0; b < record.size[0]; ++b) {
    for (int64_t t = 0; t < record.size[1]; ++t) {
      if (record(b, t) >= records) {
        fail(op, ": record[", b, ", ", t, "] is ", record(b, t), ", but y has ", records, " rows");
      }
    }
  }
}

// The sum over one run of steps of one record.
template <class T>
struct Run {
  int64_t record;
  std::vector<T> sum;
};

int64_t steps_at_a_time(int64_t columns) {
  return std::clamp<int64_t>((int64_t{1} << 15) / std::max<int64_t>(columns, 1), 1, 1024);
}

}  // namespace

template <class T>
void pool_forward(View<T, 2> y, View<const T, 3> x, View<const T, 2> weight, View<const int64_t, 2> record) {
  const int64_t records = y.size[0], columns = y.size[1];
  check_pool("pool_forward", x, weight, record, records, columns, y.stride[1]);
  check_records("pool_forward", record, records);
  for (int64_t r = 0; r < records; ++r) {
    std::fill(y.data + r * y.stride[0], y.data + r * y.stride[0] + columns, T(0));
  }
  const int64_t length = x.size[1];
  const int64_t steps = x.size[0] * length;
  if (steps == 0 || columns == 0) {
    return;
  }
  // Fixed pieces of steps give the sums of their runs; the runs are then added in order.
  const int64_t piece = steps_at_a_time(columns);
  std::vector<std::vector<Run<T>>> runs(static_cast<size_t>((steps + piece - 1) / piece));
  parallel_for(steps, piece, [&](int64_t begin, int64_t end) {
    std::vector<Run<T>>& mine = runs[static_cast<size_t>(begin / piece)];
    for (int64_t step = begin; step < end; ++step) {
      const int64_t b = step / length, t = step % length;
      const int64_t r = record(b, t);
      if (r < 0) {
        continue;
      }
      if (mine.empty() || mine.back().record != r) {
        mine.push_back({r, std::vector<T>(static_cast<size_t>(columns))});
      }
      add_scaled_row(mine.back().sum.data(), x.data + b * x.stride[0] + t * x.stride[1], weight(b, t), columns);
    }
  });
  for (const auto& of_piece : runs) {
    for (const Run<T>& run : of_piece) {
      add_scaled_row(y.data + run.record * y.stride[0], run.sum.data(), T(1), columns);
    }
  }
}

template <class T>
void pool_backward(View<T, 3> dx, View<T, 2> dweight, View<const T, 2> dy, View<const T, 3> x, View<const T, 2> weight,
                   View<const int64_t, 2> record) {
  const int64_t columns = dy.size[1];
  check_pool("pool_backward", x, weight, record, dy.size[0], columns, dy.stride[1]);
  check_records("pool_backward", record, dy.size[0]);
  check_pool_gradients(dx, dweight, x);
  const int64_t batch = x.size[0], length = x.size[1];
  parallel_for(batch * length, steps_at_a_time(columns), [&](int64_t begin, int64_t end) {
    for (int64_t step = begin; step < end; ++step) {
      const int64_t b = step / length, t = step % length;
      const int64_t r = record(b, t);
      T* out = dx.data + b * dx.stride[0] + t * dx.stride[1];
      T product = 0;
      if (r < 0) {
        std::fill(out, out + columns, T(0));
      } else {
        product = spread_row(out, dy.data + r * dy.stride[0], x.data + b * x.stride[0] + t * x.stride[1], weight(b, t),
                             columns);
      }
      if (dweight) {
        dweight(b, t) = product;
      }
    }
  });
}

// What follows works on one number a step or a row, or once a record: its cost vanishes beside any (B, L, D) op, so
// plain loops serve.

template <class T>
void pool_weights_forward(View<T, 2> weight, View<const T, 2> score, View<const int64_t, 2> record,
                          View<const T, 1> shift) {
  check_pool_weights_forward(weight, score, record, shift);
  for (int64_t b = 0; b < score.size[0]; ++b) {
    for (int64_t t = 0; t < score.size[1]; ++t) {
      const int64_t r = record(b, t);
      if (r >= shift.size[0]) {
        fail("pool_weights_forward: record[", b, ", ", t, "] is ", r, ", but shift has ", shift.size[0], " elements");
      }
      weight(b, t) = r < 0 ? T(0) : std::exp(score(b, t) - shift(r));
    }
  }
}

template <class T>
void pool_weights_backward(View<T, 2> dscore, View<const T, 2> dweight, View<const T, 2> weight) {
  check_pool_weights_backward(dscore, dweight, weight);
  for (int64_t b = 0; b < weight.size[0]; ++b) {
    for (int64_t t = 0; t < weight.size[1]; ++t) {
      dscore(b, t) = dweight(b, t) * weight(b, t);
    }
  }
}

template <class T>
void divide_rows_forward(View<T, 2> y, View<const T, 2> x, View<const T, 1> weight) {
  check_divide_rows_forward(y, x, weight);
  for (int64_t r = 0; r < x.size[0]; ++r) {
    for (int64_t d = 0; d < x.size[1]; ++d) {
      y(r, d) = x(r, d) / weight(r);
    }
  }
}

template <class T>
void divide_rows_backward(View<T, 2> dx, View<T, 1> dweight, View<const T, 2> dy, View<const T, 2> y,
                          View<const T, 1> weight) {
  check_divide_rows_backward(dx, dweight, dy, y, weight);
  for (int64_t r = 0; r < dy.size[0]; ++r) {
    T sum = 0;
    for (int64_t d = 0; d < dy.size[1]; ++d) {
      const T gradient = dy(r, d) / weight(r);
      sum -= gradient * y(r, d);
      dx(r, d) = gradient;
    }
    dweight(r) = sum;
  }
}

template <class T>
void scale_rows(View<T, 2> y, View<const T, 2> x, View<const T, 1> factor) {
  check_scale_rows(y, x, factor);
  for (int64_t r = 0; r < x.size[0]; ++r) {
    for (int64_t d = 0; d < x.size[1]; ++d) {
      y(r, d) = x(r, d) * factor(r);
    }
  }
}

#define BLOCKSTATE_INSTANTIATE(T)                                                                                      \
  template void pool_forward<T>(View<T, 2>, View<const T, 3>, View<const T, 2>, View<const int64_t, 2>);               \
  template void pool_backward<T>(View<T, 3>, View<T, 2>, View<const T, 2>, View<const T, 3>, View<const T, 2>,         \
                                 View<const int64_t, 2>);                                                              \
  template void pool_weights_forward<T>(View<T, 2>, View<const T, 2>, View<const int64_t, 2>, View<const T, 1>);       \
  template void pool_weights_backward<T>(View<T, 2>, View<const T, 2>, View<const T, 2>);                              \
  template void divide_rows_forward<T>(View<T, 2>, View<const T, 2>, View<const T, 1>);                                \
  template void divide_rows_backward<T>(View<T, 2>, View<T, 1>, View<const T, 2>, View<const T, 2>, View<const T, 1>); \
  template void scale_rows<T>(View<T, 2>, View<const T, 2>, View<const T, 1>);
BLOCKSTATE_INSTANTIATE(float)
BLOCKSTATE_INSTANTIATE(double)
#undef BLOCKSTATE_INSTANTIATE

}  // namespace cpu
}  // namespace blockstate::kernels
#endif  // HWY_ONCE
