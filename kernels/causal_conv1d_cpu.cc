// SPDX-License-Identifier: Apache-2.0
// Vector lanes are channels. The last K - 1 inputs of a group of channels stay in registers while time passes; backward
// keeps as many unfinished input gradients beside them. Time is cut into blocks that do not depend on the thread count.
#include <algorithm>
#include <cstdint>

#include "core/base/parallel.h"
#include "kernels/causal_conv1d.h"
#include "kernels/causal_conv1d_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/causal_conv1d_cpu.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first
#include "hwy/aligned_allocator.h"
#include "hwy/cache_control.h"
#include "kernels/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {

inline constexpr int64_t kAhead = 64;           // channels between a prefetch and its use
inline constexpr int64_t kTileSteps = 32;       // all channels of a few rows before the next: rows share pages
inline constexpr int64_t kForwardSteps = 256;   // of one work item
inline constexpr int64_t kBackwardItems = 64;   // wanted; each keeps its own sums for the weights
inline constexpr int64_t kConvPiece = 1 << 15;  // (channel, step) pairs worth handing to another thread

template <class D, class T>
HWY_INLINE hn::Vec<D> LoadSome(D d, const T* from, int64_t count) {
  if (HWY_LIKELY(count >= static_cast<int64_t>(hn::Lanes(d)))) {
    return hn::LoadU(d, from);
  }
  HWY_ALIGN T row[hn::MaxLanes(d)] = {};
  std::copy(from, from + count, row);
  return hn::Load(d, row);
}

template <class D, class T>
HWY_INLINE void StoreSome(D d, hn::Vec<D> value, T* to, int64_t count) {
  if (HWY_LIKELY(count >= static_cast<int64_t>(hn::Lanes(d)))) {
    hn::StoreU(value, d, to);
    return;
  }
  HWY_ALIGN T row[hn::MaxLanes(d)];
  hn::Store(value, d, row);
  std::copy(row, row + count, to);
}

/// The weights turned so that lanes are channels: for each group K taps (tap j multiplies the input j steps ago) and
/// the bias.
template <class T, int K>
struct ConvTaps {
  using D = hn::ScalableTag<T>;
  static constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(D()));
  static constexpr int64_t kGroup = (K + 1) * kLanes;

  ConvTaps(View<const T, 2> weight, View<const T, 1> bias)
      : width(weight.size[0]),
        groups((width + kLanes - 1) / kLanes),
        values(hwy::AllocateAligned<T>(static_cast<size_t>(std::max<int64_t>(1, groups) * kGroup))) {
    const D d;
    std::fill(values.get(), values.get() + groups * kGroup, T{0});
    for (int64_t channel = 0; channel < width; channel += kLanes) {
      T* to = values.get() + channel / kLanes * kGroup;
      const int64_t count = std::min(kLanes, width - channel);
      if (K == 4 && count == kLanes && weight.stride[0] == 4 && weight.stride[1] == 1) {
        hn::Vec<D> tap[4];
        hn::LoadInterleaved4(d, &weight(channel, 0), tap[3], tap[2], tap[1], tap[0]);
        for (int j = 0; j < K; ++j) {
          hn::Store(tap[j % 4], d, to + j * kLanes);
        }
      } else {
        for (int64_t i = 0; i < count * K; ++i) {
          to[i % K * kLanes + i / K] = weight(channel + i / K, K - 1 - i % K);
        }
      }
      for (int64_t c = 0; bias && c < count; ++c) {
        to[K * kLanes + c] = bias(channel + c);
      }
    }
  }

  int64_t width, groups;
  hwy::AlignedFreeUniquePtr<T[]> values;
};

/// Channels [channel, channel + channels) of row b.
template <class T, int K>
struct ConvGroup {
  static constexpr size_t kLanes = hn::MaxLanes(hn::ScalableTag<T>());

  ConvGroup(const ConvTaps<T, K>& taps, int64_t row, int64_t group)
      : tap(taps.values.get() + group * taps.kGroup),
        b(row),
        channel(group * taps.kLanes),
        channels(std::min(taps.kLanes, taps.width - channel)) {}

  const T* tap;  // (K + 1, lanes), the last for the bias
  int64_t b, channel, channels;
};

/// Input `t` of the chunk; before it those of `initial`, or 0.
template <class T, int K>
HWY_INLINE auto LoadInput(const ConvGroup<T, K>& group, View<const T, 3> x, View<const T, 3> initial, int64_t t) {
  const hn::ScalableTag<T> d;
  if (t >= 0) {
    return LoadSome(d, &x(group.b, t, group.channel), group.channels);
  }
  return initial ? LoadSome(d, &initial(group.b, K - 1 + t, group.channel), group.channels) : hn::Zero(d);
}

/// The position of a step, at most K: what lies further back does not matter.
template <int K>
HWY_INLINE int position_of(View<const int64_t, 2> position, int64_t b, int64_t t) {
  return position ? static_cast<int>(std::min<int64_t>(position(b, t), K)) : K;
}

template <class T, int K>
void ForwardBlock(const CausalConv1dForward<T>& args, const ConvGroup<T, K>& group, int64_t t0, int64_t t1) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  constexpr size_t kLanes = ConvGroup<T, K>::kLanes;
  V tap[K], past[K];
  for (int j = 0; j < K; ++j) {
    tap[j] = hn::Load(d, group.tap + j * kLanes);
    past[j] = j == 0 ? hn::Zero(d) : LoadInput(group, args.x, args.initial, t0 - j);
  }
  const V bias = hn::Load(d, group.tap + K * kLanes);
  for (int64_t t = t0; t < t1; ++t) {
    hwy::Prefetch(&args.x(group.b, t, group.channel) + kAhead);
    hwy::Prefetch(&args.y(group.b, t, group.channel) + kAhead);
    past[0] = LoadSome(d, &args.x(group.b, t, group.channel), group.channels);
    const int position = position_of<K>(args.position, group.b, t);
    for (int j = 1; HWY_UNLIKELY(position < K - 1) && j < K; ++j) {
      past[j] = j > position ? hn::Zero(d) : past[j];
    }
    V a = bias;
    for (int j = K - 1; j >= 0; --j) {
      a = hn::MulAdd(tap[j], past[j], a);
    }
    a = args.silu ? Silu(d, a) : a;
    StoreSome(d, position < 0 ? hn::Zero(d) : a, &args.y(group.b, t, group.channel), group.channels);
    for (int j = K - 1; j > 0; --j) {
      past[j] = past[j - 1];
    }
  }
}

template <class T, int K>
void ForwardTaps(const CausalConv1dForward<T>& args) {
  const ConvTaps<T, K> taps(args.weight, args.bias);
  const int64_t length = args.x.size[1];
  const int64_t blocks = (length + kForwardSteps - 1) / kForwardSteps;
  const int64_t work = std::max<int64_t>(1, taps.width * std::min(length, kForwardSteps));
  parallel_for(args.x.size[0] * blocks, std::max<int64_t>(1, kConvPiece / work), [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t t0 = item % blocks * kForwardSteps;
      const int64_t t1 = std::min(length, t0 + kForwardSteps);
      for (int64_t t = t0; t < t1; t += kTileSteps) {
        for (int64_t g = 0; g < taps.groups; ++g) {
          ForwardBlock<T, K>(args, ConvGroup<T, K>(taps, item / blocks, g), t, std::min(t1, t + kTileSteps));
        }
      }
    }
  });
}

/// Steps [t0, t1) of backward for one group. `sums` (K + 1, lanes) gets the gradients of taps and bias added. The
/// K - 1 steps after t1 are looked at for what they owe to the inputs of the block.
template <class T, int K>
void BackwardBlock(const CausalConv1dBackward<T>& args, const ConvGroup<T, K>& group, int64_t t0, int64_t t1, T* sums) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  constexpr size_t kLanes = ConvGroup<T, K>::kLanes;
  const int64_t length = args.x.size[1];
  V tap[K], past[K], owed[K], sum[K];
  for (int j = 0; j < K; ++j) {
    tap[j] = hn::Load(d, group.tap + j * kLanes);
    past[j] = j == 0 ? hn::Zero(d) : LoadInput(group, args.x, args.initial, t0 - j);
    owed[j] = hn::Zero(d);
    sum[j] = hn::Zero(d);
  }
  const V bias = hn::Load(d, group.tap + K * kLanes);
  V bias_sum = hn::Zero(d);
  // owed[j] is the gradient so far of the input j steps before t; the oldest is complete after step t.
  const auto settle = [&](int64_t t) HWY_ATTR {
    const int64_t done = t - (K - 1);
    if (done >= t0 && done < t1) {
      StoreSome(d, owed[K - 1], &args.dx(group.b, done, group.channel), group.channels);
    } else if (done < 0 && args.dinitial && t0 == 0) {
      StoreSome(d, owed[K - 1], &args.dinitial(group.b, t, group.channel), group.channels);
    }
    for (int j = K - 1; j > 0; --j) {
      owed[j] = owed[j - 1];
      past[j] = past[j - 1];
    }
    owed[0] = hn::Zero(d);
  };
  const int64_t seen = std::min(length, t1 + K - 1);
  for (int64_t t = t0; t < seen; ++t) {
    hwy::Prefetch(&args.x(group.b, t, group.channel) + kAhead);
    hwy::Prefetch(&args.dy(group.b, t, group.channel) + kAhead);
    hwy::Prefetch(&args.dx(group.b, t, group.channel) + kAhead);
    past[0] = LoadSome(d, &args.x(group.b, t, group.channel), group.channels);
    const int position = position_of<K>(args.position, group.b, t);
    if (position >= 0) {
      for (int j = 1; HWY_UNLIKELY(position < K - 1) && j < K; ++j) {
        past[j] = j > position ? hn::Zero(d) : past[j];
      }
      V da = LoadSome(d, &args.dy(group.b, t, group.channel), group.channels);
      if (args.silu) {
        V a = bias;
        for (int j = K - 1; j >= 0; --j) {
          a = hn::MulAdd(tap[j], past[j], a);
        }
        da = hn::Mul(da, SiluAndSlope(d, a).slope);
      }
      for (int j = 0; j < K; ++j) {
        owed[j] = HWY_LIKELY(j <= position) ? hn::MulAdd(da, tap[j], owed[j]) : owed[j];
      }
      if (t < t1) {
        for (int j = 0; j < K; ++j) {
          sum[j] = hn::MulAdd(da, past[j], sum[j]);
        }
        bias_sum = hn::Add(bias_sum, da);
      }
    }
    settle(t);
  }
  for (int64_t t = seen; t < t1 + K - 1; ++t) {
    settle(t);
  }
  for (int j = 0; j < K; ++j) {
    hn::Store(hn::Add(hn::Load(d, sums + j * kLanes), sum[j]), d, sums + j * kLanes);
  }
  hn::Store(hn::Add(hn::Load(d, sums + K * kLanes), bias_sum), d, sums + K * kLanes);
}

template <class T, int K>
void BackwardTaps(const CausalConv1dBackward<T>& args) {
  const ConvTaps<T, K> taps(args.weight, args.bias);
  constexpr int64_t kLanes = ConvTaps<T, K>::kLanes;
  constexpr int64_t kSums = ConvTaps<T, K>::kGroup;
  const int64_t batch = args.x.size[0];
  const int64_t length = args.x.size[1];
  const int64_t width = taps.width;
  const int64_t groups = taps.groups;
  const int64_t steps = std::max<int64_t>(kForwardSteps, (batch * length + kBackwardItems - 1) / kBackwardItems);
  const int64_t blocks = std::max<int64_t>(1, (length + steps - 1) / steps);
  const int64_t items = batch * blocks;
  const auto sums = hwy::AllocateAligned<T>(static_cast<size_t>(std::max<int64_t>(1, items * groups * kSums)));
  const int64_t work = std::max<int64_t>(1, width * std::min(length, steps));
  parallel_for(items, std::max<int64_t>(1, kConvPiece / work), [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      T* item_sums = sums.get() + item * groups * kSums;
      std::fill(item_sums, item_sums + groups * kSums, T{0});
      const int64_t t0 = item % blocks * steps;
      const int64_t t1 = std::min(length, t0 + steps);
      int64_t t = t0;
      do {  // once even for an empty chunk: dinitial is written
        for (int64_t g = 0; g < groups; ++g) {
          BackwardBlock<T, K>(args, ConvGroup<T, K>(taps, item / blocks, g), t, std::min(t1, t + kTileSteps),
                              item_sums + g * kSums);
        }
        t += kTileSteps;
      } while (t < t1);
    }
  });
  parallel_for(groups, std::max<int64_t>(1, kConvPiece / (items * kSums + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t channel = begin * kLanes; channel < std::min(width, end * kLanes); ++channel) {
      for (int j = 0; j <= K; ++j) {
        T total = 0;
        for (int64_t item = 0; item < items; ++item) {
          total += sums[(item * groups + channel / kLanes) * kSums + j * kLanes + channel % kLanes];
        }
        if (j < K) {
          args.dweight(channel, K - 1 - j) += total;
        } else if (args.dbias) {
          args.dbias(channel) += total;
        }
      }
    }
  });
}

template <class T>
void Forward(const CausalConv1dForward<T>& args) {
  constexpr void (*kTaps[])(const CausalConv1dForward<T>&) = {ForwardTaps<T, 1>, ForwardTaps<T, 2>, ForwardTaps<T, 3>,
                                                              ForwardTaps<T, 4>, ForwardTaps<T, 5>, ForwardTaps<T, 6>,
                                                              ForwardTaps<T, 7>, ForwardTaps<T, 8>};
  kTaps[args.weight.size[1] - 1](args);
}

template <class T>
void Backward(const CausalConv1dBackward<T>& args) {
  constexpr void (*kTaps[])(const CausalConv1dBackward<T>&) = {
      BackwardTaps<T, 1>, BackwardTaps<T, 2>, BackwardTaps<T, 3>, BackwardTaps<T, 4>,
      BackwardTaps<T, 5>, BackwardTaps<T, 6>, BackwardTaps<T, 7>, BackwardTaps<T, 8>};
  kTaps[args.weight.size[1] - 1](args);
}

void ForwardFloat(const CausalConv1dForward<float>& args) { Forward(args); }
void ForwardDouble(const CausalConv1dForward<double>& args) { Forward(args); }
void BackwardFloat(const CausalConv1dBackward<float>& args) { Backward(args); }
void BackwardDouble(const CausalConv1dBackward<double>& args) { Backward(args); }

}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace blockstate::kernels {
HWY_EXPORT(ForwardFloat);
HWY_EXPORT(ForwardDouble);
HWY_EXPORT(BackwardFloat);
HWY_EXPORT(BackwardDouble);

namespace cpu {
template <>
void causal_conv1d_forward(const CausalConv1dForward<float>& args) {
  check_causal_conv1d(args);
  HWY_DYNAMIC_DISPATCH(ForwardFloat)(args);
  write_conv_final(args);
}
template <>
void causal_conv1d_forward(const CausalConv1dForward<double>& args) {
  check_causal_conv1d(args);
  HWY_DYNAMIC_DISPATCH(ForwardDouble)(args);
  write_conv_final(args);
}
template <>
void causal_conv1d_backward(const CausalConv1dBackward<float>& args) {
  check_causal_conv1d(args);
  HWY_DYNAMIC_DISPATCH(BackwardFloat)(args);
  add_conv_final_gradient(args);
}
template <>
void causal_conv1d_backward(const CausalConv1dBackward<double>& args) {
  check_causal_conv1d(args);
  HWY_DYNAMIC_DISPATCH(BackwardDouble)(args);
  add_conv_final_gradient(args);
}
}  // namespace cpu
}  // namespace blockstate::kernels
#endif
