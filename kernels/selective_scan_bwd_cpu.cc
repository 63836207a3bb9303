// SPDX-License-Identifier: Apache-2.0
// Backward of the selective scan over tiles, groups of channels and the batch; the mathematics are in
// selective_scan_bwd-inl.h. Tiles are walked from the last to the first, a window of them at a time. Inside a window
// each block of groups sums dB and dC over its own channels; then the blocks are summed in their order.
#include "core/base/parallel.h"
#include "kernels/selective_scan.h"
#include "kernels/selective_scan_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/selective_scan_bwd_cpu.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first
#include "kernels/selective_scan_bwd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {

inline constexpr int64_t kWindow = 4;       // tiles between two sums over the blocks
inline constexpr int64_t kMostBlocks = 64;  // about; fixed, so that the sums do not depend on the threads

// One tile of one group, rebuilt and walked backwards. `sums` (padded N / kPass, kTile, kSums) gets its part of dB, dC.
template <class T>
void BackwardTile(const SelectiveScanBackward<T>& args, const ScanGroup<T>& group, const Tile<T>& tile,
                  const BackwardScratch<T>& s, const GroupSums<T>& group_sums, T* sums) {
  const hn::ScalableTag<T> d;
  using Tag = decltype(d);
  const SelectiveScanForward<T>& f = args.forward;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t states = f.A.size[1];
  const int64_t padded = padded_states(states);
  load_states(s.decay, lanes, padded, &f.A(group.channel, 0), f.A.stride[0], f.A.stride[1], group.channels, states,
              static_cast<T>(kLog2E));
  pass_bounds(s.decay, lanes, padded, s.bound);
  load_states(s.start, lanes, padded, &f.checkpoint(group.b, tile.t0 / kTile, group.channel, 0), f.checkpoint.stride[2],
              f.checkpoint.stride[3], group.channels, states);
  const T largest = StageBackward(d, args, group, tile, s);
  const StateRows<T> B = stage_rows(f.B, group.b, tile.t0, tile.steps, s.B);
  const StateRows<T> C = stage_rows(f.C, group.b, tile.t0, tile.steps, s.C);
  for (int64_t n = 0; n < padded; n += kPass) {
    const bool fast = largest * s.bound[n / kPass] < fast_exp2_limit(d);
    const auto rebuild = f.z ? (fast ? RebuildPass<true, true, Tag, T> : RebuildPass<false, true, Tag, T>)
                             : (fast ? RebuildPass<true, false, Tag, T> : RebuildPass<false, false, Tag, T>);
    const StateRows<T> pass_B{B.data + n, B.stride};
    const StateRows<T> pass_C{C.data + n, C.stride};
    rebuild(d, tile, s, n, pass_B, pass_C);
    ReversePass(d, tile, s, n, pass_B, pass_C, group_sums, sums + n / kPass * kTile * kSums);
  }
  WriteGradients(d, args, group, tile, s, group_sums);
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
        block_(std::clamp<int64_t>(batch_ * groups_ / kMostBlocks, 1, std::max<int64_t>(groups_, 1))),
        blocks_((groups_ + block_ - 1) / block_),
        tile_sums_(padded_ * kTile * 2),
        block_sums_(std::min(tiles_, kWindow) * tile_sums_),
        group_sums_((2 * padded_ + 2) * lanes_) {}

  void run() {
    sums_ = allocate(batch_ * blocks_ * block_sums_);
    kept_ = allocate(batch_ * groups_ * group_sums_);
    const int64_t window_work =
        std::max<int64_t>(1, lanes_ * block_ * states_ * std::min(length_, kWindow * kTile));  // of a block
    const int64_t smallest = std::max<int64_t>(1, kSmallestPiece / window_work);               // blocks
    const int64_t pieces = thread_count() == 1 ? 1 : 4 * thread_count();
    span_ = std::clamp<int64_t>(std::max(batch_ * blocks_ / pieces, smallest), 1, std::max<int64_t>(1, blocks_));
    const int64_t spans = (blocks_ + span_ - 1) / span_;
    parallel_for(batch_ * groups_, smallest * block_, [this](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        start_group(i);
      }
    });
    for (int64_t last = tiles_; last > 0; last -= kWindow) {
      const int64_t first = std::max<int64_t>(0, last - kWindow);
      parallel_for(batch_ * spans, std::max<int64_t>(1, smallest / span_), [=, this](int64_t begin, int64_t end) {
        const BackwardScratch<T> scratch(lanes_, padded_);
        for (int64_t item = begin; item < end; ++item) {
          run_window(first, last, item / spans, item % spans * span_, scratch);
        }
      });
      const int64_t sum_work = std::max<int64_t>(1, blocks_ * tile_sums_);
      parallel_for(batch_ * (last - first), std::max<int64_t>(1, kSmallestPiece / sum_work),
                   [=, this](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i) {
                       sum_blocks(i / (last - first), first, i % (last - first));
                     }
                   });
    }
    parallel_for(groups_, std::max<int64_t>(1, kSmallestPiece / std::max<int64_t>(1, lanes_ * states_ * batch_ * 4)),
                 [this](int64_t begin, int64_t end) {
                   for (int64_t g = begin; g < end; ++g) {
                     finish_group(g);
                   }
                 });
  }

 private:
  static hwy::AlignedFreeUniquePtr<T[]> allocate(int64_t count) {
    return hwy::AllocateAligned<T>(static_cast<size_t>(std::max<int64_t>(1, count)));
  }

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

  T* sums_at(int64_t b, int64_t block, int64_t tile) const {
    return sums_.get() + (b * blocks_ + block) * block_sums_ + tile * tile_sums_;
  }

  // The tiles [first, last) of a span of blocks. Time outermost: a tile's rows lie on pages that all groups share.
  void run_window(int64_t first, int64_t last, int64_t b, int64_t first_block,
                  const BackwardScratch<T>& scratch) const {
    Tile<T> tile;
    for (int64_t k = last - 1; k >= first; --k) {
      tile.t0 = k * kTile;
      tile.steps = std::min(kTile, length_ - tile.t0);
      tile.run_count = find_runs(args_.forward.position, b, tile.t0, tile.steps, tile.runs);
      for (int64_t block = first_block; block < std::min(first_block + span_, blocks_); ++block) {
        T* sums = sums_at(b, block, k - first);
        std::fill(sums, sums + tile_sums_, T{0});
        for (int64_t g = block * block_; g < std::min((block + 1) * block_, groups_); ++g) {
          BackwardTile(args_, group_at(b, g), tile, scratch, sums_of(b, g), sums);
        }
      }
    }
  }

  // dB and dC of one tile: the sums of the blocks in their order.
  void sum_blocks(int64_t b, int64_t first, int64_t tile) const {
    T* HWY_RESTRICT total = sums_at(b, 0, tile);
    for (int64_t block = 1; block < blocks_; ++block) {
      const T* HWY_RESTRICT part = sums_at(b, block, tile);
      for (int64_t i = 0; i < tile_sums_; ++i) {
        total[i] += part[i];
      }
    }
    const int64_t t0 = (first + tile) * kTile;
    for (int64_t t = 0; t < std::min(kTile, length_ - t0); ++t) {
      for (int64_t n = 0; n < states_; ++n) {
        const T* from = total + (n / kPass * kTile + t) * kSums + n % kPass;
        args_.dB(b, t0 + t, n) = from[0];
        args_.dC(b, t0 + t, n) = from[kPass];
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
  int64_t block_, blocks_, span_ = 1;  // groups of a block, blocks of a batch row, blocks of a work item
  int64_t tile_sums_, block_sums_, group_sums_;
  hwy::AlignedFreeUniquePtr<T[]> sums_;  // (batch, blocks, block_sums_): dB and dC of a window
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
