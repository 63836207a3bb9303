// SPDX-License-Identifier: Apache-2.0
#include "kernels/row_map.cuh"
#include "kernels/tail_check.h"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// Elements are moved, not computed with: Word is as many of them as the alignment allows.
template <class T, class Word>
struct TailArguments {
  View<T, 3> y, past, x;  // y the shorter one; in the backward pass it is read, and past and x are written
  View<const int64_t, 1> end, known;
  PackGrid grid;
  int64_t rows;  // of a sequence: those of y, or those of past and x

  __device__ Word* at(const View<T, 3>& view, int64_t b, int64_t row, int64_t pack) const {
    using Plain = std::remove_const_t<T>;
    return reinterpret_cast<Word*>(const_cast<Plain*>(view.data) + b * view.stride[0] + row * view.stride[1]) + pack;
  }
};

template <bool kForward, class T, class Word>
__global__ void __launch_bounds__(kThreads) tail_kernel(const TailArguments<T, Word> args) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads;
  if (first + threadIdx.x >= args.grid.items) {
    return;
  }
  const auto place = args.grid.place(first, threadIdx.x);
  const int64_t b = place.row / args.rows, row = place.row % args.rows;
  const int64_t P = args.past ? args.past.size[1] : 0, Y = args.y.size[1];
  const Word zero = {};
  if (kForward) {
    const int64_t source = tail_source(row, Y, P, args.end(b), args.known(b));
    *args.at(args.y, b, row, place.pack) = source < 0   ? zero
                                           : source < P ? *args.at(args.past, b, source, place.pack)
                                                        : *args.at(args.x, b, source - P, place.pack);
  } else {
    const int64_t target = tail_target(row, Y, P, args.end(b), args.known(b));
    Word* to = row < P ? args.at(args.past, b, row, place.pack) : args.at(args.x, b, row - P, place.pack);
    *to = target < 0 ? zero : *args.at(args.y, b, target, place.pack);
  }
}

template <class T>
View<T, 3> mutable_view(const View<const T, 3>& from) {
  View<T, 3> view;
  view.data = const_cast<T*>(from.data);
  for (int i = 0; i < 3; ++i) {
    view.size[i] = from.size[i];
    view.stride[i] = from.stride[i];
  }
  return view;
}

template <bool kForward, class T, class Word>
void launch(const Exec& exec, const char* op, View<T, 3> y, View<T, 3> past, View<T, 3> x, View<const int64_t, 1> end,
            View<const int64_t, 1> known) {
  constexpr int kPack = static_cast<int>(sizeof(Word) / sizeof(T));
  TailArguments<T, Word> args{y, past, x, end, known, {}, 0};
  args.rows = kForward ? y.size[1] : (past ? past.size[1] : 0) + x.size[1];
  args.grid = PackGrid(y.size[0] * args.rows, y.size[2], kPack);
  if (args.grid.items > 0) {
    tail_kernel<kForward, T, Word><<<grid_size(args.grid.items, kThreads, op), kThreads, 0, stream_of(exec)>>>(args);
    check_launch(exec, op);
  }
}

template <bool kForward, class T>
void run(const Exec& exec, const char* op, View<T, 3> y, View<T, 3> past, View<T, 3> x, View<const int64_t, 1> end,
         View<const int64_t, 1> known) {
  check_tail(op, y, past, x, end, known);
  if (y.size[0] == 0 || y.size[2] == 0) {
    return;
  }
  if (y.size[2] % kPackElements<T> == 0 && rows_aligned(y, 16) && rows_aligned(x, 16) &&
      (!past || rows_aligned(past, 16))) {
    launch<kForward, T, uint4>(exec, op, y, past, x, end, known);
  } else {
    launch<kForward, T, T>(exec, op, y, past, x, end, known);
  }
}

}  // namespace

template <class T>
void tail_forward(const Exec& exec, View<T, 3> y, View<const T, 3> past, View<const T, 3> x, View<const int64_t, 1> end,
                  View<const int64_t, 1> known) {
  run<true, T>(exec, "tail_forward", y, mutable_view(past), mutable_view(x), end, known);
}

template <class T>
void tail_backward(const Exec& exec, View<T, 3> dpast, View<T, 3> dx, View<const T, 3> dy, View<const int64_t, 1> end,
                   View<const int64_t, 1> known) {
  run<false, T>(exec, "tail_backward", mutable_view(dy), dpast, dx, end, known);
}

#define BLOCKSTATE_INSTANTIATE(T)                                                                                    \
  template void tail_forward<T>(const Exec&, View<T, 3>, View<const T, 3>, View<const T, 3>, View<const int64_t, 1>, \
                                View<const int64_t, 1>);                                                             \
  template void tail_backward<T>(const Exec&, View<T, 3>, View<T, 3>, View<const T, 3>, View<const int64_t, 1>,      \
                                 View<const int64_t, 1>);
BLOCKSTATE_INSTANTIATE(float)
BLOCKSTATE_INSTANTIATE(BFloat16)
#undef BLOCKSTATE_INSTANTIATE

}  // namespace blockstate::kernels::cuda
