// SPDX-License-Identifier: Apache-2.0
// Backward of the selective scan inside one tile of one group of channels. With g the gradient of the state after a
// step and ybar that of v (selective_scan.h):
//   g_t = ybar_t C_t + a_{t+1} g_{t+1};  dC_t = sum_d ybar h;  dB_t = sum_d g dt u;  du = D ybar + dt sum_n g B
//   q = a_t g_t h_{t-1};  dA = sum_t q dt;  d(dt) = sum_n (g B u + q A);  dD = sum_t ybar u
// A tile is rebuilt from its checkpoint, four states at a time, keeping decays and states; then walked backwards.
#if defined(BLOCKSTATE_KERNELS_SELECTIVE_SCAN_BWD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BLOCKSTATE_KERNELS_SELECTIVE_SCAN_BWD_INL_H_
#undef BLOCKSTATE_KERNELS_SELECTIVE_SCAN_BWD_INL_H_
#else
#define BLOCKSTATE_KERNELS_SELECTIVE_SCAN_BWD_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/aligned_allocator.h"
#include "kernels/lane_sums-inl.h"
#include "kernels/selective_scan-inl.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {

inline constexpr int64_t kSums = 2 * kPass;  // dB and dC of the states of a pass
static_assert(kLaneSums == 2 * kSums, "products of two steps are summed at a time");

template <class T>
struct BackwardScratch {
  BackwardScratch(int64_t lanes, int64_t states)
      : memory(hwy::AllocateAligned<T>(static_cast<size_t>((8 + 2 * kPass) * kTile * lanes + kPass * lanes +
                                                           (2 * states + kLaneSums) * lanes + 2 * kTile * states +
                                                           states))) {
    T* next = memory.get();
    const auto take = [&next](int64_t count) {
      T* taken = next;
      next += count;
      return taken;
    };
    for (T** tile : {&dt, &w, &ybar, &v, &gB, &qA, &slope, &gate}) {
      *tile = take(kTile * lanes);
    }
    a = take(kPass * kTile * lanes);
    h = take(kPass * (kTile + 1) * lanes);
    start = take(states * lanes);
    decay = take(states * lanes);
    products = take(kLaneSums * lanes);
    B = take(kTile * states);
    C = take(kTile * states);
    bound = take(states);
  }
  hwy::AlignedFreeUniquePtr<T[]> memory;
  T *dt, *w, *ybar, *v, *gB, *qA, *slope, *gate;  // a tile each; gB = sum_n g B, qA = sum_n q A (base-2 A)
  T *a, *h;          // (steps [+ 1], kPass, lanes): decays, and the states before each step (row t + 1: after step t)
  T *start, *decay;  // states: those of the checkpoint; A in base-2 units
  T* products;       // of two steps, to be summed over the lanes
  T *B, *C, *bound;
};

// What is summed over time (and later over the batch) by one group, and the gradient it carries to the left.
template <class T>
struct GroupSums {
  T* carry;  // states: a_t g_t of the earliest step done
  T* dA;     // states
  T* dD;     // lanes
  T* dbias;  // lanes
};

template <class T>
struct Tile {
  int64_t t0;
  int64_t steps;
  int64_t run_count;
  ScanRun runs[kTile];
};

// Asks for the inputs of the next group, which works on the same rows, and for this group's outputs.
template <class T>
HWY_INLINE void PrefetchBackward(const SelectiveScanBackward<T>& args, const ScanGroup<T>& group, int64_t t) {
  hwy::Prefetch(row_of(args.forward.u, group, t) + group.channels);
  hwy::Prefetch(row_of(args.forward.delta, group, t) + group.channels);
  hwy::Prefetch(row_of(args.dy, group, t) + group.channels);
  hwy::Prefetch(row_of(args.du, group, t));
  hwy::Prefetch(row_of(args.ddelta, group, t));
  if (args.forward.z) {
    hwy::Prefetch(row_of(args.forward.z, group, t) + group.channels);
  }
  if (args.dz) {
    hwy::Prefetch(row_of(args.dz, group, t));
  }
}

// Fills the arrays of a tile that the passes read. Returns the largest dt.
template <class D, class T>
T StageBackward(D d, const SelectiveScanBackward<T>& args, const ScanGroup<T>& group, const Tile<T>& tile,
                const BackwardScratch<T>& s) {
  const SelectiveScanForward<T>& f = args.forward;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto skip = LoadChannels(d, f.D, group);
  const auto bias = LoadChannels(d, f.delta_bias, group);
  auto largest = hn::Zero(d);
  for (int64_t r = 0; r < tile.run_count; ++r) {
    for (int64_t t = tile.runs[r].begin; t < tile.runs[r].end; ++t) {
      PrefetchBackward(args, group, tile.t0 + t);
      const auto u = LoadRow(d, row_of(f.u, group, tile.t0 + t), group.channels);
      const auto dy = LoadRow(d, row_of(args.dy, group, tile.t0 + t), group.channels);
      const auto step =
          SoftplusAndSlope(d, hn::Add(LoadRow(d, row_of(f.delta, group, tile.t0 + t), group.channels), bias));
      largest = hn::Max(largest, step.value);
      hn::Store(step.value, d, s.dt + t * lanes);
      hn::Store(step.slope, d, s.slope + t * lanes);
      hn::Store(hn::Mul(step.value, u), d, s.w + t * lanes);
      hn::Store(hn::Zero(d), d, s.gB + t * lanes);
      hn::Store(hn::Zero(d), d, s.qA + t * lanes);
      if (f.z) {
        const auto gate = SiluAndSlope(d, LoadRow(d, row_of(f.z, group, tile.t0 + t), group.channels));
        hn::Store(hn::Mul(dy, gate.value), d, s.ybar + t * lanes);
        hn::Store(hn::Mul(dy, gate.slope), d, s.gate + t * lanes);
        hn::Store(hn::Mul(skip, u), d, s.v + t * lanes);
      } else {
        hn::Store(dy, d, s.ybar + t * lanes);
      }
    }
  }
  return hn::GetLane(hn::MaxOfLanes(d, largest));
}

// Rebuilds the decays and states of a pass; with a gate also v.
template <bool kFast, bool kGated, class D, class T>
HWY_NOINLINE void RebuildPass(D d, const Tile<T>& tile, const BackwardScratch<T>& s, int64_t n, StateRows<T> B,
                              StateRows<T> C) {
  using V = hn::Vec<D>;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const T* HWY_RESTRICT decay = s.decay + n * lanes;
  const V a0 = hn::Load(d, decay), a1 = hn::Load(d, decay + lanes);
  const V a2 = hn::Load(d, decay + 2 * lanes), a3 = hn::Load(d, decay + 3 * lanes);
  const T* HWY_RESTRICT start = s.start + n * lanes;
  V h0 = hn::Load(d, start), h1 = hn::Load(d, start + lanes);
  V h2 = hn::Load(d, start + 2 * lanes), h3 = hn::Load(d, start + 3 * lanes);
  const auto keep = [&](int64_t row) {
    T* HWY_RESTRICT to = s.h + row * kPass * lanes;
    hn::Store(h0, d, to);
    hn::Store(h1, d, to + lanes);
    hn::Store(h2, d, to + 2 * lanes);
    hn::Store(h3, d, to + 3 * lanes);
  };
  for (int64_t r = 0; r < tile.run_count; ++r) {
    if (tile.runs[r].starts) {
      h0 = h1 = h2 = h3 = hn::Zero(d);
    } else {
      keep(tile.runs[r].begin);
    }
    for (int64_t t = tile.runs[r].begin; t < tile.runs[r].end; ++t) {
      const V step = hn::Load(d, s.dt + t * lanes);
      const V in = hn::Load(d, s.w + t * lanes);
      const T* HWY_RESTRICT b = B.data + t * B.stride;
      T* HWY_RESTRICT to = s.a + t * kPass * lanes;
      const auto advance = [&](V rate, V& h, int64_t state) HWY_ATTR {
        const V a = Decay<kFast>(d, step, rate);
        hn::Store(a, d, to + state * lanes);
        h = hn::MulAdd(a, h, hn::Mul(in, hn::Set(d, b[state])));
      };
      advance(a0, h0, 0);
      advance(a1, h1, 1);
      advance(a2, h2, 2);
      advance(a3, h3, 3);
      keep(t + 1);
      if constexpr (kGated) {
        const T* HWY_RESTRICT c = C.data + t * C.stride;
        V sum = hn::MulAdd(h0, hn::Set(d, c[0]), hn::Load(d, s.v + t * lanes));
        sum = hn::MulAdd(h1, hn::Set(d, c[1]), sum);
        sum = hn::MulAdd(h2, hn::Set(d, c[2]), sum);
        hn::Store(hn::MulAdd(h3, hn::Set(d, c[3]), sum), d, s.v + t * lanes);
      }
    }
  }
}

// Walks a pass of a tile backwards. `sums` (kTile, kSums) gets dB and dC of this group's channels added.
template <class D, class T>
HWY_NOINLINE void ReversePass(D d, const Tile<T>& tile, const BackwardScratch<T>& s, int64_t n, StateRows<T> B,
                              StateRows<T> C, const GroupSums<T>& group, T* HWY_RESTRICT sums) {
  using V = hn::Vec<D>;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const T* HWY_RESTRICT decay = s.decay + n * lanes;
  const V a0 = hn::Load(d, decay), a1 = hn::Load(d, decay + lanes);
  const V a2 = hn::Load(d, decay + 2 * lanes), a3 = hn::Load(d, decay + 3 * lanes);
  T* HWY_RESTRICT carry = group.carry + n * lanes;
  V g0 = hn::Load(d, carry), g1 = hn::Load(d, carry + lanes);
  V g2 = hn::Load(d, carry + 2 * lanes), g3 = hn::Load(d, carry + 3 * lanes);
  V s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;  // dA
  for (int64_t r = tile.run_count - 1; r >= 0; --r) {
    const int64_t begin = tile.runs[r].begin, end = tile.runs[r].end;
    const T* HWY_RESTRICT last = s.h + end * kPass * lanes;
    V h0 = hn::Load(d, last), h1 = hn::Load(d, last + lanes);
    V h2 = hn::Load(d, last + 2 * lanes), h3 = hn::Load(d, last + 3 * lanes);
    if ((begin | end) % 2 != 0) {  // a pair of steps is not all in this run
      std::fill(s.products, s.products + kLaneSums * lanes, T{0});
    }
    for (int64_t t = end - 1; t >= begin; --t) {
      const V step = hn::Load(d, s.dt + t * lanes);
      const V in = hn::Load(d, s.w + t * lanes);
      const V ybar = hn::Load(d, s.ybar + t * lanes);
      V gB = hn::Load(d, s.gB + t * lanes);
      V qA = hn::Load(d, s.qA + t * lanes);
      const T* HWY_RESTRICT b = B.data + t * B.stride;
      const T* HWY_RESTRICT c = C.data + t * C.stride;
      const T* HWY_RESTRICT a = s.a + t * kPass * lanes;
      const T* HWY_RESTRICT before = s.h + t * kPass * lanes;
      T* HWY_RESTRICT products = s.products + (t % 2) * kSums * lanes;
      const bool starts = t == begin && tile.runs[r].starts;
      const auto retreat = [&](V rate, V& carried, V& h, V& dA, int64_t state) HWY_ATTR {
        const V g = hn::MulAdd(ybar, hn::Set(d, c[state]), carried);
        hn::Store(hn::Mul(g, in), d, products + state * lanes);
        hn::Store(hn::Mul(ybar, h), d, products + (kPass + state) * lanes);
        gB = hn::MulAdd(g, hn::Set(d, b[state]), gB);
        carried = hn::Mul(hn::Load(d, a + state * lanes), g);
        h = starts ? hn::Zero(d) : hn::Load(d, before + state * lanes);
        const V q = hn::Mul(carried, h);
        dA = hn::MulAdd(q, step, dA);
        qA = hn::MulAdd(q, rate, qA);
      };
      retreat(a0, g0, h0, s0, 0);
      retreat(a1, g1, h1, s1, 1);
      retreat(a2, g2, h2, s2, 2);
      retreat(a3, g3, h3, s3, 3);
      hn::Store(gB, d, s.gB + t * lanes);
      hn::Store(qA, d, s.qA + t * lanes);
      if (t % 2 == 0) {
        AddLaneSums(d, s.products, sums + t * kSums);
      } else if (t == begin) {
        std::fill(s.products, s.products + kSums * lanes, T{0});
        AddLaneSums(d, s.products, sums + (t - 1) * kSums);
      }
    }
    if (tile.runs[r].starts) {
      g0 = g1 = g2 = g3 = hn::Zero(d);
    }
  }
  T* HWY_RESTRICT dA = group.dA + n * lanes;
  const auto put = [&](V g, V sum, int64_t state) HWY_ATTR {
    hn::Store(g, d, carry + state * lanes);
    hn::Store(hn::Add(hn::Load(d, dA + state * lanes), sum), d, dA + state * lanes);
  };
  put(g0, s0, 0);
  put(g1, s1, 1);
  put(g2, s2, 2);
  put(g3, s3, 3);
}

// du, ddelta and dz of a tile, and its part of dD and ddelta_bias.
template <class D, class T>
void WriteGradients(D d, const SelectiveScanBackward<T>& args, const ScanGroup<T>& group, const Tile<T>& tile,
                    const BackwardScratch<T>& s, const GroupSums<T>& sums) {
  const SelectiveScanForward<T>& f = args.forward;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto skip = LoadChannels(d, f.D, group);
  const auto ln2 = hn::Set(d, static_cast<T>(kLn2));
  auto dD = hn::Zero(d);
  auto dbias = hn::Zero(d);
  const auto write = [&](int64_t t, hn::Vec<D> du, hn::Vec<D> ddelta, hn::Vec<D> dz) HWY_ATTR {
    StoreRow(d, du, row_of(args.du, group, tile.t0 + t), group.channels);
    StoreRow(d, ddelta, row_of(args.ddelta, group, tile.t0 + t), group.channels);
    if (args.dz) {
      StoreRow(d, dz, row_of(args.dz, group, tile.t0 + t), group.channels);
    }
  };
  int64_t t = 0;
  for (int64_t r = 0; r <= tile.run_count; ++r) {
    for (; t < (r < tile.run_count ? tile.runs[r].begin : tile.steps); ++t) {
      write(t, hn::Zero(d), hn::Zero(d), hn::Zero(d));
    }
    for (; r < tile.run_count && t < tile.runs[r].end; ++t) {
      const auto u = LoadRow(d, row_of(f.u, group, tile.t0 + t), group.channels);
      const auto ybar = hn::Load(d, s.ybar + t * lanes);
      const auto gB = hn::Load(d, s.gB + t * lanes);
      const auto ddt = hn::MulAdd(u, gB, hn::Mul(ln2, hn::Load(d, s.qA + t * lanes)));
      const auto ddelta = hn::Mul(ddt, hn::Load(d, s.slope + t * lanes));
      const auto du = hn::MulAdd(hn::Load(d, s.dt + t * lanes), gB, hn::Mul(skip, ybar));
      dD = hn::MulAdd(ybar, u, dD);
      dbias = hn::Add(dbias, ddelta);
      const auto dz = f.z ? hn::Mul(hn::Load(d, s.gate + t * lanes), hn::Load(d, s.v + t * lanes)) : hn::Zero(d);
      write(t, du, ddelta, dz);
    }
  }
  hn::Store(hn::Add(hn::Load(d, sums.dD), dD), d, sums.dD);
  hn::Store(hn::Add(hn::Load(d, sums.dbias), dbias), d, sums.dbias);
}

}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard of the target
