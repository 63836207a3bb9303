// SPDX-License-Identifier: Apache-2.0
// An angle is counted in turns, as a 64-bit fraction: position times turns a step, modulo 2^64, drops the whole turns
// exactly. What is lost is the rounding of the turns a step, 2^-65, times the position: 2^-25 turns at 2^40.
#include <cmath>
#include <vector>

#include "kernels/rotary_check.h"
#include "kernels/row_map.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kInlineTurns = 256;  // pass as arguments of the launch; more go through memory

struct Turns {
  uint64_t step[kInlineTurns];
  const uint64_t* far;
};

template <class T>
struct RotaryArguments {
  View<T, 4> y;
  View<const T, 4> x;
  View<const int64_t, 2> position;
  PackGrid grid;  // (B * L, P / 2)
  float sign;
};

// A thread turns one pack of pairs of all heads of a step: the sines are paid once for them.
template <int kPack, class T>
__global__ void __launch_bounds__(kThreads)
    rotary_kernel(const RotaryArguments<T> args, const __grid_constant__ Turns turns) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads;
  if (first + threadIdx.x >= args.grid.items) {
    return;
  }
  const auto place = args.grid.place(first, threadIdx.x);
  const int64_t L = args.x.size[1], H = args.x.size[2], half = args.grid.columns;
  const int64_t b = place.row / L, t = place.row - b * L, p = place.pack * kPack;
  const int64_t position = args.position(b, t);
  const T* from = args.x.data + b * args.x.stride[0] + t * args.x.stride[1] + p;
  T* to = args.y.data + b * args.y.stride[0] + t * args.y.stride[1] + p;
  float cosine[kPack], sine[kPack];
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    const uint64_t step = turns.far == nullptr ? turns.step[p + i] : turns.far[p + i];
    const int64_t turn = static_cast<int64_t>(static_cast<uint64_t>(position) * step);  // 2^-64 of a turn
    sincospif(static_cast<float>(turn) * 0x1p-63f, &sine[i], &cosine[i]);
    if (position < 0) {
      cosine[i] = 1;
      sine[i] = 0;
    }
    sine[i] *= args.sign;
  }
#pragma unroll 4
  for (int64_t h = 0; h < H; ++h) {
    float a[kPack], c[kPack], left[kPack], right[kPack];
    load_pack<kPack>(from + h * args.x.stride[2], a);
    load_pack<kPack>(from + h * args.x.stride[2] + half, c);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      left[i] = position < 0 ? a[i] : a[i] * cosine[i] - c[i] * sine[i];  // padding may hold what has no product
      right[i] = position < 0 ? c[i] : c[i] * cosine[i] + a[i] * sine[i];
    }
    store_pack<kPack>(to + h * args.y.stride[2], left);
    store_pack<kPack>(to + h * args.y.stride[2] + half, right);
  }
}

/// Turns a step of each frequency, in units of 2^-64; none is as much as a turn.
std::vector<uint64_t> turns_of(int64_t half, double base) {
  constexpr long double kTwoPi = 6.283185307179586476925286766559L;
  std::vector<uint64_t> turns;
  for (int64_t p = 0; p < half; ++p) {
    const long double turn =
        std::pow(static_cast<long double>(base), -static_cast<long double>(p) / static_cast<long double>(half)) /
        kTwoPi;
    turns.push_back(static_cast<uint64_t>(std::floor((turn - std::floor(turn)) * 0x1p64L + 0.5L)));
  }
  return turns;
}

}  // namespace

template <class T>
void rotary(const Exec& exec, View<T, 4> y, View<const T, 4> x, View<const int64_t, 2> position, double base,
            bool inverse) {
  check_rotary(y, x, position);
  const int64_t half = x.size[3] / 2;
  if (x.elements() == 0) {
    return;
  }
  const std::vector<uint64_t> steps = turns_of(half, base);
  Turns turns = {};
  const bool inlined = half <= kInlineTurns;
  const Scratch<uint64_t> far(exec, inlined ? 0 : half);
  if (inlined) {
    std::copy(steps.begin(), steps.end(), turns.step);
  } else {
    copy_to_device(exec, far.get(), steps.data(), half * static_cast<int64_t>(sizeof(uint64_t)));
    turns.far = far.get();
  }
  const auto launch = [&](auto kernel, int pack) {
    const RotaryArguments<T> args{y, x, position, PackGrid(x.size[0] * x.size[1], half, pack), inverse ? -1.0f : 1.0f};
    kernel<<<grid_size(args.grid.items, kThreads, "rotary"), kThreads, 0, stream_of(exec)>>>(args, turns);
    check_launch(exec, "rotary");
  };
  if (half % kPackElements<T> == 0 && rows_aligned(x, 16) && rows_aligned(y, 16)) {
    launch(rotary_kernel<kPackElements<T>, T>, kPackElements<T>);
  } else {
    launch(rotary_kernel<1, T>, 1);
  }
}

template void rotary<float>(const Exec&, View<float, 4>, View<const float, 4>, View<const int64_t, 2>, double, bool);
template void rotary<BFloat16>(const Exec&, View<BFloat16, 4>, View<const BFloat16, 4>, View<const int64_t, 2>, double,
                               bool);

}  // namespace blockstate::kernels::cuda
