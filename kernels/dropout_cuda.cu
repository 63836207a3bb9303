// SPDX-License-Identifier: Apache-2.0
// A Philox block decides over four neighbouring columns, so a thread takes whole blocks; the masks are the CPU's, bit
// for bit, because both ask dropout_draw's function of (key, record, position, column).
#include <cmath>

#include "kernels/elementwise_check.h"
#include "kernels/row_map.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPacksPerThread = 2;

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

// Without alignment the elements of a pack are moved one by one.
template <bool kAligned, class T>
__global__ void __launch_bounds__(kThreads) dropout_kernel(const DropoutArguments<T> args) {
  constexpr int kPack = kPackElements<T>;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * (kThreads * kPacksPerThread);
  float x[kPacksPerThread][kPack];
  PackGrid::Place place[kPacksPerThread];
  int64_t position[kPacksPerThread], count[kPacksPerThread];
  uint64_t key[kPacksPerThread];
#pragma unroll
  for (int k = 0; k < kPacksPerThread; ++k) {
    const uint32_t step = k * kThreads + threadIdx.x;
    count[k] = 0;
    if (first + step < args.grid.items) {
      place[k] = args.grid.place(first, step);
      place[k].pack *= kPack;
      count[k] = args.grid.columns - place[k].pack;
      position[k] = args.position(place[k].row);
      key[k] = static_cast<uint64_t>(args.record(place[k].row));
      const T* from = args.x.at(place[k].row, place[k].pack);
      if (kAligned) {
        load_some<kPack>(from, count[k], x[k]);
      } else {
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          x[k][i] = i < count[k] ? to_float(from[i]) : 0.0f;
        }
      }
    }
  }
#pragma unroll
  for (int k = 0; k < kPacksPerThread; ++k) {
    if (count[k] == 0) {
      continue;
    }
    const uint64_t mixed = mix_key(args.key, key[k]);
#pragma unroll
    for (int block = 0; block < kPack / 4; ++block) {
      const Philox draw(mixed, static_cast<uint64_t>(position[k]), (static_cast<uint64_t>(place[k].pack) >> 2) + block);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& value = x[k][4 * block + i];
        value = position[k] >= 0 && draw.word[i] >> 8 >= args.threshold ? value * args.factor : 0.0f;
      }
    }
    T* to = args.y.at(place[k].row, place[k].pack);
    if (kAligned) {
      store_some<kPack>(to, count[k], x[k]);
    } else {
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        if (i < count[k]) {
          to[i] = from_float<T>(x[k][i]);
        }
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
  const bool aligned = rows_aligned(args.x, 16) && rows_aligned(args.y, 16);
  const auto kernel = aligned ? dropout_kernel<true, T> : dropout_kernel<false, T>;
  kernel<<<grid_size(given.grid.items, kThreads * kPacksPerThread, "dropout"), kThreads, 0, stream_of(exec)>>>(given);
  check_launch(exec, "dropout");
}

template void dropout<float>(const Exec&, const Dropout<float>&);
template void dropout<BFloat16>(const Exec&, const Dropout<BFloat16>&);

}  // namespace blockstate::kernels::cuda
