// SPDX-License-Identifier: Apache-2.0
#include "kernels/pool_check.h"
#include "kernels/row_map.cuh"
#include "kernels/segment_sums.h"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) zero_kernel(View<float, 2> y, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) {
    y(i / y.size[1], i % y.size[1]) = 0;
  }
}

constexpr int kStepsAtOnce = 4;  // of one warp, so that their loads are under way together

// A warp a few steps: dx = weight * dy[record], and the sum of x * dy. x and dx may be the same.
template <int kPack, class T>
__global__ void __launch_bounds__(kThreads)
    spread_kernel(const View<T, 3> dx, const View<float, 2> dweight, const View<const float, 2> dy,
                  const View<const T, 3> x, const View<const float, 2> weight, const View<const int64_t, 2> record,
                  int64_t steps) {
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / 32 * kStepsAtOnce;
  if (first >= steps) {
    return;
  }
  const int64_t columns = x.size[2];
  int64_t b[kStepsAtOnce], t[kStepsAtOnce];
  const float* gradient_row[kStepsAtOnce];  // null: padding
  float w[kStepsAtOnce], sum[kStepsAtOnce] = {};
#pragma unroll
  for (int k = 0; k < kStepsAtOnce; ++k) {
    const int64_t step = first + k < steps ? first + k : first;  // the last warp may read a step twice
    b[k] = x.size[0] == 1 ? 0 : step / x.size[1];
    t[k] = step - b[k] * x.size[1];
    const int64_t r = record(b[k], t[k]);
    const bool seen = r >= 0 && r < dy.size[0];
    gradient_row[k] = seen ? dy.data + r * dy.stride[0] : nullptr;
    w[k] = weight(b[k], t[k]);
  }
  for (int64_t column = threadIdx.x % 32 * kPack; column < columns; column += 32 * kPack) {
    float gradient[kStepsAtOnce][kPack], value[kStepsAtOnce][kPack];
#pragma unroll
    for (int k = 0; k < kStepsAtOnce; ++k) {
      if (dweight) {
        load_pack<kPack>(x.data + b[k] * x.stride[0] + t[k] * x.stride[1] + column, value[k]);
      }
    }
#pragma unroll
    for (int k = 0; k < kStepsAtOnce; ++k) {
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        gradient[k][i] = 0;
      }
      if (gradient_row[k] != nullptr) {
        load_floats<kPack>(gradient_row[k] + column, gradient[k]);
      }
    }
#pragma unroll
    for (int k = 0; k < kStepsAtOnce; ++k) {
      float out[kPack];
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        if (dweight && gradient_row[k] != nullptr) {
          sum[k] = fmaf(value[k][i], gradient[k][i], sum[k]);
        }
        out[i] = gradient_row[k] != nullptr ? w[k] * gradient[k][i] : 0.0f;
      }
      if (k == 0 || first + k < steps) {
        store_pack<kPack>(dx.data + b[k] * dx.stride[0] + t[k] * dx.stride[1] + column, out);
      }
    }
  }
  if (dweight) {
#pragma unroll
    for (int k = 0; k < kStepsAtOnce; ++k) {
      const float total = warp_sum(sum[k]);
      if (threadIdx.x % 32 == 0 && first + k < steps) {
        dweight(b[k], t[k]) = total;
      }
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    weights_kernel(const View<float, 2> weight, const View<const T, 2> score, const View<const int64_t, 2> record,
                   const View<const float, 1> shift, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) {
    const int64_t b = i / score.size[1], t = i % score.size[1], r = record(b, t);
    weight(b, t) = r >= 0 && r < shift.size[0] ? expf(to_float(score(b, t)) - shift(r)) : 0.0f;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    weights_backward_kernel(const View<T, 2> dscore, const View<const float, 2> dweight,
                            const View<const float, 2> weight, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) {
    const int64_t b = i / weight.size[1], t = i % weight.size[1];
    dscore(b, t) = from_float<T>(dweight(b, t) * weight(b, t));
  }
}

template <bool kDivide>
__global__ void __launch_bounds__(kThreads) rows_kernel(const View<float, 2> y, const View<const float, 2> x,
                                                        const View<const float, 1> factor, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) {
    const int64_t r = i / x.size[1], d = i % x.size[1];
    y(r, d) = kDivide ? x(r, d) / factor(r) : x(r, d) * factor(r);
  }
}

// A warp a row.
__global__ void __launch_bounds__(kThreads)
    divide_rows_backward_kernel(const View<float, 2> dx, const View<float, 1> dweight, const View<const float, 2> dy,
                                const View<const float, 2> y, const View<const float, 1> weight) {
  const int64_t r = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / 32;
  if (r >= dy.size[0]) {
    return;
  }
  const float w = weight(r);
  float sum = 0;
  for (int64_t d = threadIdx.x % 32; d < dy.size[1]; d += 32) {
    const float gradient = dy(r, d) / w;
    sum = fmaf(-gradient, y(r, d), sum);
    dx(r, d) = gradient;
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) {
    dweight(r) = sum;
  }
}

template <class Kernel, class... Arguments>
void launch_each(const Exec& exec, const char* op, int64_t count, Kernel kernel, const Arguments&... arguments) {
  if (count > 0) {
    kernel<<<grid_size(count, kThreads, op), kThreads, 0, stream_of(exec)>>>(arguments..., count);
    check_launch(exec, op);
  }
}

}  // namespace

template <class T>
void pool_forward(const Exec& exec, View<float, 2> y, View<const T, 3> x, View<const float, 2> weight,
                  View<const int64_t, 2> record) {
  check_pool("pool_forward", x, weight, record, y.size[0], y.size[1], y.stride[1]);
  launch_each(exec, "pool_forward", y.elements(), zero_kernel, y);
  segment_sums(exec, "pool_forward", y, SegmentRows<T>{x, record, weight});
}

template <class T>
void pool_backward(const Exec& exec, View<T, 3> dx, View<float, 2> dweight, View<const float, 2> dy, View<const T, 3> x,
                   View<const float, 2> weight, View<const int64_t, 2> record) {
  const char* op = "pool_backward";
  check_pool(op, x, weight, record, dy.size[0], dy.size[1], dy.stride[1]);
  check_pool_gradients(dx, dweight, x);
  const int64_t steps = x.size[0] * x.size[1];
  if (steps == 0) {
    return;
  }
  const bool packed = rows_packed(dx) && rows_packed(x) && rows_aligned(dy, 16);
  const auto kernel = packed ? spread_kernel<kPackElements<T>, T> : spread_kernel<1, T>;
  kernel<<<grid_size(steps, kThreads / 32 * kStepsAtOnce, op), kThreads, 0, stream_of(exec)>>>(dx, dweight, dy, x,
                                                                                               weight, record, steps);
  check_launch(exec, op);
}

template <class T>
void pool_weights_forward(const Exec& exec, View<float, 2> weight, View<const T, 2> score,
                          View<const int64_t, 2> record, View<const float, 1> shift) {
  check_pool_weights_forward(weight, score, record, shift);
  launch_each(exec, "pool_weights_forward", score.elements(), weights_kernel<T>, weight, score, record, shift);
}

template <class T>
void pool_weights_backward(const Exec& exec, View<T, 2> dscore, View<const float, 2> dweight,
                           View<const float, 2> weight) {
  check_pool_weights_backward(dscore, dweight, weight);
  launch_each(exec, "pool_weights_backward", weight.elements(), weights_backward_kernel<T>, dscore, dweight, weight);
}

template <>
void divide_rows_forward<float>(const Exec& exec, View<float, 2> y, View<const float, 2> x,
                                View<const float, 1> weight) {
  check_divide_rows_forward(y, x, weight);
  launch_each(exec, "divide_rows_forward", x.elements(), rows_kernel<true>, y, x, weight);
}

template <>
void divide_rows_backward<float>(const Exec& exec, View<float, 2> dx, View<float, 1> dweight, View<const float, 2> dy,
                                 View<const float, 2> y, View<const float, 1> weight) {
  check_divide_rows_backward(dx, dweight, dy, y, weight);
  if (dy.size[0] > 0) {
    divide_rows_backward_kernel<<<grid_size(dy.size[0], kThreads / 32, "divide_rows_backward"), kThreads, 0,
                                  stream_of(exec)>>>(dx, dweight, dy, y, weight);
    check_launch(exec, "divide_rows_backward");
  }
}

template <>
void scale_rows<float>(const Exec& exec, View<float, 2> y, View<const float, 2> x, View<const float, 1> factor) {
  check_scale_rows(y, x, factor);
  launch_each(exec, "scale_rows", x.elements(), rows_kernel<false>, y, x, factor);
}

#define BLOCKSTATE_INSTANTIATE(T)                                                                                 \
  template void pool_forward<T>(const Exec&, View<float, 2>, View<const T, 3>, View<const float, 2>,              \
                                View<const int64_t, 2>);                                                          \
  template void pool_backward<T>(const Exec&, View<T, 3>, View<float, 2>, View<const float, 2>, View<const T, 3>, \
                                 View<const float, 2>, View<const int64_t, 2>);                                   \
  template void pool_weights_forward<T>(const Exec&, View<float, 2>, View<const T, 2>, View<const int64_t, 2>,    \
                                        View<const float, 1>);                                                    \
  template void pool_weights_backward<T>(const Exec&, View<T, 2>, View<const float, 2>, View<const float, 2>);
BLOCKSTATE_INSTANTIATE(float)
BLOCKSTATE_INSTANTIATE(BFloat16)
#undef BLOCKSTATE_INSTANTIATE

}  // namespace blockstate::kernels::cuda
