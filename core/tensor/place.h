// SPDX-License-Identifier: Apache-2.0
// From a tensor to the kernel of its device and type. Included by .cc files that call kernels.
#pragma once

#include "core/tensor/tensor.h"
#include "kernels/cuda_exec.h"

namespace blockstate {

/// An op runs on the CPU, in T.
template <class T>
struct OnCpu {
  static constexpr bool kCuda = false;
  using Value = T;      ///< activations
  using Parameter = T;  ///< parameters, states and sums
};

/// An op runs on a GPU: activations are T, everything that must be exact is float.
template <class T>
struct OnCuda {
  static constexpr bool kCuda = true;
  using Value = T;
  using Parameter = float;
  kernels::cuda::Exec exec;
};

/// Calls body(on) with the place where ops on tensors of this device and type run. Error naming `op` for types that
/// are not computed there.
template <class Body>
void dispatch(Device device, DType dtype, const char* op, const Body& body) {
  if (device.kind == DeviceKind::kCpu) {
    dispatch_float(dtype, op, [&](auto type) { body(OnCpu<decltype(type)>()); });
    return;
  }
#if defined(BLOCKSTATE_WITH_CUDA)
  const kernels::cuda::Exec exec = kernels::cuda::exec(device.index);
  if (dtype == DType::kFloat32) {
    body(OnCuda<float>{exec});
  } else {
    require(dtype == DType::kBFloat16, op, ": ", dtype_name(dtype),
            " is not computed on CUDA devices; use float32 or bfloat16");
    body(OnCuda<BFloat16>{exec});
  }
#endif
}

template <class Body>
void dispatch(const Tensor& like, const char* op, const Body& body) {
  dispatch(like.device(), like.dtype(), op, body);
}

}  // namespace blockstate

/// Calls a kernel where `on` says: kernels::cpu::NAME<T>(...) or kernels::cuda::NAME<T>(exec, ...).
#define BLOCKSTATE_KERNEL(on, name, ...)                                         \
  do {                                                                           \
    if constexpr (decltype(on)::kCuda) {                                         \
      kernels::cuda::name<typename decltype(on)::Value>((on).exec, __VA_ARGS__); \
    } else {                                                                     \
      kernels::cpu::name<typename decltype(on)::Value>(__VA_ARGS__);             \
    }                                                                            \
  } while (false)
