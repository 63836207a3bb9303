// SPDX-License-Identifier: Apache-2.0
#include "core/tensor/tensor.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "core/tensor/place.h"
#include "kernels/copy.h"
#include "kernels/elementwise.h"

namespace blockstate {
namespace {

std::vector<int64_t> packed_strides(const Shape& shape) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= shape[i];
  }
  return strides;
}

/// Calls body(T{}) with the element type of any dtype that has a C++ type.
template <class Body>
void dispatch_any(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kFloat32:
      return body(float{});
    case DType::kFloat64:
      return body(double{});
    case DType::kInt64:
      return body(int64_t{});
    case DType::kInt32:
      return body(int32_t{});
    case DType::kUInt8:
      return body(uint8_t{});
    case DType::kBFloat16:
      return body(BFloat16{});
  }
}

/// One element in another type. bfloat16 goes by way of float.
template <class To, class From>
To converted(From value) {
  if constexpr (std::is_same_v<To, BFloat16> || std::is_same_v<From, BFloat16>) {
    return static_cast<To>(static_cast<float>(value));
  } else {
    return static_cast<To>(value);
  }
}

/// Strides that show the same elements in another shape; none where they would have to be moved.
std::optional<std::vector<int64_t>> reshaped_strides(const Shape& from, const std::vector<int64_t>& strides,
                                                     const Shape& to) {
  if (element_count(to) == 0) {
    return packed_strides(to);
  }
  std::vector<int64_t> result(to.size(), 1);
  int at = static_cast<int>(from.size()) - 1;
  int64_t run = 1, stride = 1;  // elements of `from` that lie `stride` apart and are not yet given to `to`
  for (int i = static_cast<int>(to.size()) - 1; i >= 0; --i) {
    if (to[i] == 1) {
      // Any stride would do; the next row's keeps rows that are aligned for wide loads looking so.
      const auto next = static_cast<size_t>(i) + 1;
      result[i] = next < to.size() ? result[next] * to[next] : 1;
      continue;
    }
    if (run == 1) {
      while (from[at] == 1) {
        --at;
      }
      stride = strides[at];
      run = from[at--];
    }
    // Joins dimensions of `from` until they hold this one.
    while (run % to[i] != 0) {
      while (at >= 0 && from[at] == 1) {
        --at;
      }
      if (at < 0 || strides[at] != stride * run) {
        return std::nullopt;
      }
      run *= from[at--];
    }
    result[i] = stride;
    stride *= to[i];
    run /= to[i];
  }
  return result;
}

bool on_gpu(const Tensor& tensor) { return tensor.device().kind == DeviceKind::kCuda; }

kernels::cuda::Exec exec_of(const Tensor& tensor) { return kernels::cuda::exec(tensor.device().index); }

/// Dimensions of size 1 are left out, and neighbours that lie as one are joined.
void copy_on_gpu(Tensor& to, const Tensor* from) {
  kernels::cuda::StridedCopy copy;
  copy.to = to.bytes();
  copy.from = from != nullptr ? from->bytes() : nullptr;
  copy.element_bytes = static_cast<int>(dtype_size(to.dtype()));
  for (int i = 0; i < to.rank(); ++i) {
    const int64_t size = to.shape()[i], to_stride = to.strides()[i];
    const int64_t from_stride = from != nullptr ? from->strides()[i] : to_stride;
    if (size == 1) {
      continue;
    }
    const int last = copy.rank - 1;
    if (last >= 0 && copy.to_stride[last] == to_stride * size && copy.from_stride[last] == from_stride * size) {
      copy.size[last] *= size;
      copy.to_stride[last] = to_stride;
      copy.from_stride[last] = from_stride;
      continue;
    }
    require(copy.rank < kernels::cuda::kMaxCopyRank, "a tensor of shape ", shape_text(to.shape()),
            " has too many dimensions to be copied on a GPU");
    copy.size[copy.rank] = size;
    copy.to_stride[copy.rank] = to_stride;
    copy.from_stride[copy.rank] = from_stride;
    ++copy.rank;
  }
  kernels::cuda::copy_strided(exec_of(to), copy);
}

/// Visits the contiguous runs of a strided tensor in row-major order: body(element offset, run length).
template <class Body>
void for_each_run(const Shape& shape, const std::vector<int64_t>& strides, const Body& body) {
  const int rank = static_cast<int>(shape.size());
  int64_t run = 1;
  int outer = rank;
  while (outer > 0 && (shape[outer - 1] == 1 || strides[outer - 1] == run)) {
    run *= shape[outer - 1];
    --outer;
  }
  std::vector<int64_t> index(outer, 0);
  int64_t count = 1;
  for (int i = 0; i < outer; ++i) {
    count *= shape[i];
  }
  if (run == 0) {
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    int64_t offset = 0;
    for (int d = 0; d < outer; ++d) {
      offset += index[d] * strides[d];
    }
    body(offset, run);
    for (int d = outer - 1; d >= 0 && ++index[d] == shape[d]; --d) {
      index[d] = 0;
    }
  }
}

}  // namespace

std::string shape_text(const Shape& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i ? ", " : "") + std::to_string(shape[i]);
  }
  return text + ")";
}

int64_t element_count(const Shape& shape) {
  int64_t count = 1;
  for (int64_t size : shape) {
    count *= size;
  }
  return count;
}

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  for (int64_t size : shape) {
    require(size >= 0, "a tensor cannot have shape ", shape_text(shape));
  }
  Tensor tensor;
  tensor.shape_ = shape;
  tensor.strides_ = packed_strides(shape);
  tensor.dtype_ = dtype;
  tensor.storage_ = allocate(element_count(shape) * dtype_size(dtype), device);
  return tensor;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor tensor = empty(shape, dtype, device);
  tensor.fill_zero();
  return tensor;
}

int64_t Tensor::size(int dimension) const {
  const int at = dimension < 0 ? dimension + rank() : dimension;
  require(at >= 0 && at < rank(), "dimension ", dimension, " of a tensor of shape ", shape_text(shape_));
  return shape_[at];
}

bool Tensor::contiguous() const {
  int64_t expected = 1;
  for (int i = rank() - 1; i >= 0; --i) {
    if (shape_[i] != 1 && strides_[i] != expected) {
      return false;
    }
    expected *= shape_[i];
  }
  return true;
}

Tensor Tensor::slice(int dimension, int64_t begin, int64_t end) const {
  const int64_t extent = size(dimension);
  require(0 <= begin && begin <= end && end <= extent, "slice [", begin, ", ", end, ") of dimension ", dimension,
          " of a tensor of shape ", shape_text(shape_));
  const int at = dimension < 0 ? dimension + rank() : dimension;
  Tensor part = *this;
  part.shape_[at] = end - begin;
  part.offset_ += begin * strides_[at];
  return part;
}

Tensor Tensor::reshape(const Shape& shape) const {
  Shape wanted = shape;
  const auto unknown = std::find(wanted.begin(), wanted.end(), -1);
  if (unknown != wanted.end()) {
    *unknown = 1;
    const int64_t others = element_count(wanted);
    require(others > 0 && elements() % others == 0, "cannot reshape ", shape_text(shape_), " to ", shape_text(shape));
    *unknown = elements() / others;
  }
  require(element_count(wanted) == elements(), "cannot reshape ", shape_text(shape_), " to ", shape_text(shape));
  std::optional<std::vector<int64_t>> strides = reshaped_strides(shape_, strides_, wanted);
  Tensor source = strides ? *this : packed();
  source.shape_ = wanted;
  source.strides_ = strides ? std::move(*strides) : packed_strides(wanted);
  return source;
}

Tensor Tensor::packed() const { return contiguous() ? *this : clone(); }

Tensor Tensor::clone() const {
  Tensor copy = empty(shape_, dtype_, device());
  copy.copy_from(*this);
  return copy;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) {
    return *this;
  }
  const Tensor source = packed();
  Tensor result = empty(shape_, dtype, device());
  dispatch_any(dtype_, [&](auto from) {
    dispatch_any(dtype, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      const From* read = source.data<From>();
      if (!on_gpu(source)) {
        std::transform(read, read + elements(), result.data<To>(), [](From value) { return converted<To>(value); });
        return;
      }
#if defined(BLOCKSTATE_WITH_CUDA)
      if constexpr (!std::is_same_v<From, To> && (std::is_same_v<From, float> || std::is_same_v<To, float>)) {
        kernels::cuda::convert<To, From>(exec_of(source), result.data<To>(), read, elements());
        return;
      }
#endif
      fail("a tensor of type ", dtype_name(dtype_), " on ", device_name(device()), " cannot be made ",
           dtype_name(dtype), " there");
    });
  });
  return result;
}

Tensor Tensor::to(Device device) const {
  if (!defined() || device == this->device()) {
    return *this;
  }
  Tensor result = empty(shape_, dtype_, device);
  result.copy_from(*this);
  return result;
}

void Tensor::fill_zero() {
  const int64_t width = dtype_size(dtype_);
  if (elements() == 0) {
    return;
  }
  if (on_gpu(*this)) {
    if (contiguous()) {
      kernels::cuda::fill_zero(exec_of(*this), bytes(), elements() * width);
    } else {
      copy_on_gpu(*this, nullptr);
    }
    return;
  }
  for_each_run(shape_, strides_,
               [&](int64_t offset, int64_t run) { std::memset(bytes() + offset * width, 0, run * width); });
}

void Tensor::fill(double value) {
  require(contiguous(), "only a tensor that lies in one piece can be filled");
  dispatch(*this, "fill", [&](auto on) {
    using T = typename decltype(on)::Value;
    if constexpr (decltype(on)::kCuda) {
      kernels::cuda::fill<T>(on.exec, data<T>(), static_cast<float>(value), elements());
    } else {
      std::fill_n(data<T>(), elements(), static_cast<T>(value));
    }
  });
}

void Tensor::copy_from(const Tensor& source) {
  require(source.shape_ == shape_ && source.dtype_ == dtype_, "cannot copy a tensor of shape ",
          shape_text(source.shape_), " and type ", dtype_name(source.dtype_), " into one of shape ", shape_text(shape_),
          " and type ", dtype_name(dtype_));
  if (elements() == 0) {
    return;
  }
  const int64_t width = dtype_size(dtype_);
  const bool to_gpu = on_gpu(*this), from_gpu = on_gpu(source);
  if (to_gpu && device() == source.device()) {
    copy_on_gpu(*this, &source);
  } else if (to_gpu || from_gpu) {
    require(!to_gpu || !from_gpu, "a tensor is copied between GPUs by way of the CPU");
    if (!contiguous()) {
      Tensor landing = empty(shape_, dtype_, device());
      landing.copy_from(source);
      copy_from(landing);
      return;
    }
    const Tensor packed_source = source.packed();
    const int64_t all = elements() * width;
    if (to_gpu) {
      kernels::cuda::copy_to_device(exec_of(*this), bytes(), packed_source.bytes(), all);
    } else {
      kernels::cuda::copy_to_host(exec_of(source), bytes(), packed_source.bytes(), all);
    }
  } else if (contiguous()) {
    std::byte* write = bytes();
    for_each_run(shape_, source.strides_, [&](int64_t offset, int64_t run) {
      std::memcpy(write, source.bytes() + offset * width, run * width);
      write += run * width;
    });
  } else if (source.contiguous()) {
    const std::byte* read = source.bytes();
    for_each_run(shape_, strides_, [&](int64_t offset, int64_t run) {
      std::memcpy(bytes() + offset * width, read, run * width);
      read += run * width;
    });
  } else {
    copy_from(source.clone());
  }
}

double Tensor::item() const {
  require(elements() == 1, "item() of a tensor of shape ", shape_text(shape_));
  const Tensor here = to(Device{});
  double value = 0;
  dispatch_any(dtype_, [&](auto type) { value = converted<double>(*here.data<decltype(type)>()); });
  return value;
}

void Tensor::check_dtype(DType wanted) const {
  require(defined(), "an absent tensor was read");
  require(dtype_ == wanted, "a tensor of type ", dtype_name(dtype_), " was read as ", dtype_name(wanted));
}

void Tensor::check_rank(int wanted) const {
  require(rank() == wanted, "a tensor of shape ", shape_text(shape_), " was given where ", wanted,
          " dimensions are needed");
}

void Tensor::join_dimensions(int columns, int64_t* size, int64_t* stride) const {
  const int split = rank() - columns;
  require(split >= 0, "a tensor of shape ", shape_text(shape_), " has fewer than ", columns, " dimensions");
  const int bounds[3] = {0, split, rank()};
  for (int part = 0; part < 2; ++part) {
    size[part] = 1;
    stride[part] = part == 1 ? 1 : 0;
    bool first = true;
    for (int i = bounds[part + 1] - 1; i >= bounds[part]; --i) {
      if (shape_[i] == 1) {
        continue;
      }
      if (first) {
        stride[part] = strides_[i];
        first = false;
      } else {
        require(strides_[i] == stride[part] * size[part], "a tensor of shape ", shape_text(shape_),
                " has strides that do not allow it to be seen as rows");
      }
      size[part] *= shape_[i];
    }
  }
  if (stride[0] == 0) {
    stride[0] = size[1] * stride[1];
  }
}

void accumulate(Tensor& target, const Tensor& source) {
  require(target.shape() == source.shape(), "cannot add a gradient of shape ", shape_text(source.shape()),
          " to one of shape ", shape_text(target.shape()));
  const Tensor added = source.packed();
  dispatch(target, "accumulate", [&](auto on) {
    using T = typename decltype(on)::Value;
    using P = typename decltype(on)::Parameter;
    BLOCKSTATE_KERNEL(on, accumulate, target.rows<T>(), added.rows<T>(), P(1));
  });
}

}  // namespace blockstate
