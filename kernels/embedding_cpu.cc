// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "core/base/parallel.h"
#include "kernels/embedding_check.h"

namespace blockstate::kernels::cpu {
namespace {

void check_ids(const char* op, View<const int64_t, 1> ids, int64_t entries) {
  for (int64_t r = 0; r < ids.size[0]; ++r) {
    if (ids(r) >= entries) {
      fail(op, ": the id of row ", r, " is ", ids(r), ", but the table has ", entries, " rows");
    }
  }
}

int64_t rows_at_a_time(int64_t columns) { return std::max<int64_t>(1, (int64_t{1} << 15) / columns); }

template <class T>
void add_row(T* to, const T* from, int64_t columns) {
  for (int64_t c = 0; c < columns; ++c) {
    to[c] += from[c];
  }
}

// Few entries, each with many rows: a table of sums for each fixed piece of rows, then the pieces in order, in double.
template <class T>
void add_by_pieces(View<T, 2> dtable, View<const T, 2> dy, View<const int64_t, 1> ids, int64_t piece) {
  const int64_t rows = dy.size[0], columns = dy.size[1];
  const int64_t area = dtable.size[0] * columns;
  const int64_t pieces = (rows + piece - 1) / piece;
  const auto partial = std::make_unique<T[]>(static_cast<size_t>(pieces * area));
  parallel_for(rows, piece, [&](int64_t begin, int64_t end) {
    T* sums = partial.get() + begin / piece * area;
    for (int64_t r = begin; r < end; ++r) {
      if (ids(r) >= 0) {
        add_row(sums + ids(r) * columns, dy.data + r * dy.stride[0], columns);
      }
    }
  });
  parallel_for(area, std::max<int64_t>(16, (int64_t{1} << 15) / pieces), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T& sum = dtable(i / columns, i % columns);
      double total = static_cast<double>(sum);
      for (int64_t p = 0; p < pieces; ++p) {
        total += static_cast<double>(partial[static_cast<size_t>(p * area + i)]);
      }
      sum = static_cast<T>(total);
    }
  });
}

// Many entries: the rows are sorted by id, keeping their order, and each entry adds its own.
template <class T>
void add_by_entry(View<T, 2> dtable, View<const T, 2> dy, View<const int64_t, 1> ids) {
  const int64_t rows = dy.size[0], columns = dy.size[1];
  std::vector<std::pair<int64_t, int64_t>> order;  // (id, row)
  for (int64_t r = 0; r < rows; ++r) {
    if (ids(r) >= 0) {
      order.emplace_back(ids(r), r);
    }
  }
  std::sort(order.begin(), order.end());
  std::vector<int64_t> starts;  // in `order`, of each id present
  for (size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || order[i].first != order[i - 1].first) {
      starts.push_back(static_cast<int64_t>(i));
    }
  }
  const int64_t present = static_cast<int64_t>(starts.size());
  starts.push_back(static_cast<int64_t>(order.size()));
  parallel_for(present, std::max<int64_t>(1, rows_at_a_time(columns) / 4), [&](int64_t begin, int64_t end) {
    for (int64_t i = starts[static_cast<size_t>(begin)]; i < starts[static_cast<size_t>(end)]; ++i) {
      const auto& [id, r] = order[static_cast<size_t>(i)];
      add_row(dtable.data + id * dtable.stride[0], dy.data + r * dy.stride[0], columns);
    }
  });
}

}  // namespace

template <class T>
void embedding_forward(View<T, 2> y, View<const int64_t, 1> ids, View<const T, 2> table) {
  const int64_t rows = y.size[0], columns = y.size[1];
  check_embedding("embedding_forward", ids, y, table);
  check_ids("embedding_forward", ids, table.size[0]);
  if (columns == 0) {
    return;
  }
  parallel_for(rows, rows_at_a_time(columns), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      T* to = y.data + r * y.stride[0];
      if (ids(r) < 0) {
        std::fill(to, to + columns, T(0));
      } else {
        std::memcpy(to, table.data + ids(r) * table.stride[0], static_cast<size_t>(columns) * sizeof(T));
      }
    }
  });
}

template <class T>
void embedding_backward(View<T, 2> dtable, View<const T, 2> dy, View<const int64_t, 1> ids) {
  const int64_t rows = dy.size[0], columns = dy.size[1];
  check_embedding("embedding_backward", ids, dy, dtable);
  check_ids("embedding_backward", ids, dtable.size[0]);
  if (rows == 0 || columns == 0 || dtable.size[0] == 0) {
    return;
  }
  constexpr int64_t kPiece = 2048;
  if (dtable.size[0] <= kPiece / 8) {  // the tables of sums stay small beside dy
    add_by_pieces(dtable, dy, ids, kPiece);
  } else {
    add_by_entry(dtable, dy, ids);
  }
}

template void embedding_forward<float>(View<float, 2>, View<const int64_t, 1>, View<const float, 2>);
template void embedding_forward<double>(View<double, 2>, View<const int64_t, 1>, View<const double, 2>);
template void embedding_backward<float>(View<float, 2>, View<const float, 2>, View<const int64_t, 1>);
template void embedding_backward<double>(View<double, 2>, View<const double, 2>, View<const int64_t, 1>);

}  // namespace blockstate::kernels::cpu
