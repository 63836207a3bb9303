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
  PackGrid grid;       // (B * L, H * P / 2)
  FastDivide by_head;  // packs of half a head
  float sign;
};

struct SineCosine {
  float sine;
  float cosine;
};

/// Of an angle in 2^-32 turns: the nearest quarter turn is taken off exactly, and polynomials (of least error on an
/// eighth of a turn to both sides) do the rest.
__device__ inline SineCosine sine_cosine(uint32_t turn) {
  const uint32_t quarter = (turn + 0x20000000u) >> 30;
  const float x =
      static_cast<float>(static_cast<int32_t>(turn - (quarter << 30))) * 1.4629180792671596e-9f;  // 2 pi / 2^32
  const float square = x * x;
  float sine = fmaf(square, -1.958789071e-4f, 8.332747966e-3f);
  sine = fmaf(sine, square, -1.666666418e-1f);
  sine = fmaf(sine * square, x, x);
  float cosine = fmaf(square, 2.454794230e-5f, -1.388830249e-3f);
  cosine = fmaf(cosine, square, 4.166666418e-2f);
  cosine = fmaf(cosine, square, -0.5f);
  cosine = fmaf(cosine, square, 1.0f);
  const bool swap = quarter & 1;
  const float first = swap ? cosine : sine, second = swap ? sine : cosine;
  return {quarter & 2 ? -first : first, (quarter + 1) & 2 ? -second : second};
}

// A thread turns one pack of pairs of one head. The sines are made anew for each head: they cost less than walking
// through memory in strides of a head would.
template <int kPack, class T>
__global__ void __launch_bounds__(kThreads)
    rotary_kernel(const RotaryArguments<T> args, const __grid_constant__ Turns turns) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads;
  if (first + threadIdx.x >= args.grid.items) {
    return;
  }
  const auto place = args.grid.place(first, threadIdx.x);
  const int64_t L = args.x.size[1], half = args.x.size[3] / 2, b = place.row / L, t = place.row - b * L;
  const uint32_t h = args.by_head.quotient(static_cast<uint32_t>(place.pack));
  const uint32_t p = (static_cast<uint32_t>(place.pack) - h * args.by_head.divisor()) * kPack;
  const T* from = args.x.data + b * args.x.stride[0] + t * args.x.stride[1] + h * args.x.stride[2] + p;
  T* to = args.y.data + b * args.y.stride[0] + t * args.y.stride[1] + h * args.y.stride[2] + p;
  const int64_t position = args.position(b, t);
  float left[kPack], right[kPack];
  load_pack<kPack>(from, left);
  load_pack<kPack>(from + half, right);
  if (position >= 0) {  // padding may hold what has no product
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      const uint64_t step = turns.far == nullptr ? turns.step[p + i] : turns.far[p + i];
      const uint64_t turn =
          static_cast<uint64_t>(position) * step + 0x80000000u;  // 2^-64 of a turn, to be cut to 2^-32
      const SineCosine angle = sine_cosine(static_cast<uint32_t>(turn >> 32));
      const float sine = angle.sine * args.sign, x = left[i];
      left[i] = x * angle.cosine - right[i] * sine;
      right[i] = right[i] * angle.cosine + x * sine;
    }
  }
  store_pack<kPack>(to, left);
  store_pack<kPack>(to + half, right);
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
  require(x.size[2] * half < int64_t{1} << 31, "rotary: ", x.size[2], " heads of ", x.size[3], " are too many");
  const auto launch = [&](auto kernel, int pack) {
    const RotaryArguments<T> args{y,
                                  x,
                                  position,
                                  PackGrid(x.size[0] * x.size[1], x.size[2] * half, pack),
                                  FastDivide(static_cast<uint32_t>(half / pack)),
                                  inverse ? -1.0f : 1.0f};
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
