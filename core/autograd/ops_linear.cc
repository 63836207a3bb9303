// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>

#include "core/autograd/ops.h"
#include "core/autograd/ops_support.h"
#include "core/base/profile.h"
#include "kernels/embedding.h"
#include "kernels/gemm.h"

namespace blockstate::ops {
namespace {

/// c = op(a) op(b) + beta c (+ bias); c may be more precise than its factors.
template <class C, class On>
void product(On on, View<C, 2> c, View<const typename On::Value, 2> a, View<const typename On::Value, 2> b,
             bool transpose_a, bool transpose_b, typename On::Parameter beta,
             View<const typename On::Parameter, 1> bias = {}) {
  using T = typename On::Value;
  using P = typename On::Parameter;
  kernels::Gemm<T, C, P> args;
  args.c = c;
  args.a = a;
  args.b = b;
  args.bias = bias;
  args.transpose_a = transpose_a;
  args.transpose_b = transpose_b;
  args.beta = beta;
  if constexpr (On::kCuda) {
    kernels::cuda::gemm<T, C>(on.exec, args);
  } else {
    kernels::cpu::gemm<T>(args);
  }
  const int64_t depth = transpose_a ? a.size[0] : a.size[1];
  profile::add_flops(2.0 * static_cast<double>(c.size[0]) * static_cast<double>(c.size[1]) *
                     static_cast<double>(depth));
}

/// Gradients of the pieces side by side, zeros where none arrived.
Tensor joined(const std::vector<Tensor>& grads, const std::vector<int64_t>& sizes) {
  Shape shape;
  DType dtype = DType::kFloat32;
  Device device;
  for (const Tensor& grad : grads) {
    if (grad.defined()) {
      shape = grad.shape();
      dtype = grad.dtype();
      device = grad.device();
    }
  }
  shape.back() = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  Tensor all = Tensor::empty(shape, dtype, device);
  int64_t begin = 0;
  for (size_t i = 0; i < grads.size(); ++i) {
    Tensor piece = all.slice(-1, begin, begin + sizes[i]);
    grads[i].defined() ? piece.copy_from(grads[i]) : piece.fill_zero();
    begin += sizes[i];
  }
  return all;
}

/// What the backward of y = x W^T + bias needs. `weight` is of x's type; the parameters may be more precise.
struct LinearSaved {
  Tensor x, weight, parameter, bias;
  std::shared_ptr<Edge> x_edge, weight_leaf, bias_leaf;
  std::vector<int64_t> sizes;  // columns of the pieces of y
};

/// `grads`: of the pieces, undefined where none arrived.
std::vector<Tensor> linear_backward(const LinearSaved& saved, const std::vector<Tensor>& grads) {
  const Tensor &x = saved.x, &weight = saved.weight;
  const bool narrow = weight.size(0) <= weight.size(1);
  if (narrow && std::count_if(grads.begin(), grads.end(), [](const Tensor& grad) { return grad.defined(); }) > 1) {
    // Each product over a narrow piece would go over all of dx again: joined, they go once.
    LinearSaved whole = saved;
    whole.sizes = {weight.size(0)};
    return linear_backward(whole, {joined(grads, saved.sizes)});
  }
  const bool need_dx = saved.x_edge != nullptr;
  const Tensor dx_so_far = pending_grad(saved.x_edge);
  const bool adds = dx_so_far.defined() && dx_so_far.dtype() == x.dtype() && dx_so_far.shape() == x.shape();
  Tensor dx = adds ? dx_so_far : need_dx ? empty_like(x) : Tensor();
  const Tensor dweight_so_far = pending_grad(saved.weight_leaf);
  const bool adds_weight = dweight_so_far.defined();
  Tensor dweight = adds_weight ? dweight_so_far : empty_like(saved.parameter);
  const GradSum dbias(saved.bias_leaf, saved.bias);
  bool first = !adds;
  int64_t begin = 0;
  for (size_t i = 0; i < grads.size(); ++i) {
    const int64_t end = begin + saved.sizes[i];
    Tensor dpiece = dweight.slice(0, begin, end);
    if (grads[i].defined()) {
      const Tensor dy = rows_ready(grads[i]);
      dispatch(x, "linear", [&](auto on) {
        using T = typename decltype(on)::Value;
        using P = typename decltype(on)::Parameter;
        const View<const T, 2> rows = dy.rows<T>();
        if (need_dx) {
          product<T>(on, dx.rows<T>(), rows, weight.slice(0, begin, end).view<T, 2>(), false, false,
                     first ? P(0) : P(1));
        }
        product<P>(on, dpiece.view<P, 2>(), rows, x.rows<T>(), true, false, adds_weight ? P(1) : P(0));
        if (saved.bias.defined()) {
          BLOCKSTATE_KERNEL(on, add_column_sums, dbias->slice(0, begin, end).template view<P, 1>(), rows);
        }
      });
      first = false;
    } else if (!adds_weight) {
      dpiece.fill_zero();
    }
    begin = end;
  }
  if (first && need_dx) {
    dx.fill_zero();
  }
  return {adds ? Tensor() : dx, adds_weight ? Tensor() : dweight, dbias.rest()};
}

}  // namespace

std::vector<Variable> linear_split(const Variable& x, const Variable& weight, const std::vector<int64_t>& sizes,
                                   const Variable& bias) {
  const Tensor input = rows_ready(x.value());
  require(weight.value().rank() == 2 && input.size(-1) == weight.size(1), "linear: input of shape ",
          shape_text(x.shape()), " does not fit a weight of shape ", shape_text(weight.shape()));
  int64_t columns = 0;
  for (int64_t size : sizes) {
    columns += size;
  }
  require(columns == weight.size(0), "linear: ", columns, " columns asked for, the weight has ", weight.size(0));
  Shape shape = x.shape();
  shape.back() = columns;
  Tensor y = Tensor::empty(shape, x.dtype(), input.device());
  const Tensor factor = rounded_value(weight, x.dtype());
  dispatch(input, "linear", [&](auto on) {
    using T = typename decltype(on)::Value;
    using P = typename decltype(on)::Parameter;
    product<T>(on, y.rows<T>(), input.rows<T>(), factor.view<T, 2>(), false, true, P(0), bias.value().view<P, 1>());
  });
  std::vector<Tensor> outputs;
  int64_t begin = 0;
  for (int64_t size : sizes) {
    outputs.push_back(y.slice(-1, begin, begin + size));
    begin += size;
  }
  return record(
      "linear", outputs, {x, weight, bias},
      [saved = LinearSaved{input, factor, weight.value(), bias.value(), x.edge(), leaf_edge(weight), leaf_edge(bias),
                           sizes}](const std::vector<Tensor>& grads) { return linear_backward(saved, grads); });
}

Variable linear(const Variable& x, const Variable& weight, const Variable& bias) {
  return linear_split(x, weight, {weight.size(0)}, bias)[0];
}

Variable embedding(const Tensor& ids, const Variable& table) {
  Shape shape = ids.shape();
  shape.push_back(table.size(1));
  Tensor y = Tensor::empty(shape, table.dtype(), table.value().device());
  const Tensor flat = ids.reshape({-1});
  dispatch_exact(table.value(), "embedding", [&](auto on) {
    using T = typename decltype(on)::Value;
    BLOCKSTATE_KERNEL(on, embedding_forward, y.rows<T>(), flat.view<int64_t, 1>(), table.value().view<T, 2>());
  });
  return record_one("embedding", y, {table}, [flat, value = table.value(), leaf = leaf_edge(table)](const Tensor& dy) {
    const GradSum dtable(leaf, value);
    dispatch_exact(dy, "embedding", [&](auto on) {
      using T = typename decltype(on)::Value;
      BLOCKSTATE_KERNEL(on, embedding_backward, dtable->view<T, 2>(), rows_ready(dy).rows<T>(),
                        flat.view<int64_t, 1>());
    });
    return std::vector<Tensor>{dtable.rest()};
  });
}

}  // namespace blockstate::ops
