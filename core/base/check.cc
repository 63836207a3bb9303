// SPDX-License-Identifier: Apache-2.0
#include "core/base/check.h"

#include <cstdio>

namespace blockstate::detail {

void append(std::string& out, double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  out += text;
}

}  // namespace blockstate::detail
