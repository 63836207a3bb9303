// SPDX-License-Identifier: Apache-2.0
#include "core/autograd/ops.h"
#include "core/autograd/ops_support.h"
#include "kernels/tail.h"

namespace blockstate::ops {

Variable reshape(const Variable& x, const Shape& shape) {
  return record_one("reshape", x.value().reshape(shape), {x},
                    [from = x.shape()](const Tensor& dy) { return std::vector<Tensor>{dy.reshape(from)}; });
}

std::vector<Variable> split(const Variable& x, int dimension, const std::vector<int64_t>& sizes) {
  std::vector<Tensor> parts;
  int64_t begin = 0;
  for (const int64_t size : sizes) {
    parts.push_back(x.value().slice(dimension, begin, begin + size));
    begin += size;
  }
  require(begin == x.size(dimension), "split: sizes add up to ", begin, ", dimension ", dimension, " has ",
          x.size(dimension));
  return record("split", parts, {x},
                [from = x.shape(), dtype = x.dtype(), device = x.value().device(), dimension,
                 sizes](const std::vector<Tensor>& grads) {
                  Tensor dx = Tensor::empty(from, dtype, device);
                  int64_t start = 0;
                  for (size_t i = 0; i < sizes.size(); ++i) {
                    Tensor part = dx.slice(dimension, start, start + sizes[i]);
                    grads[i].defined() ? part.copy_from(grads[i]) : part.fill_zero();
                    start += sizes[i];
                  }
                  return std::vector<Tensor>{dx};
                });
}

Variable slice(const Variable& x, int dimension, int64_t begin, int64_t end) {
  return split(x, dimension, {begin, end - begin, x.size(dimension) - end})[1];
}

Variable concat(const std::vector<Variable>& parts, int dimension) {
  std::vector<Variable> present;
  for (const Variable& part : parts) {
    if (part.defined()) {
      present.push_back(part);
    }
  }
  require(!present.empty(), "concat: no parts");
  if (present.size() == 1) {
    return present[0];
  }
  Shape shape = present[0].shape();
  const size_t at = dimension < 0 ? dimension + shape.size() : dimension;
  shape[at] = 0;
  std::vector<int64_t> sizes;
  for (const Variable& part : present) {
    sizes.push_back(part.size(dimension));
    shape[at] += sizes.back();
  }
  Tensor joined = Tensor::empty(shape, present[0].dtype(), present[0].value().device());
  int64_t begin = 0;
  for (size_t i = 0; i < present.size(); ++i) {
    joined.slice(dimension, begin, begin + sizes[i]).copy_from(present[i].value());
    begin += sizes[i];
  }
  return record_one("concat", joined, present, [sizes, dimension](const Tensor& dy) {
    std::vector<Tensor> grads;
    int64_t start = 0;
    for (int64_t size : sizes) {
      grads.push_back(dy.slice(dimension, start, start + size).packed());
      start += size;
    }
    return grads;
  });
}

Variable tail(const Variable& past, const Variable& x, const Tensor& end, const Tensor& known, int64_t keep) {
  Tensor y = Tensor::empty({x.size(0), keep, x.size(2)}, x.dtype(), x.value().device());
  dispatch(x.value(), "tail", [&](auto on) {
    using T = typename decltype(on)::Value;
    BLOCKSTATE_KERNEL(on, tail_forward, y.view<T, 3>(), past.value().view<T, 3>(), x.value().view<T, 3>(),
                      end.view<int64_t, 1>(), known.view<int64_t, 1>());
  });
  const Shape past_shape = past.defined() ? past.shape() : Shape();
  return record_one(
      "tail", y, {past, x}, [past_shape, x_shape = x.shape(), dtype = x.dtype(), end, known](const Tensor& dy) {
        Tensor dpast = past_shape.empty() ? Tensor() : Tensor::empty(past_shape, dtype, dy.device());
        Tensor dx = Tensor::empty(x_shape, dtype, dy.device());
        dispatch(dy, "tail", [&](auto on) {
          using T = typename decltype(on)::Value;
          BLOCKSTATE_KERNEL(on, tail_backward, dpast.view<T, 3>(), dx.view<T, 3>(), rows_ready(dy).view<T, 3>(),
                            end.view<int64_t, 1>(), known.view<int64_t, 1>());
        });
        return std::vector<Tensor>{dpast, dx};
      });
}

}  // namespace blockstate::ops
