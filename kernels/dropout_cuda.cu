// SPDX-License-Identifier: Apache-2.0
// A Philox block decides over four neighbouring columns, so a thread takes whole blocks; the masks are the CPU's, bit
// for bit, because both ask dropout_draw's function of (key, record, position, column).
#include <cmath>

#include "kernels/elementwise_check.h"
#include "kernels/row_map.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
struct DropoutArguments {
  RowPointer<T> y;
  RowPointer<const T> x;
  View<const int64_t, 1> record;
  View<const int64_t, 1> position;
  PackGrid grid;
  uint64_t key;
  uint32_t threshold;
  float factor;
};

// Where rows are not made of whole packs, the elements of a pack are moved one by one.
template <bool kPacked, class T>
__global__ void __launch_bounds__(kThreads) dropout_kernel(const DropoutArguments<T> args) {
  constexpr int kPack = kPackElements<T>;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads;
  if (first + threadIdx.x >= args.grid.items) {
    return;
  }
  const PackGrid::Place place = args.grid.place(first, threadIdx.x);
  const int64_t column = place.pack * kPack, count = args.grid.columns - column;
  const int64_t position = args.position(place.row);
  const uint64_t key = mix_key(args.key, static_cast<uint64_t>(args.record(place.row)));
  const T* from = args.x.at(place.row, column);
  T* to = args.y.at(place.row, column);
  float x[kPack];
  if (kPacked) {
    load_pack<kPack>(from, x);
  } else {
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      x[i] = i < count ? to_float(from[i]) : 0.0f;
    }
  }
#pragma unroll
  for (int block = 0; block < kPack / 4; ++block) {
    const Philox draw(key, static_cast<uint64_t>(position), (static_cast<uint64_t>(column) >> 2) + block);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& value = x[4 * block + i];
      value = position >= 0 && draw.word[i] >> 8 >= args.threshold ? value * args.factor : 0.0f;
    }
  }
  if (kPacked) {
    store_pack<kPack>(to, x);
  } else {
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      if (i < count) {
        to[i] = from_float<T>(x[i]);
      }
    }
  }
}

}  // namespace

template <class T>
void dropout(const Exec& exec, const Dropout<T>& args) {
  check_dropout(args);
  const int64_t rows = args.x.size[0], columns = args.x.size[1];
  if (rows == 0 || columns == 0) {
    return;
  }
  DropoutArguments<T> given;
  given.y = RowPointer<T>(args.y);
  given.x = RowPointer<const T>(args.x);
  given.record = args.record;
  given.position = args.position;
  given.grid = PackGrid(rows, columns, kPackElements<T>);
  given.key = args.key;
  given.threshold = static_cast<uint32_t>(std::ceil(double{args.rate} * 0x1p24));  // unit_float(word) >= rate
  given.factor = 1.0f / (1.0f - args.rate);
  const bool packed = rows_packed(args.x) && rows_packed(args.y);
  const auto kernel = packed ? dropout_kernel<true, T> : dropout_kernel<false, T>;
  kernel<<<grid_size(given.grid.items, kThreads, "dropout"), kThreads, 0, stream_of(exec)>>>(given);
  check_launch(exec, "dropout");
}

template void dropout<float>(const Exec&, const Dropout<float>&);
template void dropout<BFloat16>(const Exec&, const Dropout<BFloat16>&);

}  // namespace blockstate::kernels::cuda
