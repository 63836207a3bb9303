// SPDX-License-Identifier: Apache-2.0
// A block of 128 threads walks 32 channels of one row through a segment of time, in tiles of 32 steps. Per tile: each
// thread prepares dt and dt * u of 2 channels and 4 steps in shared memory; then lanes, 4 to a channel, carry a quarter
// of its states each through the steps, and leave their parts of the sums over the states in shared memory; then each
// thread adds the parts up and gates the outputs of its 2 channels and 4 steps. Where rows and channels do not fill the
// GPU, time is cut into segments (selective_scan_segments.cuh).
#include "kernels/selective_scan.cuh"
#include "kernels/selective_scan_check.h"
#include "kernels/selective_scan_segments.cuh"

#ifndef SCAN_MIN
#define SCAN_MIN 4
#endif
namespace blockstate::kernels::cuda {
namespace {

using namespace scan;

constexpr int kLanes = 4;  // to a channel

// What the blocks of one launch share out: groups of channels fastest, then segments, then rows.
struct Plan {
  int64_t groups;
  int64_t segments;
  int64_t segment_steps;  // a multiple of kScanCheckpoint unless there is one segment
  const float* entry;     // (segments, B, D, N): the state before each; null where there is one segment
};

// Shared memory of a block. A thread that scans has kWide channels; there are kLanes of them to a channel, each with
// kStates of its states.
template <class T, int kStates, int kWide>
struct Shared {
  static constexpr int kChannels = kWide * kTileChannels;
  static constexpr int kRowStates = kLanes * kStates;
  static constexpr bool kRawStates = kRowStates <= 16;                         // B and C are fetched ahead
  static constexpr int kPitch = kChannels + 16 / static_cast<int>(sizeof(T));  // rows 4 apart lie in different banks

  struct Raw {
    alignas(16) T u[kTileSteps][kPitch];
    alignas(16) T delta[kTileSteps][kPitch];
    alignas(16) T z[kTileSteps][kPitch];
    alignas(16) T states[2][kRawStates ? kTileSteps : 1][kRowStates];  // B, C
  };

  Raw raw[2];
  float4 dt[kBlocks][kChannels];
  float4 w[kBlocks][kChannels];
  float4 part[kBlocks][kLanes][kChannels];
  alignas(16) float states[2][kTileSteps][kRowStates];
  alignas(16) T y[kTileSteps][kPitch];
};

// The index of a lane's state i: lanes read neighbouring vectors.
template <int kStates>
__device__ constexpr int state_index(int lane, int i) {
  constexpr int kVector = kStates < 4 ? kStates : 4;
  return i / kVector * kVector * kLanes + lane * kVector + i % kVector;
}

// Where a lane's part of a channel's sums lies: the odd lanes' slots are turned so that a quarter of a warp, which
// stores two lanes of four channels, meets every bank once.
__device__ inline int part_slot(int lane, int slot) { return slot ^ (lane % 2 * 4); }

__device__ inline void copy_async(void* to_shared, const void* from, bool exists) {
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(to_shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(exists ? 16 : 0) : "memory");
}
__device__ inline void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

template <int kStates>
__device__ void read_states(const float* from, int64_t stride, int states, int lane, float (&h)[kStates]) {
#pragma unroll
  for (int i = 0; i < kStates; ++i) {
    const int n = state_index<kStates>(lane, i);
    h[i] = n < states ? from[n * stride] : 0.0f;
  }
}

template <int kStates>
__device__ void write_states(float* to, int64_t stride, bool whole, int states, int lane, const float (&h)[kStates]) {
  if (kStates % 4 == 0 && whole) {
#pragma unroll
    for (int i = 0; i + 3 < kStates; i += 4) {
      const int n = state_index<kStates>(lane, i);
      if (n < states) {
        *reinterpret_cast<float4*>(to + n) = make_float4(h[i], h[i + 1], h[i + 2], h[i + 3]);
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < kStates; ++i) {
      const int n = state_index<kStates>(lane, i);
      if (n < states) {
        to[n * stride] = h[i];
      }
    }
  }
}

/// True where rows, and starts of groups of channels, lie on multiples of 16 bytes.
template <class T>
__device__ bool rows_aligned(const View<T, 3>& view) {
  return (view.stride[0] | view.stride[1]) * static_cast<int64_t>(sizeof(T)) % 16 == 0 &&
         reinterpret_cast<uintptr_t>(view.data) % 16 == 0;
}

// One block's work: kWide * 32 channels of a row of the batch, through one segment.
template <class T, int kStates, bool kPosition, int kPolynomials, int kWide>
class Walk {
 public:
  using Memory = Shared<T, kStates, kWide>;

  __device__ Walk(const SelectiveScanForward<T, float>& args, const Plan& plan, Memory& memory)
      : args_(args), memory_(memory) {
    const int64_t group = blockIdx.x % plan.groups;
    segment_ = blockIdx.x / plan.groups % plan.segments;
    b_ = blockIdx.x / plan.groups / plan.segments;
    first_channel_ = group * kChannels;
    begin_ = segment_ * plan.segment_steps;
    end_ = min(begin_ + plan.segment_steps, args.u.size[1]);
    last_segment_ = segment_ == plan.segments - 1;
    states_ = static_cast<int>(args.A.size[1]);
    const int64_t width = args.u.size[2];
    const bool whole_group = first_channel_ + kChannels <= width;
    whole_rows_ = whole_group && rows_aligned(args.u) && rows_aligned(args.delta) && (!args.z || rows_aligned(args.z));
    whole_y_ = whole_group && rows_aligned(args.y);
    whole_states_ = states_ == kRowStates && rows_aligned(args.B) && rows_aligned(args.C);

    const int64_t row = begin_ + threadIdx.x / kChunks;
    const int64_t column = first_channel_ + threadIdx.x % kChunks * kPerChunk;
    u_ = args.u.data + b_ * args.u.stride[0] + row * args.u.stride[1] + column;
    delta_ = args.delta.data + b_ * args.delta.stride[0] + row * args.delta.stride[1] + column;
    z_ = args.z.data + b_ * args.z.stride[0] + row * args.z.stride[1] + column;
    y_ = args.y.data + b_ * args.y.stride[0] + row * args.y.stride[1] + column;
#pragma unroll
    for (int i = 0; i < kStateItems; ++i) {
      const int item = i * kTileThreads + threadIdx.x;
      const View<const T, 3>& from = item / (kTileSteps * kStateChunks) == 0 ? args.B : args.C;
      const int64_t state_row = begin_ + item / kStateChunks % kTileSteps;
      state_rows_[i] = from.data + b_ * from.stride[0] + state_row * from.stride[1] + item % kStateChunks * kPerChunk;
      state_steps_[i] = kTileSteps * from.stride[1];
    }
#pragma unroll
    for (int r = 0; r < kWide; ++r) {
#pragma unroll
      for (int high = 0; high < 2; ++high) {
        const int64_t channel = first_channel_ + r * kTileChannels + 2 * pair_ + high;
        bias_[r][high] = args.delta_bias && channel < width ? args.delta_bias(channel) : 0.0f;
        skip_[r][high] = args.D && channel < width ? args.D(channel) : 0.0f;
      }
    }

    // Of the bits of a lane in its warp, 1 and 4 choose the quarter of the states: then neighbours share a row of B and
    // C, lanes two apart share dt, and shared memory serves either with half the work.
    const int warp_lane = threadIdx.x % 32;
    lane_ = (warp_lane >> 1 & 1) | (warp_lane >> 4 & 1) << 1;
    slot_ = threadIdx.x / 32 * 8 + ((warp_lane & 1) | (warp_lane >> 1 & 6));
#pragma unroll
    for (int r = 0; r < kWide; ++r) {
#pragma unroll
      for (int i = 0; i < kStates; ++i) {
        A_[r][i] = h_[r][i] = 0;
      }
      const int64_t channel = scanned(r);
      if (channel < width) {
        read_states(&args.A(channel, 0), args.A.stride[1], states_, lane_, A_[r]);
        if (plan.entry != nullptr) {
          const int64_t entry = ((segment_ * args.u.size[0] + b_) * width + channel) * states_;
          read_states(plan.entry + entry, 1, states_, lane_, h_[r]);
        } else if (args.initial) {
          read_states(&args.initial(b_, channel, 0), args.initial.stride[2], states_, lane_, h_[r]);
        }
      }
#pragma unroll
      for (int i = 0; i < kStates; ++i) {
        A_[r][i] = base2_decay(A_[r][i]);
      }
    }
  }

  __device__ void run() {
    fetch(begin_, 0);
    wait_for_copies();
    __syncthreads();
    int64_t t0 = begin_;
    for (int buffer = 0; t0 < end_; t0 += kTileSteps, buffer ^= 1) {
      const TileSteps steps = tile_steps<kPosition>(args_.position, b_, t0, end_ - t0);
      prepare(t0, buffer, steps);
      __syncthreads();
      if (t0 > begin_) {
        write_y(t0 - kTileSteps);
      }
      if (t0 + kTileSteps < end_) {
        fetch(t0 + kTileSteps, buffer ^ 1);
      }
      if (args_.checkpoint && static_cast<int>(t0) % static_cast<int>(kScanCheckpoint) == 0) {
        write_checkpoint(t0);
      }
      scan(steps);
      wait_for_copies();
      __syncthreads();
      finish(buffer, steps);
    }
    __syncthreads();
    write_y(t0 - kTileSteps);
    if (args_.final && last_segment_) {
      const bool whole = states_ % 4 == 0 && quads_aligned(args_.final);
#pragma unroll
      for (int r = 0; r < kWide; ++r) {
        if (scanned(r) < args_.u.size[2]) {
          write_states(&args_.final(b_, scanned(r), 0), args_.final.stride[2], whole, states_, lane_, h_[r]);
        }
      }
    }
  }

 private:
  static constexpr int kChannels = Memory::kChannels;
  static constexpr int kRowStates = Memory::kRowStates;
  static constexpr int kPerChunk = 16 / static_cast<int>(sizeof(T));
  static constexpr int kChunks = kChannels / kPerChunk;  // of a row
  static constexpr int kRowsAtOnce = kTileThreads / kChunks;
  static constexpr int kStateChunks = kRowStates / kPerChunk;
  static constexpr int kStateItems =
      Memory::kRawStates ? (2 * kTileSteps * kStateChunks + kTileThreads - 1) / kTileThreads : 1;

  __device__ int64_t scanned(int r) const { return first_channel_ + r * kTileChannels + channel_of_slot(slot_); }

  // Asks for the inputs of the tile at t0; steps and channels that do not exist become 0.
  __device__ void fetch(int64_t t0, int buffer) {
    typename Memory::Raw& raw = memory_.raw[buffer];
    const int steps = static_cast<int>(min(end_ - t0, int64_t{kTileSteps}));
    if (whole_rows_) {
      const int column = threadIdx.x % kChunks * kPerChunk;
#pragma unroll
      for (int i = 0; i < kTileSteps / kRowsAtOnce; ++i) {
        const int row = i * kRowsAtOnce + threadIdx.x / kChunks;
        copy_async(&raw.u[row][column], u_ + i * kRowsAtOnce * args_.u.stride[1], row < steps);
        copy_async(&raw.delta[row][column], delta_ + i * kRowsAtOnce * args_.delta.stride[1], row < steps);
        if (args_.z) {
          copy_async(&raw.z[row][column], z_ + i * kRowsAtOnce * args_.z.stride[1], row < steps);
        }
      }
      u_ += kTileSteps * args_.u.stride[1];
      delta_ += kTileSteps * args_.delta.stride[1];
      z_ += kTileSteps * args_.z.stride[1];
    } else {
      fetch_elements(args_.u, t0, steps, raw.u);
      fetch_elements(args_.delta, t0, steps, raw.delta);
      if (args_.z) {
        fetch_elements(args_.z, t0, steps, raw.z);
      }
    }
    if constexpr (Memory::kRawStates) {
      if (whole_states_) {
#pragma unroll
        for (int i = 0; i < kStateItems; ++i) {
          const int item = i * kTileThreads + threadIdx.x;
          if (2 * kTileSteps * kStateChunks % kTileThreads == 0 || item < 2 * kTileSteps * kStateChunks) {
            const int row = item / kStateChunks % kTileSteps;
            copy_async(&raw.states[0][0][0] + item * kPerChunk, state_rows_[i], row < steps);
          }
          state_rows_[i] += state_steps_[i];
        }
      } else {
#pragma unroll 1
        for (int item = threadIdx.x; item < kTileSteps * kRowStates; item += kTileThreads) {
          const int row = item / kRowStates, n = item % kRowStates;
          const bool exists = row < steps && n < states_;
          raw.states[0][row][n] = exists ? args_.B(b_, t0 + row, n) : T{};
          raw.states[1][row][n] = exists ? args_.C(b_, t0 + row, n) : T{};
        }
      }
    }
  }

  __device__ void fetch_elements(const View<const T, 3>& from, int64_t t0, int steps,
                                 T (&to)[kTileSteps][Memory::kPitch]) {
#pragma unroll 1
    for (int item = threadIdx.x; item < kTileSteps * kChannels; item += kTileThreads) {
      const int row = item / kChannels, column = item % kChannels;
      const bool exists = row < steps && first_channel_ + column < args_.u.size[2];
      to[row][column] = exists ? from(b_, t0 + row, first_channel_ + column) : T{};
    }
  }

  // dt, dt * u, B and C, from the fetched inputs.
  __device__ void prepare(int64_t t0, int buffer, const TileSteps& steps) {
    const typename Memory::Raw& raw = memory_.raw[buffer];
    const uint32_t valid = steps.valid >> (4 * block_);
#pragma unroll
    for (int r = 0; r < kWide; ++r) {
      ChannelPair<T> u[4], delta[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        u[j] = pair_at(raw.u, j, r);
        delta[j] = pair_at(raw.delta, j, r);
      }
      float4* dt = &memory_.dt[block_][r * kTileChannels + pair_];
      float4* w = &memory_.w[block_][r * kTileChannels + pair_];
      if (steps.valid == 0xffffffffu) {
        prepare_steps<true>(u, delta, bias_[r][0], bias_[r][1], valid, dt, w);
      } else {
        prepare_steps<false>(u, delta, bias_[r][0], bias_[r][1], valid, dt, w);
      }
    }
    if constexpr (Memory::kRawStates) {
      constexpr int kQuads = kTileSteps * kRowStates / 4;
      if (kQuads % kTileThreads == 0 || threadIdx.x < kQuads) {
        const int row = threadIdx.x / (kRowStates / 4);
        const bool counts = !kPosition || (steps.valid >> row & 1u) != 0;
#pragma unroll
        for (int which = 0; which < 2; ++which) {
          StateQuad<T> quad;
          quad.load(&raw.states[which][0][0], 4 * threadIdx.x, 0, true);
          const float4 zero = make_float4(0, 0, 0, 0);
          *reinterpret_cast<float4*>(&memory_.states[which][0][0] + 4 * threadIdx.x) = counts ? quad.as_float() : zero;
        }
      }
    } else {
#pragma unroll 1
      for (int item = threadIdx.x; item < kTileSteps * kRowStates; item += kTileThreads) {
        const int row = item / kRowStates, n = item % kRowStates;
        const bool exists = (steps.valid >> row & 1u) != 0 && n < states_;
        memory_.states[0][row][n] = exists ? to_float(args_.B(b_, t0 + row, n)) : 0.0f;
        memory_.states[1][row][n] = exists ? to_float(args_.C(b_, t0 + row, n)) : 0.0f;
      }
    }
  }

  __device__ void scan(const TileSteps& steps) {
#pragma unroll 2
    for (int block = 0; block < kBlocks; ++block) {
      const uint32_t starts = steps.starts >> (4 * block) & 15u;
      if (kPosition && starts != 0) {
        scan_block<true>(block, starts);
      } else {
        scan_block<false>(block, 0);
      }
    }
  }

  // Four steps of a lane's states. `starts`: bits of the steps that start a record. Of every 16 decays kPolynomials are
  // computed without the special-function unit, which is else the limit.
  template <bool kStarts>
  __device__ void scan_block(int block, uint32_t starts) {
    constexpr int kVector = kStates < 4 ? kStates : 4;
    float dt[kWide][4], w[kWide][4], y[kWide][4];
#pragma unroll
    for (int r = 0; r < kWide; ++r) {
      load_pack<4>(reinterpret_cast<const float*>(&memory_.dt[block][r * kTileChannels + slot_]), dt[r]);
      load_pack<4>(reinterpret_cast<const float*>(&memory_.w[block][r * kTileChannels + slot_]), w[r]);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float* B_row = &memory_.states[0][4 * block + j][lane_ * kVector];
      const float* C_row = &memory_.states[1][4 * block + j][lane_ * kVector];
#pragma unroll
      for (int i = 0; i < kStates; i += kVector) {
        float B[kVector], C[kVector];
        load_pack<kVector>(B_row + i * kLanes, B);
        load_pack<kVector>(C_row + i * kLanes, C);
#pragma unroll
        for (int r = 0; r < kWide; ++r) {
#pragma unroll
          for (int v = 0; v < kVector; ++v) {
            float& h = h_[r][i + v];
            if (kStarts && (starts >> j & 1u) != 0) {
              h = 0;
            }
            const int number = (j * kStates + i + v) % 16;
            const bool polynomial = number * kPolynomials / 16 != (number + 1) * kPolynomials / 16;
            const float x = dt[r][j] * A_[r][i + v];
            const float a = polynomial ? exp2_polynomial(x) : exp2_approx(x);
            h = fmaf(a, h, w[r][j] * B[v]);
            y[r][j] = i + v == 0 ? C[v] * h : fmaf(C[v], h, y[r][j]);
          }
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kWide; ++r) {
      memory_.part[block][lane_][part_slot(lane_, r * kTileChannels + slot_)] =
          make_float4(y[r][0], y[r][1], y[r][2], y[r][3]);
    }
  }

  // Sums over the states, skip and gate; rounded outputs to shared memory.
  __device__ void finish(int buffer, const TileSteps& steps) {
    const typename Memory::Raw& raw = memory_.raw[buffer];
    const uint32_t valid = steps.valid >> (4 * block_);
#pragma unroll
    for (int r = 0; r < kWide; ++r) {
      float low[4], high[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const ChannelPair<T> u = pair_at(raw.u, j, r);
        low[j] = skip_[r][0] * low_of(u);
        high[j] = skip_[r][1] * high_of(u);
      }
#pragma unroll
      for (int part = 0; part < kLanes; ++part) {
        const int slot = r * kTileChannels + pair_;
        const float4 low_part = memory_.part[block_][part][part_slot(part, slot)];
        const float4 high_part = memory_.part[block_][part][part_slot(part, slot + kPairs)];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          low[j] += component(low_part, j);
          high[j] += component(high_part, j);
        }
      }
      if (args_.z) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const ChannelPair<T> z = pair_at(raw.z, j, r);
          low[j] *= silu(low_of(z));
          high[j] *= silu(high_of(z));
        }
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const bool counts = !kPosition || (valid >> j & 1u) != 0;
        *reinterpret_cast<ChannelPair<T>*>(&memory_.y[4 * block_ + j][r * kTileChannels + 2 * pair_]) =
            rounded_pair<T>(counts ? low[j] : 0.0f, counts ? high[j] : 0.0f);
      }
    }
  }

  __device__ void write_y(int64_t t0) {
    const int steps = static_cast<int>(min(end_ - t0, int64_t{kTileSteps}));
    if (whole_y_) {
      const int column = threadIdx.x % kChunks * kPerChunk;
#pragma unroll
      for (int i = 0; i < kTileSteps / kRowsAtOnce; ++i) {
        const int row = i * kRowsAtOnce + threadIdx.x / kChunks;
        if (row < steps) {
          *reinterpret_cast<float4*>(y_ + i * kRowsAtOnce * args_.y.stride[1]) =
              *reinterpret_cast<const float4*>(&memory_.y[row][column]);
        }
      }
      y_ += kTileSteps * args_.y.stride[1];
    } else {
#pragma unroll 1
      for (int item = threadIdx.x; item < steps * kChannels; item += kTileThreads) {
        const int row = item / kChannels, column = item % kChannels;
        if (first_channel_ + column < args_.u.size[2]) {
          args_.y(b_, t0 + row, first_channel_ + column) = memory_.y[row][column];
        }
      }
    }
  }

  __device__ void write_checkpoint(int64_t t0) {
    const bool whole = states_ % 4 == 0 && quads_aligned(args_.checkpoint);
#pragma unroll
    for (int r = 0; r < kWide; ++r) {
      if (scanned(r) < args_.u.size[2]) {
        write_states(&args_.checkpoint(b_, t0 / kScanCheckpoint, scanned(r), 0), args_.checkpoint.stride[3], whole,
                     states_, lane_, h_[r]);
      }
    }
  }

  __device__ ChannelPair<T> pair_at(const T (&rows)[kTileSteps][Memory::kPitch], int j, int r) const {
    return *reinterpret_cast<const ChannelPair<T>*>(&rows[4 * block_ + j][r * kTileChannels + 2 * pair_]);
  }

  const SelectiveScanForward<T, float>& args_;
  Memory& memory_;
  int64_t b_, segment_, first_channel_, begin_, end_;
  int states_;
  bool last_segment_, whole_rows_, whole_y_, whole_states_;
  // For fetching and writing: 16 bytes of a row.
  const T *u_, *delta_, *z_;
  T* y_;
  const T* state_rows_[kStateItems];
  int64_t state_steps_[kStateItems];
  // For preparing and finishing: pairs of channels, and a block of four steps.
  const int pair_ = threadIdx.x % kPairs;
  const int block_ = threadIdx.x / kPairs;
  float bias_[kWide][2], skip_[kWide][2];
  // For scanning.
  int lane_, slot_;
  float A_[kWide][kStates], h_[kWide][kStates];
};

template <class T, int kStates, bool kPosition, int kPolynomials, int kWide>
__global__ void __launch_bounds__(kTileThreads, kStates > 4                    ? 1
                                                : kWide == 2 || sizeof(T) == 4 ? 2
                                                                               : SCAN_MIN)
    forward_kernel(const __grid_constant__ SelectiveScanForward<T, float> args, const __grid_constant__ Plan plan) {
  extern __shared__ __align__(16) unsigned char shared[];
  Walk<T, kStates, kPosition, kPolynomials, kWide>(args, plan, *reinterpret_cast<Shared<T, kStates, kWide>*>(shared))
      .run();
}

template <class T, int kStates, bool kPosition, int kPolynomials, int kWide>
void launch_forward(const Exec& exec, const SelectiveScanForward<T, float>& args, const Plan& plan) {
  const auto kernel = forward_kernel<T, kStates, kPosition, kPolynomials, kWide>;
  constexpr int kBytes = static_cast<int>(sizeof(Shared<T, kStates, kWide>));
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), "selective_scan");
  const int64_t blocks = plan.groups * plan.segments * args.u.size[0];
  kernel<<<static_cast<unsigned>(blocks), kTileThreads, kBytes, stream_of(exec)>>>(args, plan);
  check_launch(exec, "selective_scan");
}

template <class T, int kStates>
void launch_states(const Exec& exec, const SelectiveScanForward<T, float>& args, const Plan& plan) {
  if (args.position) {
    launch_forward<T, kStates, true, 0, 1>(exec, args, plan);
  } else {
    launch_forward<T, kStates, false, kStates == 4 ? 1 : 0, 1>(exec, args, plan);
  }
}

template <class T>
void scan_rows(const Exec& exec, const SelectiveScanForward<T, float>& args) {
  const int64_t batch = args.u.size[0], length = args.u.size[1], width = args.u.size[2], states = args.A.size[1];
  Plan plan;
  plan.groups = ceil_div(width, int64_t{kTileChannels});
  plan.segment_steps = segment_steps(4 * multiprocessors(exec), batch * plan.groups, length);
  plan.segments = ceil_div(length, plan.segment_steps);
  plan.entry = nullptr;
  const Scratch<float> entry(exec, plan.segments > 1 ? plan.segments * batch * width * states : 1);
  if (plan.segments > 1) {
    find_entries(exec, args, plan.segments, plan.segment_steps, entry.get());
    plan.entry = entry.get();
  }
  if (states <= 8) {
    launch_states<T, 2>(exec, args, plan);
  } else if (states <= 16) {
    launch_states<T, 4>(exec, args, plan);
  } else if (states <= 32) {
    launch_states<T, 8>(exec, args, plan);
  } else if (states <= 64) {
    launch_states<T, 16>(exec, args, plan);
  } else {
    launch_states<T, 64>(exec, args, plan);
  }
}

// --- one step: a group of lanes has a channel, and takes its states four at a time
// ------------------------------------

template <class T>
__global__ void __launch_bounds__(256)
    step_kernel(const __grid_constant__ SelectiveScanForward<T, float> args, int lanes, bool whole) {
  const int states = static_cast<int>(args.A.size[1]);
  const int64_t width = args.A.size[0];
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t item = thread / lanes;
  const int lane = static_cast<int>(thread % lanes);
  const bool exists = item < args.u.size[0] * width;
  const int64_t b = exists ? item / width : 0, d = exists ? item % width : 0;
  const bool has_step = args.u.size[1] == 1;  // else it hands the state on
  const int64_t at = !has_step ? -1 : args.position ? args.position(b, 0) : 1;
  const bool valid = at >= 0, resumes = at != 0 && args.initial;
  float dt = 0, u = 0;
  if (valid) {
    u = to_float(args.u(b, 0, d));
    dt = softplus(to_float(args.delta(b, 0, d)) + (args.delta_bias ? args.delta_bias(d) : 0.0f));
  }
  float sum = 0;
  for (int n = 4 * lane; exists && n < states; n += 4 * lanes) {
    float before[4] = {}, A[4] = {}, B[4] = {}, C[4] = {};
    if (whole) {
      if (args.initial) {
        load_pack<4>(&args.initial(b, d, n), before);
      }
      if (valid) {
        load_pack<4>(&args.A(d, n), A);
        load_pack<4>(&args.B(b, 0, n), B);
        load_pack<4>(&args.C(b, 0, n), C);
      }
    } else {
      for (int i = 0; i < 4 && n + i < states; ++i) {
        before[i] = args.initial ? args.initial(b, d, n + i) : 0.0f;
        A[i] = valid ? args.A(d, n + i) : 0.0f;
        B[i] = valid ? to_float(args.B(b, 0, n + i)) : 0.0f;
        C[i] = valid ? to_float(args.C(b, 0, n + i)) : 0.0f;
      }
    }
    float h[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float carried = valid && !resumes ? 0.0f : before[i];
      h[i] = fmaf(exp2_approx(dt * base2_decay(A[i])), carried, dt * u * B[i]);
      sum = fmaf(C[i], h[i], sum);
    }
    if (whole) {
      if (args.final) {
        store_pack<4>(&args.final(b, d, n), h);
      }
      if (args.checkpoint && has_step) {
        store_pack<4>(&args.checkpoint(b, 0, d, n), before);
      }
    } else {
      for (int i = 0; i < 4 && n + i < states; ++i) {
        if (args.final) {
          args.final(b, d, n + i) = h[i];
        }
        if (args.checkpoint && has_step) {
          args.checkpoint(b, 0, d, n + i) = before[i];
        }
      }
    }
  }
  for (int offset = lanes / 2; offset > 0; offset /= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  }
  if (exists && has_step && lane == 0) {
    float v = 0;
    if (valid) {
      v = sum + (args.D ? args.D(d) * u : 0.0f);
      v *= args.z ? silu(to_float(args.z(b, 0, d))) : 1.0f;
    }
    args.y(b, 0, d) = from_float<T>(v);
  }
}

template <class T>
void step_rows(const Exec& exec, const SelectiveScanForward<T, float>& args) {
  const int64_t states = args.A.size[1];
  int lanes = 1;
  while (lanes < 32 && 4 * lanes < states) {
    lanes *= 2;
  }
  const bool whole = states % 4 == 0 && quads_aligned(args.A) && quads_aligned(args.B) && quads_aligned(args.C) &&
                     (!args.initial || quads_aligned(args.initial)) && (!args.final || quads_aligned(args.final)) &&
                     (!args.checkpoint || quads_aligned(args.checkpoint));
  const int64_t blocks = ceil_div(args.u.size[0] * args.A.size[0] * lanes, int64_t{256});
  step_kernel<T><<<static_cast<unsigned>(blocks), 256, 0, stream_of(exec)>>>(args, lanes, whole);
  check_launch(exec, "selective_scan");
}

template <class T>
void forward(const Exec& exec, const SelectiveScanForward<T, float>& args) {
  check_selective_scan(args, kScanCheckpoint);
  if (args.u.size[0] * args.A.size[0] == 0) {
    return;
  }
  if (args.u.size[1] <= 1) {
    step_rows(exec, args);
  } else {
    scan_rows(exec, args);
  }
}

}  // namespace

template <>
void selective_scan_forward(const Exec& exec, const SelectiveScanForward<float, float>& args) {
  forward(exec, args);
}
template <>
void selective_scan_forward(const Exec& exec, const SelectiveScanForward<BFloat16, float>& args) {
  forward(exec, args);
}

}  // namespace blockstate::kernels::cuda
