// SPDX-License-Identifier: Apache-2.0
#include "core/nn/sublayer.h"

namespace blockstate::nn {

std::string_view memory_class_name(MemoryClass memory) {
  switch (memory) {
    case MemoryClass::kBounded:
      return "bounded";
    case MemoryClass::kGrowing:
      return "growing";
    case MemoryClass::kWhole:
      break;
  }
  return "whole";
}

}  // namespace blockstate::nn
