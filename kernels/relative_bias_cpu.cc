// SPDX-License-Identifier: Apache-2.0
// Plain loops: a table of some buckets by some heads, read once a forward pass.
#include "kernels/relative_bias_check.h"

namespace blockstate::kernels::cpu {
namespace {

void check_buckets(const char* op, View<const int64_t, 1> bucket, int64_t buckets) {
  for (int64_t m = 0; m < bucket.size[0]; ++m) {
    if (bucket(m) < 0 || bucket(m) >= buckets) {
      fail(op, ": bucket[", m, "] is ", bucket(m), ", but the table has ", buckets, " rows");
    }
  }
}

}  // namespace

template <class T>
void relative_bias_forward(View<T, 2> bias, View<const T, 2> table, View<const int64_t, 1> bucket) {
  check_relative_bias("relative_bias_forward", "bias", bias, "table", table, bucket);
  check_buckets("relative_bias_forward", bucket, table.size[0]);
  for (int64_t h = 0; h < bias.size[0]; ++h) {
    for (int64_t m = 0; m < bias.size[1]; ++m) {
      bias(h, m) = table(bucket(m), h);
    }
  }
}

template <class T>
void relative_bias_backward(View<T, 2> dtable, View<const T, 2> dbias, View<const int64_t, 1> bucket) {
  check_relative_bias("relative_bias_backward", "dbias", dbias, "dtable", dtable, bucket);
  check_buckets("relative_bias_backward", bucket, dtable.size[0]);
  for (int64_t h = 0; h < dbias.size[0]; ++h) {
    for (int64_t m = 0; m < dbias.size[1]; ++m) {
      dtable(bucket(m), h) += dbias(h, m);
    }
  }
}

#define BLOCKSTATE_INSTANTIATE(T)                                                               \
  template void relative_bias_forward<T>(View<T, 2>, View<const T, 2>, View<const int64_t, 1>); \
  template void relative_bias_backward<T>(View<T, 2>, View<const T, 2>, View<const int64_t, 1>);
BLOCKSTATE_INSTANTIATE(float)
BLOCKSTATE_INSTANTIATE(double)
#undef BLOCKSTATE_INSTANTIATE

}  // namespace blockstate::kernels::cpu
