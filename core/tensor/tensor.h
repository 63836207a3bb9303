// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "core/base/device.h"
#include "core/base/dtype.h"
#include "core/base/view.h"
#include "core/tensor/allocator.h"

namespace blockstate {

using Shape = std::vector<int64_t>;

std::string shape_text(const Shape& shape);  ///< "(2, 37, 16)"
int64_t element_count(const Shape& shape);

/// A handle to a strided array. Copies of the handle share the elements. New tensors are row-major without gaps;
/// slices keep the strides of what they were cut from.
class Tensor {
 public:
  Tensor() = default;  ///< undefined: stands for "absent"

  static Tensor empty(const Shape& shape, DType dtype, Device device = {});
  static Tensor zeros(const Shape& shape, DType dtype, Device device = {});
  template <class T>
  static Tensor from(const Shape& shape, const std::vector<T>& values) {
    Tensor tensor = empty(shape, kDTypeOf<T>);
    require(static_cast<int64_t>(values.size()) == tensor.elements(), "a tensor of shape ", shape_text(shape),
            " cannot hold ", values.size(), " values");
    std::copy(values.begin(), values.end(), tensor.data<T>());
    return tensor;
  }

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  const std::vector<int64_t>& strides() const { return strides_; }
  int rank() const { return static_cast<int>(shape_.size()); }
  /// Size of a dimension; negative counts from the last.
  int64_t size(int dimension) const;
  int64_t elements() const { return element_count(shape_); }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_->device; }
  bool contiguous() const;
  /// True where no other handle, slice or graph node shares the elements, so they may be overwritten.
  bool unique() const { return storage_.use_count() == 1; }

  /// First element, in the memory of the tensor's device. Error if T is not the tensor's type.
  template <class T>
  T* data() const {
    check_dtype(kDTypeOf<T>);
    return reinterpret_cast<T*>(storage_->data) + offset_;
  }
  std::byte* bytes() const { return storage_->data + offset_ * dtype_size(dtype_); }

  /// What a kernel takes. Undefined tensors give absent views. Error if the rank or type differs.
  template <class T, int R>
  View<T, R> view() const {
    View<T, R> view;
    if (!defined()) {
      return view;
    }
    check_rank(R);
    view.data = data<T>();
    for (int i = 0; i < R; ++i) {
      view.size[i] = shape_[i];
      view.stride[i] = strides_[i];
    }
    return view;
  }

  /// The same elements seen as rows: all dimensions but the last `columns` ones joined into one, those into another.
  /// Error where the strides do not allow it.
  template <class T>
  View<T, 2> rows(int columns = 1) const {
    View<T, 2> view;
    if (!defined()) {
      return view;
    }
    view.data = data<T>();
    join_dimensions(columns, view.size, view.stride);
    return view;
  }

  /// Elements [begin, end) of one dimension, sharing memory.
  Tensor slice(int dimension, int64_t begin, int64_t end) const;
  /// Same elements, another shape (one size may be -1). Shares memory where strides allow, else copies.
  Tensor reshape(const Shape& shape) const;
  /// Itself if contiguous, else a copy.
  Tensor packed() const;
  Tensor clone() const;
  /// A copy in another type (on the CPU any two; on a GPU float32 and any other); itself if the type is the same.
  Tensor to(DType dtype) const;
  /// A copy on another device; itself if it is there.
  Tensor to(Device device) const;
  void fill_zero();
  void fill(double value);
  /// Copies the elements of a tensor of the same shape and type, from any device.
  void copy_from(const Tensor& source);

  /// The single element as a double; waits for the device.
  double item() const;

 private:
  void check_dtype(DType wanted) const;
  void check_rank(int wanted) const;
  void join_dimensions(int columns, int64_t* size, int64_t* stride) const;

  Shape shape_;
  std::vector<int64_t> strides_;
  DType dtype_ = DType::kFloat32;
  int64_t offset_ = 0;
  std::shared_ptr<Storage> storage_;
};

/// Calls body(T{}) with the type that CPU kernels compute in for `dtype`. Error naming `op` for any other type.
template <class Body>
auto dispatch_float(DType dtype, const char* op, const Body& body) {
  if (dtype == DType::kFloat32) {
    return body(float{});
  }
  require(dtype == DType::kFloat64, op, ": ", dtype_name(dtype),
          " is not computed on the CPU; use float32 (or float64 for checks)");
  return body(double{});
}

/// target += source, in place.
void accumulate(Tensor& target, const Tensor& source);

}  // namespace blockstate
