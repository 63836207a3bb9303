// SPDX-License-Identifier: Apache-2.0
// Shapes of the functions of pool.h. T is the type of activations, P that of weights and sums.
#pragma once

#include "kernels/pool.h"
#include "kernels/view_check.h"

namespace blockstate::kernels {

template <class T, class P>
void check_pool(const char* op, View<const T, 3> x, View<const P, 2> weight, View<const int64_t, 2> record,
                int64_t records, int64_t columns, int64_t y_stride) {
  const int64_t batch = x.size[0], length = x.size[1];
  require(x.size[2] == columns && weight.size[0] == batch && weight.size[1] == length && record.size[0] == batch &&
              record.size[1] == length,
          op, ": x is (", batch, ", ", length, ", ", x.size[2], "), weight (", weight.size[0], ", ", weight.size[1],
          "), record (", record.size[0], ", ", record.size[1], "), y (", records, ", ", columns, ")");
  require(columns <= 1 || (x.stride[2] == 1 && y_stride == 1), op, ": the last stride of x and y must be 1, found ",
          x.stride[2], " and ", y_stride);
}

template <class T, class P>
void check_pool_gradients(View<T, 3> dx, View<P, 2> dweight, View<const T, 3> x) {
  const int64_t batch = x.size[0], length = x.size[1], columns = x.size[2];
  require(dx.size[0] == batch && dx.size[1] == length && dx.size[2] == columns && (columns <= 1 || dx.stride[2] == 1),
          "pool_backward: dx is (", dx.size[0], ", ", dx.size[1], ", ", dx.size[2], ") with last stride ", dx.stride[2],
          ", wanted (", batch, ", ", length, ", ", columns, ") with 1");
  require(!dweight || (dweight.size[0] == batch && dweight.size[1] == length), "pool_backward: dweight is (",
          dweight.size[0], ", ", dweight.size[1], "), wanted (", batch, ", ", length, ")");
}

template <class T, class P>
void check_pool_weights_forward(View<P, 2> weight, View<const T, 2> score, View<const int64_t, 2> record,
                                View<const P, 1> shift) {
  const char* op = "pool_weights_forward";
  const int64_t shape[] = {score.size[0], score.size[1]};
  check_view(op, "score", score, shape);
  check_view(op, "weight", weight, shape);
  check_view(op, "record", record, shape);
  check_view(op, "shift", shift, {shift.size[0]});
}

template <class T, class P>
void check_pool_weights_backward(View<T, 2> dscore, View<const P, 2> dweight, View<const P, 2> weight) {
  const char* op = "pool_weights_backward";
  const int64_t shape[] = {weight.size[0], weight.size[1]};
  check_view(op, "weight", weight, shape);
  check_view(op, "dweight", dweight, shape);
  check_view(op, "dscore", dscore, shape);
}

template <class T>
void check_divide_rows_forward(View<T, 2> y, View<const T, 2> x, View<const T, 1> weight) {
  const int64_t shape[] = {x.size[0], x.size[1]};
  check_view("divide_rows_forward", "x", x, shape);
  check_view("divide_rows_forward", "y", y, shape);
  check_view("divide_rows_forward", "weight", weight, {shape[0]});
}

template <class T>
void check_divide_rows_backward(View<T, 2> dx, View<T, 1> dweight, View<const T, 2> dy, View<const T, 2> y,
                                View<const T, 1> weight) {
  const char* op = "divide_rows_backward";
  const int64_t shape[] = {dy.size[0], dy.size[1]};
  check_view(op, "dy", dy, shape);
  check_view(op, "y", y, shape);
  check_view(op, "dx", dx, shape);
  check_view(op, "weight", weight, {shape[0]});
  check_view(op, "dweight", dweight, {shape[0]});
}

template <class T>
void check_scale_rows(View<T, 2> y, View<const T, 2> x, View<const T, 1> factor) {
  const int64_t shape[] = {x.size[0], x.size[1]};
  check_view("scale_rows", "x", x, shape);
  check_view("scale_rows", "y", y, shape);
  check_view("scale_rows", "factor", factor, {shape[0]});
}

}  // namespace blockstate::kernels
