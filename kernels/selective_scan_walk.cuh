// SPDX-License-Identifier: Apache-2.0
// The forward scan. A block walks 32 channels of one row of the batch through a segment of time, in tiles of 32 steps.
// Half of its threads scan: 4 lanes to a channel carry a quarter of its states each, and leave their parts of the sums
// over the states in shared memory. The other half prepares dt and dt * u of the tile after next and finishes the
// outputs of the last one: what is bound by special functions and what is bound by arithmetic then run side by side.
#pragma once

#include "kernels/selective_scan.cuh"

namespace blockstate::kernels::cuda::scan {

inline constexpr int kLanes = 4;  // to a channel

// What the blocks of one launch share out: groups of channels fastest, then segments, then rows.
struct Plan {
  int64_t groups;
  int64_t segments;
  int64_t segment_steps;  // a multiple of kScanCheckpoint unless there is one segment
  const float* entry;     // (segments, B, D, N): the state before each; null where there is one segment
};

// What a block does.
struct Work {
  int64_t b, segment, first_channel, begin, end;

  __device__ Work(const Plan& plan, int64_t length) {
    first_channel = blockIdx.x % plan.groups * kTileChannels;
    segment = blockIdx.x / plan.groups % plan.segments;
    b = blockIdx.x / plan.groups / plan.segments;
    begin = segment * plan.segment_steps;
    end = min(begin + plan.segment_steps, length);
  }
};

template <int kStates>  // of a lane
struct SharedTiles {
  struct Tile {
    float4 dt[kBlocks][kTileChannels];
    float4 w[kBlocks][kTileChannels];
    float4 part[kBlocks][kLanes][kTileChannels];
    alignas(16) float B[kTileSteps][kLanes * kStates];
    alignas(16) float C[kTileSteps][kLanes * kStates];
  };
  Tile tile[2];
  uint32_t starts[2];  // of records
};

// Barriers between the two halves of a block: tiles that are prepared, and tiles that are scanned.
inline constexpr int kPreparedBarrier = 1;
inline constexpr int kScannedBarrier = 3;
__device__ inline void wait_at(int barrier) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(2 * kTileThreads) : "memory");
}
__device__ inline void arrive_at(int barrier) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "n"(2 * kTileThreads) : "memory");
}

// The index of a lane's state i: lanes read neighbouring vectors.
template <int kStates>
__device__ constexpr int state_index(int lane, int i) {
  constexpr int kVector = kStates < 4 ? kStates : 4;
  return i / kVector * kVector * kLanes + lane * kVector + i % kVector;
}

// Where a lane's part of a channel's sums lies: the odd lanes' slots are turned so that a quarter of a warp, which
// stores two lanes of four channels, meets every bank once.
__device__ inline int part_slot(int lane, int slot) { return slot ^ (lane % 2 * 4); }

// --- the half that prepares and finishes
// ------------------------------------------------------------------------------

template <class T, int kStates, bool kPosition>
class Stager {
 public:
  __device__ Stager(const SelectiveScanForward<T, float>& args, const Plan& plan, SharedTiles<kStates>& shared)
      : args_(args), shared_(shared), work_(plan, args.u.size[1]), states_(static_cast<int>(args.A.size[1])) {
    const int64_t width = args.u.size[2];
    const int64_t channel = work_.first_channel + 2 * pair_;
    channels_ = pair_access(args.u, channel);
    whole_ = channels_.whole && pairs_aligned(args.delta) && (!args.z || pairs_aligned(args.z));
    whole_y_ = channels_.channels == 2 && pairs_aligned(args.y);
    const int64_t row = work_.begin + 4 * block_;
    u_ = args.u.data + work_.b * args.u.stride[0] + row * args.u.stride[1] + channel;
    delta_ = args.delta.data + work_.b * args.delta.stride[0] + row * args.delta.stride[1] + channel;
    z_ = args.z.data + work_.b * args.z.stride[0] + row * args.z.stride[1] + channel;
    y_ = args.y.data + work_.b * args.y.stride[0] + row * args.y.stride[1] + channel;
#pragma unroll
    for (int high = 0; high < 2; ++high) {
      bias_[high] = args.delta_bias && channel + high < width ? args.delta_bias(channel + high) : 0.0f;
      skip_[high] = args.D && channel + high < width ? args.D(channel + high) : 0.0f;
    }
    whole_tiles_ = static_cast<int>((work_.end - work_.begin) / kTileSteps);
    whole_quads_ = states_ % 4 == 0 && quads_aligned(args.B) && quads_aligned(args.C);
    whole_states_ = whole_quads_ && states_ == kLanes * kStates && kRowsAtOnce == kTileSteps;
    const int64_t quad_row = work_.begin + thread_ / kQuadsOfRow;
    B_ = args.B.data + work_.b * args.B.stride[0] + quad_row * args.B.stride[1];
    C_ = args.C.data + work_.b * args.C.stride[0] + quad_row * args.C.stride[1];
  }

  __device__ void run() {
    const int tiles = static_cast<int>(ceil_div(work_.end - work_.begin, int64_t{kTileSteps}));
    ChannelPair<T> u[2][4];  // of the tiles that are not finished
    load(0);
    prepare(0, 0, u[0]);
    load_z(0);
    if (tiles > 1) {
      load(1);
      prepare(1, 1, u[1]);
    }
    if (tiles > 2) {
      load(2);
    }
    for (int first = 0; first < tiles; first += 2) {
#pragma unroll
      for (int buffer = 0; buffer < 2; ++buffer) {
        const int i = first + buffer;
        if (i < tiles) {
          wait_at(kScannedBarrier + buffer);
          finish(i, buffer, u[buffer]);
          if (i + 1 < tiles) {
            load_z(i + 1);
          }
          if (i + 2 < tiles) {
            prepare(i + 2, buffer, u[buffer]);
          }
          if (i + 3 < tiles) {
            load(i + 3);
          }
        }
      }
    }
  }

 private:
  static constexpr int kQuadsOfRow = kLanes * kStates / 4;
  static constexpr int kRowsAtOnce = kTileThreads / kQuadsOfRow;
  static constexpr bool kAhead = kStates <= 4;  // B and C are fetched a tile ahead

  __device__ int64_t start_of(int tile) const { return work_.begin + tile * int64_t{kTileSteps}; }
  __device__ int steps_of(int tile) const {
    return static_cast<int>(min(work_.end - start_of(tile), int64_t{kTileSteps}));
  }
  __device__ int rows_of(int tile) const { return steps_of(tile) - 4 * block_; }
  __device__ TileSteps valid_steps(int tile) const {
    if (!kPosition && tile < whole_tiles_) {
      return {0xffffffffu, 0};
    }
    return tile_steps<kPosition>(args_.position, work_.b, start_of(tile), steps_of(tile));
  }

  // Asks for u, delta, B and C of a tile; tiles come in order.
  __device__ void load(int tile) {
    if (whole_ && tile < whole_tiles_) {
      load_whole_rows(u_, args_.u.stride[1], u_next_);
      load_whole_rows(delta_, args_.delta.stride[1], delta_next_);
    } else {
      load_rows(u_, args_.u.stride[1], rows_of(tile), channels_, u_next_);
      load_rows(delta_, args_.delta.stride[1], rows_of(tile), channels_, delta_next_);
    }
    u_ += kTileSteps * args_.u.stride[1];
    delta_ += kTileSteps * args_.delta.stride[1];
    if (kAhead) {
      if (whole_states_ && tile < whole_tiles_) {
        B_next_.load(B_, thread_ % kQuadsOfRow * 4, 0, true);
        C_next_.load(C_, thread_ % kQuadsOfRow * 4, 0, true);
      } else {
        load_quads(tile, 0);
      }
      B_ += kTileSteps * args_.B.stride[1];
      C_ += kTileSteps * args_.C.stride[1];
    }
  }

  __device__ void load_z(int tile) {
    if (args_.z) {
      if (whole_ && tile < whole_tiles_) {
        load_whole_rows(z_, args_.z.stride[1], z_next_);
      } else {
        load_rows(z_, args_.z.stride[1], rows_of(tile), channels_, z_next_);
      }
      z_ += kTileSteps * args_.z.stride[1];
    }
  }

  __device__ void load_quads(int tile, int pass) {
    const int first = thread_ % kQuadsOfRow * 4;
    B_next_ = {};
    C_next_ = {};
    const int row = thread_ / kQuadsOfRow + pass * kRowsAtOnce;
    if (first < states_ && row < steps_of(tile)) {
      B_next_.load(B_ + pass * kRowsAtOnce * args_.B.stride[1], first, states_, whole_quads_);
      C_next_.load(C_ + pass * kRowsAtOnce * args_.C.stride[1], first, states_, whole_quads_);
    }
  }

  __device__ void prepare(int i, int buffer, ChannelPair<T> (&u)[4]) {
    typename SharedTiles<kStates>::Tile& tile = shared_.tile[buffer];
    const TileSteps steps = valid_steps(i);
    if (kPosition && thread_ == 0) {
      shared_.starts[buffer] = steps.starts;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      u[j] = u_next_[j];
    }
    if (steps.valid == 0xffffffffu) {
      prepare_steps<true>(u, delta_next_, bias_[0], bias_[1], 0, &tile.dt[block_][pair_], &tile.w[block_][pair_]);
    } else {
      prepare_steps<false>(u, delta_next_, bias_[0], bias_[1], steps.valid >> (4 * block_), &tile.dt[block_][pair_],
                           &tile.w[block_][pair_]);
    }
#pragma unroll
    for (int pass = 0; pass < (kAhead ? 1 : kTileSteps / kRowsAtOnce); ++pass) {
      if (!kAhead) {
        load_quads(i, pass);
      }
      const int row = thread_ / kQuadsOfRow + pass * kRowsAtOnce;
      if (kRowsAtOnce <= kTileSteps || row < kTileSteps) {
        const bool counts = !kPosition || (steps.valid >> row & 1u) != 0;
        const float4 zero = make_float4(0, 0, 0, 0);
        float4* B = reinterpret_cast<float4*>(&tile.B[row][thread_ % kQuadsOfRow * 4]);
        float4* C = reinterpret_cast<float4*>(&tile.C[row][thread_ % kQuadsOfRow * 4]);
        *B = counts ? B_next_.as_float() : zero;
        *C = counts ? C_next_.as_float() : zero;
      }
    }
    if (!kAhead) {
      B_ += kTileSteps * args_.B.stride[1];
      C_ += kTileSteps * args_.C.stride[1];
    }
    arrive_at(kPreparedBarrier + buffer);
  }

  // Adds up the parts of the sums over the states, adds the skip, gates and writes.
  __device__ void finish(int i, int buffer, const ChannelPair<T> (&u)[4]) {
    const typename SharedTiles<kStates>::Tile& tile = shared_.tile[buffer];
    float low[4], high[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      low[j] = skip_[0] * low_of(u[j]);
      high[j] = skip_[1] * high_of(u[j]);
    }
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      const float4 low_part = tile.part[block_][lane][part_slot(lane, pair_)];
      const float4 high_part = tile.part[block_][lane][part_slot(lane, pair_ + kPairs)];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        low[j] += component(low_part, j);
        high[j] += component(high_part, j);
      }
    }
    if (args_.z) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        low[j] *= silu(low_of(z_next_[j]));
        high[j] *= silu(high_of(z_next_[j]));
      }
    }
    const TileSteps steps = valid_steps(i);
    if (steps.valid == 0xffffffffu && whole_y_) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        *reinterpret_cast<ChannelPair<T>*>(y_ + j * args_.y.stride[1]) = rounded_pair<T>(low[j], high[j]);
      }
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (j < rows_of(i)) {
          const bool counts = !kPosition || (steps.valid >> (4 * block_ + j) & 1u) != 0;
          T* to = y_ + j * args_.y.stride[1];
          if (channels_.channels >= 1) {
            to[0] = from_float<T>(counts ? low[j] : 0.0f);
          }
          if (channels_.channels == 2) {
            to[1] = from_float<T>(counts ? high[j] : 0.0f);
          }
        }
      }
    }
    y_ += kTileSteps * args_.y.stride[1];
  }

  const SelectiveScanForward<T, float>& args_;
  SharedTiles<kStates>& shared_;
  const Work work_;
  const int states_;
  const int thread_ = threadIdx.x % kTileThreads;
  const int pair_ = thread_ % kPairs;
  const int block_ = thread_ / kPairs;
  PairAccess channels_;
  int whole_tiles_;
  bool whole_, whole_y_, whole_quads_, whole_states_;
  const T *u_, *delta_, *z_, *B_, *C_;
  T* y_;
  float bias_[2], skip_[2];
  ChannelPair<T> u_next_[4], delta_next_[4], z_next_[4];
  StateQuad<T> B_next_, C_next_;
};

// --- the half that scans
// ----------------------------------------------------------------------------------------------

template <class T, int kStates, bool kPosition>
class Scanner {
 public:
  __device__ Scanner(const SelectiveScanForward<T, float>& args, const Plan& plan, SharedTiles<kStates>& shared)
      : args_(args), shared_(shared), work_(plan, args.u.size[1]), states_(static_cast<int>(args.A.size[1])) {
    // Of the bits of a lane in its warp, 1 and 4 choose the quarter of the states: then neighbours share a row of B and
    // C, lanes two apart share dt, and shared memory serves either with half the work.
    const int warp_lane = threadIdx.x % 32;
    lane_ = (warp_lane >> 1 & 1) | (warp_lane >> 4 & 1) << 1;
    slot_ = threadIdx.x / 32 * 8 + ((warp_lane & 1) | (warp_lane >> 1 & 6));
    channel_ = work_.first_channel + channel_of_slot(slot_);
    exists_ = channel_ < args.u.size[2];
    last_ = work_.segment == plan.segments - 1;
#pragma unroll
    for (int i = 0; i < kStates; ++i) {
      A_[i] = h_[i] = 0;
    }
    if (exists_) {
      read(&args.A(channel_, 0), args.A.stride[1], A_);
      if (plan.entry != nullptr) {
        const int64_t row = (work_.segment * args.u.size[0] + work_.b) * args.u.size[2] + channel_;
        read(plan.entry + row * states_, 1, h_);
      } else if (args.initial) {
        read(&args.initial(work_.b, channel_, 0), args.initial.stride[2], h_);
      }
    }
#pragma unroll
    for (int i = 0; i < kStates; ++i) {
      A_[i] = base2_decay(A_[i]);
    }
  }

  __device__ void run() {
    int buffer = 0;
    for (int64_t t0 = work_.begin; t0 < work_.end; t0 += kTileSteps, buffer ^= 1) {
      if (args_.checkpoint && static_cast<int>(t0) % static_cast<int>(kScanCheckpoint) == 0 && exists_) {
        write(&args_.checkpoint(work_.b, t0 / kScanCheckpoint, channel_, 0), args_.checkpoint.stride[3],
              states_ % 4 == 0 && quads_aligned(args_.checkpoint));
      }
      wait_at(kPreparedBarrier + buffer);
      typename SharedTiles<kStates>::Tile& tile = shared_.tile[buffer];
      const uint32_t starts = kPosition ? shared_.starts[buffer] : 0;
#pragma unroll 2
      for (int block = 0; block < kBlocks; ++block) {
        const uint32_t starts_here = starts >> (4 * block) & 15u;
        if (kPosition && starts_here != 0) {
          scan_block<true>(tile, block, starts_here);
        } else {
          scan_block<false>(tile, block, 0);
        }
      }
      arrive_at(kScannedBarrier + buffer);
    }
    if (args_.final && last_ && exists_) {
      write(&args_.final(work_.b, channel_, 0), args_.final.stride[2], states_ % 4 == 0 && quads_aligned(args_.final));
    }
  }

 private:
  // Four steps. `starts`: bits of the steps that start a record.
  template <bool kStarts>
  __device__ void scan_block(typename SharedTiles<kStates>::Tile& tile, int block, uint32_t starts) {
    constexpr int kVector = kStates < 4 ? kStates : 4;
    float y[4];
    const float4 dt = tile.dt[block][slot_];
    const float4 w = tile.w[block][slot_];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int i = 0; i < kStates; i += kVector) {
        float B[kVector], C[kVector];
        load_pack<kVector>(&tile.B[4 * block + j][i * kLanes + lane_ * kVector], B);
        load_pack<kVector>(&tile.C[4 * block + j][i * kLanes + lane_ * kVector], C);
#pragma unroll
        for (int v = 0; v < kVector; ++v) {
          float& h = h_[i + v];
          if (kStarts && (starts >> j & 1u) != 0) {
            h = 0;
          }
          h = fmaf(exp2_approx(component(dt, j) * A_[i + v]), h, component(w, j) * B[v]);
          y[j] = i + v == 0 ? C[v] * h : fmaf(C[v], h, y[j]);
        }
      }
    }
    tile.part[block][lane_][part_slot(lane_, slot_)] = make_float4(y[0], y[1], y[2], y[3]);
  }

  __device__ void read(const float* from, int64_t stride, float (&to)[kStates]) const {
#pragma unroll
    for (int i = 0; i < kStates; ++i) {
      const int n = state_index<kStates>(lane_, i);
      to[i] = n < states_ ? from[n * stride] : 0.0f;
    }
  }

  __device__ void write(float* to, int64_t stride, bool whole) const {
    if (kStates % 4 == 0 && whole) {
#pragma unroll
      for (int i = 0; i + 3 < kStates; i += 4) {
        const int n = state_index<kStates>(lane_, i);
        if (n < states_) {
          *reinterpret_cast<float4*>(to + n) = make_float4(h_[i], h_[i + 1], h_[i + 2], h_[i + 3]);
        }
      }
    } else {
#pragma unroll
      for (int i = 0; i < kStates; ++i) {
        const int n = state_index<kStates>(lane_, i);
        if (n < states_) {
          to[n * stride] = h_[i];
        }
      }
    }
  }

  const SelectiveScanForward<T, float>& args_;
  SharedTiles<kStates>& shared_;
  const Work work_;
  const int states_;
  int64_t channel_;
  int lane_, slot_;
  bool exists_, last_;
  float A_[kStates], h_[kStates];
};

/// Blocks of a multiprocessor, as registers allow.
constexpr int resident_blocks(int states_of_lane) { return states_of_lane <= 4 ? 3 : states_of_lane <= 16 ? 2 : 1; }

template <class T, int kStates, bool kPosition>
__global__ void __launch_bounds__(2 * kTileThreads, resident_blocks(kStates))
    forward_kernel(const __grid_constant__ SelectiveScanForward<T, float> args, const __grid_constant__ Plan plan) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  SharedTiles<kStates>& shared = *reinterpret_cast<SharedTiles<kStates>*>(shared_bytes);
  if (threadIdx.x < kTileThreads) {
    Scanner<T, kStates, kPosition>(args, plan, shared).run();
  } else {
    Stager<T, kStates, kPosition>(args, plan, shared).run();
  }
}

}  // namespace blockstate::kernels::cuda::scan
