// SPDX-License-Identifier: Apache-2.0
// Shapes of the functions of pool.h. T is the type of activations, P that of weights and sums.
#pragma once

#include "kernels/pool.h"
#include "kernels/view_check.h"

namespace blockstate::kernels {

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
