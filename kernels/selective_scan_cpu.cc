// SPDX-License-Identifier: Apache-2.0
#include "core/base/parallel.h"
#include "kernels/selective_scan.h"
#include "kernels/selective_scan_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/selective_scan_cpu.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first
#include "kernels/lane_sums-inl.h"
#include "kernels/selective_scan-inl.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {

// The states of a block of groups, and the tile that one of them works on.
template <class T>
struct ForwardScratch {
  ForwardScratch(int64_t lanes, int64_t padded, int64_t groups)
      : group_size((2 * padded + (padded + lanes - 1) / lanes) * lanes),
        memory(hwy::AllocateAligned<T>(
            static_cast<size_t>(3 * kTile * lanes + 2 * kTile * padded + groups * group_size))) {
    dt = memory.get();
    w = dt + kTile * lanes;
    y = w + kTile * lanes;
    B = y + kTile * lanes;
    C = B + kTile * padded;
    groups_begin = C + kTile * padded;
    decay_offset = padded * lanes;
  }
  T* h(int64_t group) const { return groups_begin + group * group_size; }
  T* decay(int64_t group) const { return h(group) + decay_offset; }  // A in base-2 units
  T* bound(int64_t group) const { return decay(group) + decay_offset; }

  int64_t group_size;  // a multiple of the lanes: every group is aligned
  hwy::AlignedFreeUniquePtr<T[]> memory;
  T *dt, *w, *y;  // a tile each
  T *B, *C;       // padded rows
  T* groups_begin;
  int64_t decay_offset;
};

// Rows of a wide tensor lie on different pages, where the processor's own prefetching stops. Asks for the inputs of the
// next group, which works on the same rows, and for the output of this one.
template <class T>
HWY_INLINE void PrefetchRows(const SelectiveScanForward<T>& args, const ScanGroup<T>& group, int64_t t) {
  hwy::Prefetch(row_of(args.y, group, t));
  hwy::Prefetch(row_of(args.u, group, t) + group.channels);
  hwy::Prefetch(row_of(args.delta, group, t) + group.channels);
  if (args.z) {
    hwy::Prefetch(row_of(args.z, group, t) + group.channels);
  }
}

// Fills dt, w and the skip term of y for the steps of the runs. Returns the largest dt.
template <class D, class T>
T StageInputs(D d, const SelectiveScanForward<T>& args, const ScanGroup<T>& group, int64_t t0, const ScanRun* runs,
              int64_t run_count, T* dt, T* w, T* y) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto skip = LoadChannels(d, args.D, group);
  const auto bias = LoadChannels(d, args.delta_bias, group);
  auto largest = hn::Zero(d);
  for (int64_t r = 0; r < run_count; ++r) {
    for (int64_t t = runs[r].begin; t < runs[r].end; ++t) {
      PrefetchRows(args, group, t0 + t);
      const auto u = LoadRow(d, row_of(args.u, group, t0 + t), group.channels);
      const auto delta = LoadRow(d, row_of(args.delta, group, t0 + t), group.channels);
      const auto step = Softplus(d, hn::Add(delta, bias));
      largest = hn::Max(largest, step);
      hn::Store(step, d, dt + t * lanes);
      hn::Store(hn::Mul(step, u), d, w + t * lanes);
      hn::Store(hn::Mul(skip, u), d, y + t * lanes);
    }
  }
  return hn::GetLane(hn::MaxOfLanes(d, largest));
}

// Four states over the steps of a tile: h is read and written once, y is added to.
template <bool kFast, class D, class T>
HWY_NOINLINE void ForwardPass(D d, const T* HWY_RESTRICT decay, T* HWY_RESTRICT h, const T* HWY_RESTRICT dt,
                              const T* HWY_RESTRICT w, T* HWY_RESTRICT y, StateRows<T> B, StateRows<T> C,
                              const ScanRun* runs, int64_t run_count) {
  using V = hn::Vec<D>;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const V a0 = hn::Load(d, decay), a1 = hn::Load(d, decay + lanes);
  const V a2 = hn::Load(d, decay + 2 * lanes), a3 = hn::Load(d, decay + 3 * lanes);
  V h0 = hn::Load(d, h), h1 = hn::Load(d, h + lanes);
  V h2 = hn::Load(d, h + 2 * lanes), h3 = hn::Load(d, h + 3 * lanes);
  for (int64_t r = 0; r < run_count; ++r) {
    if (runs[r].starts) {
      h0 = h1 = h2 = h3 = hn::Zero(d);
    }
    for (int64_t t = runs[r].begin; t < runs[r].end; ++t) {
      const V step = hn::Load(d, dt + t * lanes);
      const V in = hn::Load(d, w + t * lanes);
      const T* HWY_RESTRICT b = B.data + t * B.stride;
      const T* HWY_RESTRICT c = C.data + t * C.stride;
      h0 = hn::MulAdd(Decay<kFast>(d, step, a0), h0, hn::Mul(in, hn::Set(d, b[0])));
      h1 = hn::MulAdd(Decay<kFast>(d, step, a1), h1, hn::Mul(in, hn::Set(d, b[1])));
      h2 = hn::MulAdd(Decay<kFast>(d, step, a2), h2, hn::Mul(in, hn::Set(d, b[2])));
      h3 = hn::MulAdd(Decay<kFast>(d, step, a3), h3, hn::Mul(in, hn::Set(d, b[3])));
      V sum = hn::MulAdd(h0, hn::Set(d, c[0]), hn::Load(d, y + t * lanes));
      sum = hn::MulAdd(h1, hn::Set(d, c[1]), sum);
      sum = hn::MulAdd(h2, hn::Set(d, c[2]), sum);
      sum = hn::MulAdd(h3, hn::Set(d, c[3]), sum);
      hn::Store(sum, d, y + t * lanes);
    }
  }
  hn::Store(h0, d, h);
  hn::Store(h1, d, h + lanes);
  hn::Store(h2, d, h + 2 * lanes);
  hn::Store(h3, d, h + 3 * lanes);
}

// Gates and writes the outputs of a tile; padded steps give 0.
template <class D, class T>
void WriteOutputs(D d, const SelectiveScanForward<T>& args, const ScanGroup<T>& group, int64_t t0, int64_t steps,
                  const ScanRun* runs, int64_t run_count, const T* y) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t t = 0;
  const auto write_padding = [&](int64_t end) {
    for (; t < end; ++t) {
      StoreRow(d, hn::Zero(d), row_of(args.y, group, t0 + t), group.channels);
    }
  };
  for (int64_t r = 0; r < run_count; ++r) {
    write_padding(runs[r].begin);
    for (; t < runs[r].end; ++t) {
      auto value = hn::Load(d, y + t * lanes);
      if (args.z) {
        value = hn::Mul(value, Silu(d, LoadRow(d, row_of(args.z, group, t0 + t), group.channels)));
      }
      StoreRow(d, value, row_of(args.y, group, t0 + t), group.channels);
    }
  }
  write_padding(steps);
}

// Consecutive groups of one row of the batch: where they begin, and how many there are.
struct GroupBlock {
  int64_t b;
  int64_t first;
  int64_t count;
};

template <class T>
ScanGroup<T> group_at(const SelectiveScanForward<T>& args, const GroupBlock& block, int64_t i, int64_t lanes) {
  const int64_t channel = (block.first + i) * lanes;
  return {block.b, channel, std::min(lanes, args.u.size[2] - channel)};
}

template <class T>
void StartGroup(const SelectiveScanForward<T>& args, const ScanGroup<T>& group, int64_t lanes, T* h, T* decay,
                T* bound) {
  const int64_t states = args.A.size[1];
  const int64_t padded = padded_states(states);
  load_states(decay, lanes, padded, &args.A(group.channel, 0), args.A.stride[0], args.A.stride[1], group.channels,
              states, static_cast<T>(kLog2E));
  pass_bounds(decay, lanes, padded, bound);
  if (args.initial) {
    load_states(h, lanes, padded, &args.initial(group.b, group.channel, 0), args.initial.stride[1],
                args.initial.stride[2], group.channels, states);
  } else {
    std::fill(h, h + padded * lanes, T{0});
  }
}

// Time outermost: the rows of a tile lie on some hundred pages, which the groups of a block then share.
template <class T>
void ForwardBlock(const SelectiveScanForward<T>& args, const GroupBlock& block, const ForwardScratch<T>& s) {
  const hn::ScalableTag<T> d;
  using Tag = decltype(d);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t length = args.u.size[1];
  const int64_t states = args.A.size[1];
  for (int64_t i = 0; i < block.count; ++i) {
    StartGroup(args, group_at(args, block, i, lanes), lanes, s.h(i), s.decay(i), s.bound(i));
  }
  ScanRun runs[kTile];
  for (int64_t t0 = 0; t0 < length; t0 += kTile) {
    const int64_t steps = std::min(kTile, length - t0);
    const int64_t run_count = find_runs(args.position, block.b, t0, steps, runs);
    const StateRows<T> B = stage_rows(args.B, block.b, t0, steps, s.B);
    const StateRows<T> C = stage_rows(args.C, block.b, t0, steps, s.C);
    for (int64_t i = 0; i < block.count; ++i) {
      const ScanGroup<T> group = group_at(args, block, i, lanes);
      if (args.checkpoint) {
        const View<T, 4>& to = args.checkpoint;
        store_states(s.h(i), lanes, &to(group.b, t0 / kTile, group.channel, 0), to.stride[2], to.stride[3],
                     group.channels, states);
      }
      const T largest = StageInputs(d, args, group, t0, runs, run_count, s.dt, s.w, s.y);
      for (int64_t n = 0; n < states; n += kPass) {
        const bool fast = largest * s.bound(i)[n / kPass] < fast_exp2_limit(d);
        const auto pass = fast ? ForwardPass<true, Tag, T> : ForwardPass<false, Tag, T>;
        pass(d, s.decay(i) + n * lanes, s.h(i) + n * lanes, s.dt, s.w, s.y, {B.data + n, B.stride},
             {C.data + n, C.stride}, runs, run_count);
      }
      WriteOutputs(d, args, group, t0, steps, runs, run_count, s.y);
    }
  }
  for (int64_t i = 0; args.final && i < block.count; ++i) {
    const ScanGroup<T> group = group_at(args, block, i, lanes);
    store_states(s.h(i), lanes, &args.final(group.b, group.channel, 0), args.final.stride[1], args.final.stride[2],
                 group.channels, states);
  }
}

// The states [n, n + count) of all channels of a group through one step; lanes are states. `products` (channels, lanes)
// gets C * h. dt is in base-2 units.
template <bool kWhole, class T>
HWY_NOINLINE void StepStates(const SelectiveScanForward<T>& args, const ScanGroup<T>& group, int64_t n, int64_t count,
                             bool starts, const T* HWY_RESTRICT dt, const T* HWY_RESTRICT w, T* HWY_RESTRICT products) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto load = [&](const T* from) HWY_ATTR { return kWhole ? hn::LoadU(d, from) : LoadRow(d, from, count); };
  const auto store = [&](hn::Vec<decltype(d)> value, T* to)
                         HWY_ATTR { kWhole ? hn::StoreU(value, d, to) : StoreRow(d, value, to, count); };
  const auto b = load(&args.B(group.b, 0, n));
  const auto c = load(&args.C(group.b, 0, n));
  const bool resumes = args.initial && !starts;
  const T* A = &args.A(group.channel, n);
  const T* initial = resumes ? &args.initial(group.b, group.channel, n) : nullptr;
  T* final = args.final ? &args.final(group.b, group.channel, n) : nullptr;
  for (int64_t i = 0; i < group.channels; ++i) {
    auto h = hn::Mul(hn::Set(d, w[i]), b);
    if (resumes) {
      const auto a = Exp2(d, hn::Mul(hn::Set(d, dt[i]), load(A + i * args.A.stride[0])));
      h = hn::MulAdd(a, load(initial + i * args.initial.stride[1]), h);
    }
    if (final != nullptr) {
      store(h, final + i * args.final.stride[1]);
    }
    hn::Store(hn::Mul(h, c), d, products + i * lanes);
  }
}

// One step: turning the (D, N) state and A around would cost more than the step, so lanes are states here.
template <class T>
void ForwardStep(const SelectiveScanForward<T>& args, const ScanGroup<T>& group) {
  const hn::ScalableTag<T> d;
  constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(hn::ScalableTag<T>()));
  static_assert(kLanes <= kLaneSums, "a group fits one call of AddLaneSums");
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t states = args.A.size[1];
  HWY_ALIGN T dt[kLanes], w[kLanes], y[kLaneSums] = {}, products[kLaneSums * kLanes];
  ScanRun run;
  const int64_t run_count = find_runs(args.position, group.b, 0, 1, &run);
  StageInputs(d, args, group, 0, &run, run_count, dt, w, y);
  hn::Store(hn::Mul(hn::Load(d, dt), hn::Set(d, static_cast<T>(kLog2E))), d, dt);
  std::fill(products + group.channels * lanes, products + kLaneSums * lanes, T{0});
  for (int64_t n = 0; run_count != 0 && n < states; n += lanes) {
    const int64_t count = std::min(lanes, states - n);
    const auto step = count == lanes ? StepStates<true, T> : StepStates<false, T>;
    step(args, group, n, count, run.starts, dt, w, products);
    AddLaneSums(d, products, y);
  }
  for (int64_t i = 0; run_count == 0 && args.final && i < group.channels; ++i) {
    T* final = &args.final(group.b, group.channel + i, 0);
    if (args.initial) {
      std::copy_n(&args.initial(group.b, group.channel + i, 0), states, final);
    } else {
      std::fill_n(final, states, T{0});
    }
  }
  WriteOutputs(d, args, group, 0, 1, &run, run_count, y);
}

template <class T>
void Forward(const SelectiveScanForward<T>& args) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(hn::ScalableTag<T>()));
  const int64_t groups = (args.u.size[2] + lanes - 1) / lanes;
  const int64_t rows = args.u.size[0];
  const int64_t group_work = std::max<int64_t>(1, lanes * args.A.size[1] * args.u.size[1]);
  const int64_t smallest = std::max<int64_t>(1, kSmallestPiece / group_work);  // groups
  if (args.u.size[1] == 1 && !args.checkpoint && unit_state_stride(args)) {
    parallel_for(rows * groups, smallest, [&, groups, lanes](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        ForwardStep(args, group_at(args, {item / groups, item % groups, 1}, 0, lanes));
      }
    });
    return;
  }
  // Groups do not meet in the forward pass, so how they are blocked changes no bit of the result.
  const int64_t pieces = thread_count() == 1 ? 1 : 4 * thread_count();
  const int64_t block = std::min(std::clamp<int64_t>(std::max(rows * groups / pieces, smallest), 1, kLargestBlock),
                                 std::max<int64_t>(1, groups));
  const int64_t blocks = (groups + block - 1) / block;
  parallel_for(rows * blocks, std::max<int64_t>(1, smallest / block), [&, block, blocks](int64_t begin, int64_t end) {
    const ForwardScratch<T> scratch(lanes, padded_states(args.A.size[1]), block);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item % blocks * block;
      ForwardBlock(args, GroupBlock{item / blocks, first, std::min(block, groups - first)}, scratch);
    }
  });
}

void ForwardFloat(const SelectiveScanForward<float>& args) { Forward(args); }
void ForwardDouble(const SelectiveScanForward<double>& args) { Forward(args); }

}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace blockstate::kernels {
HWY_EXPORT(ForwardFloat);
HWY_EXPORT(ForwardDouble);

namespace cpu {
template <>
void selective_scan_forward(const SelectiveScanForward<float>& args) {
  check_selective_scan(args);
  HWY_DYNAMIC_DISPATCH(ForwardFloat)(args);
}
template <>
void selective_scan_forward(const SelectiveScanForward<double>& args) {
  check_selective_scan(args);
  HWY_DYNAMIC_DISPATCH(ForwardDouble)(args);
}
}  // namespace cpu
}  // namespace blockstate::kernels
#endif
