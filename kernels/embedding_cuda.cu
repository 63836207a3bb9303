// SPDX-License-Identifier: Apache-2.0
#include <type_traits>

#include "kernels/cuda_launch.cuh"
#include "kernels/embedding_check.h"
#include "kernels/row_map.cuh"
#include "kernels/segment_sums.h"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 256;
template <int kPack, class T>
__global__ void __launch_bounds__(kThreads) gather_kernel(const RowPointer<T> y, const View<const int64_t, 1> ids,
                                                          const View<const float, 2> table, const PackGrid grid) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads;
  let_next_begin();
  wait_for_earlier_work();
  if (first + threadIdx.x < grid.items) {
    const PackGrid::Place place = grid.place(first, threadIdx.x);
    const int64_t id = ids(place.row), column = place.pack * kPack;
    float value[kPack] = {};
    if (id >= 0 && id < table.size[0]) {
      load_floats<kPack>(table.data + id * table.stride[0] + column, value);
    }
    store_pack<kPack>(y.at(place.row, column), value);
  }
}

}  // namespace

template <class T>
void embedding_forward(const Exec& exec, View<T, 2> y, View<const int64_t, 1> ids, View<const float, 2> table) {
  check_embedding("embedding_forward", ids, y, table);
  const int64_t rows = y.size[0], columns = y.size[1];
  if (rows == 0 || columns == 0) {
    return;
  }
  const auto launch = [&](auto pack) {
    const PackGrid grid(rows, columns, pack());
    launch_early<gather_kernel<pack(), T>>(exec, "embedding_forward",
                                           grid_size(grid.items, kThreads, "embedding_forward"), kThreads, 0,
                                           RowPointer<T>(y), ids, table, grid);
  };
  if (rows_packed(y) && rows_aligned(table, 16)) {
    launch(std::integral_constant<int, kPackElements<T>>());
  } else {
    launch(std::integral_constant<int, 1>());
  }
}

template <class T>
void embedding_backward(const Exec& exec, View<float, 2> dtable, View<const T, 2> dy, View<const int64_t, 1> ids) {
  check_embedding("embedding_backward", ids, dy, dtable);
  SegmentRows<T> rows;
  rows.x = {dy.data, {1, dy.size[0], dy.size[1]}, {0, dy.stride[0], 1}};
  rows.key = {ids.data, {1, ids.size[0]}, {0, ids.stride[0]}};
  segment_sums(exec, "embedding_backward", dtable, rows);
}

#define BLOCKSTATE_INSTANTIATE(T)                                                                            \
  template void embedding_forward<T>(const Exec&, View<T, 2>, View<const int64_t, 1>, View<const float, 2>); \
  template void embedding_backward<T>(const Exec&, View<float, 2>, View<const T, 2>, View<const int64_t, 1>);
BLOCKSTATE_INSTANTIATE(float)
BLOCKSTATE_INSTANTIATE(BFloat16)
#undef BLOCKSTATE_INSTANTIATE

}  // namespace blockstate::kernels::cuda
