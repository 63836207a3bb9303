// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>
#include <type_traits>

#include "core/base/bfloat16.h"

namespace blockstate {

/// Element types of tensors (docs/numerics.md). float64 serves checks on the CPU; bfloat16 lives on CUDA devices.
/// Complex parameters are stored as float32 with a last dimension of 2 (re, im).
enum class DType : uint8_t { kFloat32, kFloat64, kBFloat16, kInt64, kInt32, kUInt8 };

int64_t dtype_size(DType dtype);
/// The type of states, sums and statistics over activations of this type.
inline DType state_dtype(DType activations) { return activations == DType::kBFloat16 ? DType::kFloat32 : activations; }
std::string_view dtype_name(DType dtype);
/// Accepts "float32", "float64", "bfloat16", "int64", "int32", "uint8"; Error otherwise.
DType parse_dtype(std::string_view name);

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType kValue = DType::kFloat32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType kValue = DType::kFloat64;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType kValue = DType::kBFloat16;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType kValue = DType::kInt64;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType kValue = DType::kInt32;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType kValue = DType::kUInt8;
};

template <class T>
inline constexpr DType kDTypeOf = DTypeOf<std::remove_cv_t<T>>::kValue;

}  // namespace blockstate
