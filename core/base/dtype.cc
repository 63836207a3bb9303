// SPDX-License-Identifier: Apache-2.0
#include "core/base/dtype.h"

#include "core/base/check.h"

namespace blockstate {
namespace {

struct Entry {
  DType dtype;
  std::string_view name;
  int64_t size;
};
constexpr Entry kEntries[] = {
    {DType::kFloat32, "float32", 4}, {DType::kFloat64, "float64", 8}, {DType::kBFloat16, "bfloat16", 2},
    {DType::kInt64, "int64", 8},     {DType::kInt32, "int32", 4},     {DType::kUInt8, "uint8", 1},
};

const Entry& entry(DType dtype) { return kEntries[static_cast<int>(dtype)]; }

}  // namespace

int64_t dtype_size(DType dtype) { return entry(dtype).size; }

std::string_view dtype_name(DType dtype) { return entry(dtype).name; }

DType parse_dtype(std::string_view name) {
  for (const Entry& candidate : kEntries) {
    if (candidate.name == name) {
      return candidate.dtype;
    }
  }
  fail("dtype \"", name, "\" is not known; choose float32, float64, bfloat16, int64, int32 or uint8");
}

}  // namespace blockstate
