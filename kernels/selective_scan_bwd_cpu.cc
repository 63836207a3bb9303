// SPDX-License-Identifier: Apache-2.0
// Backward of the selective scan. With g the gradient of the state after a step and ybar that of v (selective_scan.h):
//   g_t = ybar_t C_t + a_{t+1} g_{t+1};  dC_t = sum_d ybar h;  dB_t = sum_d g dt u;  du = D ybar + dt sum_n g B
//   q = a_t g_t h_{t-1};  dA = sum_t q dt;  d(dt) = sum_n (g B u + q A);  dD = sum_t ybar u
// Tiles are walked from the last to the first. Each is rebuilt from its checkpoint, four states at a time, keeping
// decays and states; then walked backwards.
#include "core/base/parallel.h"
#include "kernels/selective_scan.h"
#include "kernels/selective_scan_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/selective_scan_bwd_cpu.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first
#include "kernels/lane_sums-inl.h"
#include "kernels/selective_scan-inl.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {

inline constexpr int64_t kSums = 2 * kPass;  // dB and dC of the states of a pass
inline constexpr int64_t kWindow = 16;       // tiles between two reductions over the channels
inline constexpr int64_t kItems = 64;        // work items wanted; fixed, so that sums do not depend on threads
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

// Tiles [first, last) of one group, backwards. `sums`: (padded N / kPass, window steps, kSums).
template <class T>
void BackwardGroup(const SelectiveScanBackward<T>& args, const ScanGroup<T>& group, const BackwardScratch<T>& s,
                   const GroupSums<T>& group_sums, int64_t first, int64_t last, T* sums) {
  const hn::ScalableTag<T> d;
  const SelectiveScanForward<T>& f = args.forward;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t states = f.A.size[1];
  const int64_t padded = padded_states(states);
  load_states(s.decay, lanes, padded, &f.A(group.channel, 0), f.A.stride[0], f.A.stride[1], group.channels, states,
              static_cast<T>(kLog2E));
  pass_bounds(s.decay, lanes, padded, s.bound);
  Tile<T> tile;
  for (int64_t k = last - 1; k >= first; --k) {
    tile.t0 = k * kTile;
    tile.steps = std::min(kTile, f.u.size[1] - tile.t0);
    tile.run_count = find_runs(f.position, group.b, tile.t0, tile.steps, tile.runs);
    load_states(s.start, lanes, padded, &f.checkpoint(group.b, k, group.channel, 0), f.checkpoint.stride[2],
                f.checkpoint.stride[3], group.channels, states);
    const T largest = StageBackward(d, args, group, tile, s);
    const StateRows<T> B = stage_rows(f.B, group.b, tile.t0, tile.steps, s.B);
    const StateRows<T> C = stage_rows(f.C, group.b, tile.t0, tile.steps, s.C);
    for (int64_t n = 0; n < padded; n += kPass) {
      using Tag = decltype(d);
      const bool fast = largest * s.bound[n / kPass] < fast_exp2_limit(d);
      const auto rebuild = f.z ? (fast ? RebuildPass<true, true, Tag, T> : RebuildPass<false, true, Tag, T>)
                               : (fast ? RebuildPass<true, false, Tag, T> : RebuildPass<false, false, Tag, T>);
      const StateRows<T> pass_B{B.data + n, B.stride};
      const StateRows<T> pass_C{C.data + n, C.stride};
      rebuild(d, tile, s, n, pass_B, pass_C);
      T* pass_sums = sums + (n / kPass * kWindow + (k - first)) * kTile * kSums;
      ReversePass(d, tile, s, n, pass_B, pass_C, group_sums, pass_sums);
    }
    WriteGradients(d, args, group, tile, s, group_sums);
  }
}

// Sizes of a whole call, and its workspace.
template <class T>
class BackwardCall {
 public:
  explicit BackwardCall(const SelectiveScanBackward<T>& args)
      : args_(args),
        lanes_(static_cast<int64_t>(hn::Lanes(hn::ScalableTag<T>()))),
        batch_(args.forward.u.size[0]),
        length_(args.forward.u.size[1]),
        width_(args.forward.u.size[2]),
        states_(args.forward.A.size[1]),
        padded_(padded_states(states_)),
        groups_((width_ + lanes_ - 1) / lanes_),
        tiles_((length_ + kTile - 1) / kTile),
        block_(std::clamp<int64_t>(batch_ * groups_ / kItems, 1, std::max<int64_t>(groups_, 1))),
        blocks_((groups_ + block_ - 1) / block_),
        item_sums_(padded_ / kPass * kWindow * kTile * kSums),
        group_sums_((2 * padded_ + 2) * lanes_) {}

  void run() {
    const int64_t items = batch_ * blocks_;
    sums_ = hwy::AllocateAligned<T>(static_cast<size_t>(std::max<int64_t>(1, items * item_sums_)));
    kept_ = hwy::AllocateAligned<T>(static_cast<size_t>(std::max<int64_t>(1, batch_ * groups_ * group_sums_)));
    const int64_t work = std::max<int64_t>(1, lanes_ * block_ * states_ * std::min(length_, kWindow * kTile));
    const int64_t grain = std::max<int64_t>(1, kSmallestPiece / work);
    parallel_for(batch_ * groups_, std::max<int64_t>(1, grain * block_), [this](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        start_group(i);
      }
    });
    for (int64_t last = tiles_; last > 0; last -= kWindow) {
      const int64_t first = std::max<int64_t>(0, last - kWindow);
      parallel_for(items, grain, [=, this](int64_t begin, int64_t end) { window(first, last, begin, end); });
      const int64_t rows = (std::min(last * kTile, length_) - first * kTile) * batch_;
      parallel_for(rows, std::max<int64_t>(1, kSmallestPiece / (states_ * blocks_ * 16)),
                   [=, this](int64_t begin, int64_t end) { reduce_rows(first, last, begin, end); });
    }
    parallel_for(groups_, std::max<int64_t>(1, kSmallestPiece / (lanes_ * states_ * batch_ * 4)),
                 [this](int64_t begin, int64_t end) {
                   for (int64_t g = begin; g < end; ++g) {
                     finish_group(g);
                   }
                 });
  }

 private:
  ScanGroup<T> group_at(int64_t b, int64_t g) const { return {b, g * lanes_, std::min(lanes_, width_ - g * lanes_)}; }

  GroupSums<T> sums_of(int64_t b, int64_t g) const {
    T* at = kept_.get() + (b * groups_ + g) * group_sums_;
    return {at, at + padded_ * lanes_, at + 2 * padded_ * lanes_, at + (2 * padded_ + 1) * lanes_};
  }

  void start_group(int64_t i) const {
    const ScanGroup<T> group = group_at(i / groups_, i % groups_);
    const GroupSums<T> sums = sums_of(i / groups_, i % groups_);
    std::fill(sums.carry, sums.carry + group_sums_, T{0});
    if (args_.dfinal) {
      load_states(sums.carry, lanes_, padded_, &args_.dfinal(group.b, group.channel, 0), args_.dfinal.stride[1],
                  args_.dfinal.stride[2], group.channels, states_);
    }
  }

  void window(int64_t first, int64_t last, int64_t begin, int64_t end) const {
    const BackwardScratch<T> scratch(lanes_, padded_);
    for (int64_t item = begin; item < end; ++item) {
      T* sums = sums_.get() + item * item_sums_;
      std::fill(sums, sums + item_sums_, T{0});
      const int64_t b = item / blocks_;
      const int64_t first_group = item % blocks_ * block_;
      for (int64_t g = first_group; g < std::min(first_group + block_, groups_); ++g) {
        BackwardGroup(args_, group_at(b, g), scratch, sums_of(b, g), first, last, sums);
      }
    }
  }

  // dB and dC of some (row, step) pairs: the sums of the blocks in their order.
  void reduce_rows(int64_t first, int64_t last, int64_t begin, int64_t end) const {
    const int64_t steps = std::min(last * kTile, length_) - first * kTile;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / steps;
      const int64_t t = row % steps;
      T* dB = &args_.dB(b, first * kTile + t, 0);
      T* dC = &args_.dC(b, first * kTile + t, 0);
      for (int64_t n = 0; n < states_; ++n) {
        const T* from = sums_.get() + b * blocks_ * item_sums_ + (n / kPass * kWindow * kTile + t) * kSums + n % kPass;
        T sum_B = 0;
        T sum_C = 0;
        for (int64_t block = 0; block < blocks_; ++block) {
          sum_B += from[block * item_sums_];
          sum_C += from[block * item_sums_ + kPass];
        }
        dB[n * args_.dB.stride[2]] = sum_B;
        dC[n * args_.dC.stride[2]] = sum_C;
      }
    }
  }

  // The parameters' gradients of one group of channels, summed over the batch in order, and dinitial.
  void finish_group(int64_t g) const {
    const int64_t channels = group_at(0, g).channels;
    for (int64_t b = 0; b < batch_; ++b) {
      const GroupSums<T> sums = sums_of(b, g);
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t channel = g * lanes_ + c;
        for (int64_t n = 0; n < states_; ++n) {
          args_.dA(channel, n) += sums.dA[n * lanes_ + c];
        }
        if (args_.dD) {
          args_.dD(channel) += sums.dD[c];
        }
        if (args_.ddelta_bias) {
          args_.ddelta_bias(channel) += sums.dbias[c];
        }
      }
      if (args_.dinitial) {
        store_states(sums.carry, lanes_, &args_.dinitial(b, g * lanes_, 0), args_.dinitial.stride[1],
                     args_.dinitial.stride[2], channels, states_);
      }
    }
  }

  const SelectiveScanBackward<T>& args_;
  int64_t lanes_, batch_, length_, width_, states_, padded_, groups_, tiles_;
  int64_t block_, blocks_;  // groups worked on by one item, items of a batch row
  int64_t item_sums_, group_sums_;
  hwy::AlignedFreeUniquePtr<T[]> sums_;  // (items, item_sums_): dB and dC of a window
  hwy::AlignedFreeUniquePtr<T[]> kept_;  // (batch, groups, group_sums_)
};

void BackwardFloat(const SelectiveScanBackward<float>& args) { BackwardCall<float>(args).run(); }
void BackwardDouble(const SelectiveScanBackward<double>& args) { BackwardCall<double>(args).run(); }

}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace blockstate::kernels {
HWY_EXPORT(BackwardFloat);
HWY_EXPORT(BackwardDouble);

namespace cpu {
template <>
void selective_scan_backward(const SelectiveScanBackward<float>& args) {
  check_selective_scan(args);
  HWY_DYNAMIC_DISPATCH(BackwardFloat)(args);
}
template <>
void selective_scan_backward(const SelectiveScanBackward<double>& args) {
  check_selective_scan(args);
  HWY_DYNAMIC_DISPATCH(BackwardDouble)(args);
}
}  // namespace cpu
}  // namespace blockstate::kernels
#endif
