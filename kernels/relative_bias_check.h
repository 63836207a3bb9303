// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/relative_bias.h"
#include "kernels/view_check.h"

namespace blockstate::kernels {

template <class T, class U>
void check_relative_bias(const char* op, const char* bias_name, View<T, 2> bias, const char* table_name,
                         View<U, 2> table, View<const int64_t, 1> bucket) {
  check_view(op, table_name, table, {table.size[0], table.size[1]});
  check_view(op, "bucket", bucket, {bucket.size[0]});
  check_view(op, bias_name, bias, {table.size[1], bucket.size[0]});
}

}  // namespace blockstate::kernels
