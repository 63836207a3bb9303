// SPDX-License-Identifier: Apache-2.0
// A block of 128 threads walks 32 channels of one row through a segment of time, in tiles of 32 steps. Per tile: each
// thread prepares dt and dt * u of 2 channels and 4 steps in shared memory; then lanes, 4 to a channel, carry a quarter
// of its states each through the steps, and leave their parts of the sums over the states in shared memory; then each
// thread adds the parts up and gates the outputs of its 2 channels and 4 steps. Where rows and channels do not fill the
// GPU, time is cut into segments (selective_scan_segments.cuh).
#include "kernels/selective_scan.cuh"
#include "kernels/selective_scan_check.h"
#include "kernels/selective_scan_segments.cuh"

#ifndef SCAN_AHEAD
#define SCAN_AHEAD 0
#endif
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

template <int kStates>  // a lane
struct SharedTile {
  float4 dt[kBlocks][kTileChannels];
  float4 w[kBlocks][kTileChannels];
  float4 part[kBlocks][kLanes][kTileChannels];
  float B[kTileSteps][kLanes * kStates];
  float C[kTileSteps][kLanes * kStates];
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

// What a lane reads for four steps.
template <int kStates>
struct BlockInputs {
  float dt[4], w[4], B[4][kStates], C[4][kStates];

  __device__ void load(const SharedTile<kStates>& tile, int block, int slot, int lane) {
    constexpr int kVector = kStates < 4 ? kStates : 4;
    load_pack<4>(reinterpret_cast<const float*>(&tile.dt[block][slot]), dt);
    load_pack<4>(reinterpret_cast<const float*>(&tile.w[block][slot]), w);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int i = 0; i < kStates; i += kVector) {
        const Pack<float, kVector> b =
            *reinterpret_cast<const Pack<float, kVector>*>(&tile.B[4 * block + j][i * kLanes + lane * kVector]);
        const Pack<float, kVector> c =
            *reinterpret_cast<const Pack<float, kVector>*>(&tile.C[4 * block + j][i * kLanes + lane * kVector]);
#pragma unroll
        for (int v = 0; v < kVector; ++v) {
          B[j][i + v] = b.value[v];
          C[j][i + v] = c.value[v];
        }
      }
    }
  }
};

// Four steps of a lane's states. `starts`: bits of the steps that start a record. Of every 16 decays kPolynomials are
// computed without the special-function unit, which is else the limit.
template <int kStates, int kPolynomials, bool kStarts>
__device__ inline void scan_block(const BlockInputs<kStates>& in, uint32_t starts, const float (&A)[kStates],
                                  float (&h)[kStates], float (&y)[4]) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (kStarts && (starts >> j & 1u) != 0) {
#pragma unroll
      for (int i = 0; i < kStates; ++i) {
        h[i] = 0;
      }
    }
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kStates; ++i) {
      const int number = (j * kStates + i) % 16;
      const bool polynomial = number * kPolynomials / 16 != (number + 1) * kPolynomials / 16;
      const float x = in.dt[j] * A[i];
      const float a = polynomial ? exp2_polynomial(x) : exp2_approx(x);
      h[i] = fmaf(a, h[i], in.w[j] * in.B[j][i]);
      sum = i == 0 ? in.C[j][i] * h[i] : fmaf(in.C[j][i], h[i], sum);
    }
    y[j] = sum;
  }
}

template <class T, int kStates, bool kPosition, int kPolynomials>
__global__ void __launch_bounds__(kTileThreads, kStates <= 4 ? SCAN_MIN : 1)
    forward_kernel(const __grid_constant__ SelectiveScanForward<T, float> args, const Plan plan) {
  extern __shared__ __align__(16) unsigned char shared[];
  SharedTile<kStates>& tile = *reinterpret_cast<SharedTile<kStates>*>(shared);
  const int64_t length = args.u.size[1];
  const int64_t width = args.u.size[2];
  const int states = static_cast<int>(args.A.size[1]);
  const int64_t group = blockIdx.x % plan.groups;
  const int64_t segment = blockIdx.x / plan.groups % plan.segments;
  const int64_t b = blockIdx.x / plan.groups / plan.segments;
  const int64_t begin = segment * plan.segment_steps;
  const int64_t end = min(begin + plan.segment_steps, length);

  // For reading and writing: a pair of channels and a block of steps.
  const int pair = threadIdx.x % kPairs;
  const int block_of_thread = threadIdx.x / kPairs;
  const int64_t channel = group * kTileChannels + 2 * pair;
  const PairAccess u_access = pair_access(args.u, channel);
  const PairAccess y_access = pair_access(args.y, channel);
  const bool gated = static_cast<bool>(args.z);
  const bool whole_pairs = u_access.whole && pairs_aligned(args.delta) && (!gated || pairs_aligned(args.z));
  const int64_t first_row = begin + 4 * block_of_thread;
  const T* u_row = args.u.data + b * args.u.stride[0] + first_row * args.u.stride[1] + channel;
  const T* delta_row = args.delta.data + b * args.delta.stride[0] + first_row * args.delta.stride[1] + channel;
  const T* z_row = args.z.data + b * args.z.stride[0] + first_row * args.z.stride[1] + channel;
  T* y_row = args.y.data + b * args.y.stride[0] + first_row * args.y.stride[1] + channel;
  const bool low_exists = channel < width, high_exists = channel + 1 < width;
  const float bias_low = args.delta_bias && low_exists ? args.delta_bias(channel) : 0.0f;
  const float bias_high = args.delta_bias && high_exists ? args.delta_bias(channel + 1) : 0.0f;
  const float skip_low = args.D && low_exists ? args.D(channel) : 0.0f;
  const float skip_high = args.D && high_exists ? args.D(channel + 1) : 0.0f;

  // For scanning: a channel and a quarter of its states. Of the bits of the lane in its warp, 1 and 4 choose the
  // quarter: then neighbours share a row of B and C, lanes two apart share dt, and shared memory serves both at once.
  const int warp_lane = threadIdx.x % 32;
  const int lane = (warp_lane >> 1 & 1) | (warp_lane >> 4 & 1) << 1;
  const int slot = threadIdx.x / 32 * 8 + ((warp_lane & 1) | (warp_lane >> 1 & 6));
  const int64_t scanned = group * kTileChannels + channel_of_slot(slot);
  const bool scans = scanned < width;
  float A[kStates], h[kStates];
#pragma unroll
  for (int i = 0; i < kStates; ++i) {
    A[i] = h[i] = 0;
  }
  if (scans) {
    read_states(&args.A(scanned, 0), args.A.stride[1], states, lane, A);
    if (plan.entry != nullptr) {
      read_states(plan.entry + ((segment * args.u.size[0] + b) * width + scanned) * states, 1, states, lane, h);
    } else if (args.initial) {
      read_states(&args.initial(b, scanned, 0), args.initial.stride[2], states, lane, h);
    }
  }
#pragma unroll
  for (int i = 0; i < kStates; ++i) {
    A[i] = base2_decay(A[i]);
  }

  // For B and C: a step and four of its states, one after another where there are more than 16.
  constexpr int kQuads = kStates >= 4 ? kStates / 4 : 1;
  constexpr int kQuadsOfRow = kLanes * kStates / 4;
  constexpr int kRowsAtOnce = kTileThreads / kQuadsOfRow;
  const int quad = threadIdx.x % kQuadsOfRow;
  const int row_of_quad = threadIdx.x / kQuadsOfRow;  // past the tile where there are fewer quads than threads
  const bool whole_quads = states % 4 == 0;
  const bool B_whole = whole_quads && quads_aligned(args.B), C_whole = whole_quads && quads_aligned(args.C);
  const bool state_whole = whole_quads && args.checkpoint && quads_aligned(args.checkpoint);
  const bool quad_exists = 4 * quad < states && row_of_quad < kTileSteps;
  const T* B_row = args.B.data + b * args.B.stride[0] + (begin + row_of_quad) * args.B.stride[1];
  const T* C_row = args.C.data + b * args.C.stride[0] + (begin + row_of_quad) * args.C.stride[1];
  const auto load_states = [&](int64_t t0, int q, StateQuad<T>& B, StateQuad<T>& C) {
    B = {};
    C = {};
    if (quad_exists && t0 + row_of_quad + q * kRowsAtOnce < end) {
      B.load(B_row + q * kRowsAtOnce * args.B.stride[1], 4 * quad, states, B_whole);
      C.load(C_row + q * kRowsAtOnce * args.C.stride[1], 4 * quad, states, C_whole);
    }
  };

  ChannelPair<T> u_next[4], delta_next[4], z_next[4] = {};
  StateQuad<T> B_next, C_next;
  const auto load_tile = [&](int64_t t0) {
    if (whole_pairs && t0 + kTileSteps <= end) {
      load_whole_rows(u_row, args.u.stride[1], u_next);
      load_whole_rows(delta_row, args.delta.stride[1], delta_next);
      if (gated) {
        load_whole_rows(z_row, args.z.stride[1], z_next);
      }
    } else {
      const int rows = static_cast<int>(min(end - t0, int64_t{kTileSteps})) - 4 * block_of_thread;
      load_rows(u_row, args.u.stride[1], rows, u_access, u_next);
      load_rows(delta_row, args.delta.stride[1], rows, u_access, delta_next);
      if (gated) {
        load_rows(z_row, args.z.stride[1], rows, u_access, z_next);
      }
    }
    u_row += kTileSteps * args.u.stride[1];
    delta_row += kTileSteps * args.delta.stride[1];
    z_row += kTileSteps * args.z.stride[1];
    if (kQuads == 1) {
      load_states(t0, 0, B_next, C_next);
      B_row += kTileSteps * args.B.stride[1];
      C_row += kTileSteps * args.C.stride[1];
    }
  };

  load_tile(begin);
  for (int64_t t0 = begin; t0 < end; t0 += kTileSteps) {
    const TileSteps steps = tile_steps<kPosition>(args.position, b, t0, end - t0);
    const uint32_t valid = steps.valid >> (4 * block_of_thread);
    ChannelPair<T> u[4], z[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      u[j] = u_next[j];
      z[j] = z_next[j];
    }
    if (steps.valid == 0xffffffffu) {
      prepare_steps<true>(u, delta_next, bias_low, bias_high, valid, tile.dt[block_of_thread], tile.w[block_of_thread],
                          pair);
    } else {
      prepare_steps<false>(u, delta_next, bias_low, bias_high, valid, tile.dt[block_of_thread], tile.w[block_of_thread],
                           pair);
    }
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      if (kQuads > 1) {
        load_states(t0, q, B_next, C_next);
      }
      const int row = row_of_quad + q * kRowsAtOnce;
      if (row < kTileSteps) {
        const bool counts = !kPosition || (steps.valid >> row & 1u) != 0;
        const float4 zero = make_float4(0, 0, 0, 0);
        *reinterpret_cast<float4*>(&tile.B[row][4 * quad]) = counts ? B_next.as_float() : zero;
        *reinterpret_cast<float4*>(&tile.C[row][4 * quad]) = counts ? C_next.as_float() : zero;
      }
    }
    if (kQuads > 1) {
      B_row += kTileSteps * args.B.stride[1];
      C_row += kTileSteps * args.C.stride[1];
    }
    __syncthreads();

    if (t0 + kTileSteps < end) {
      load_tile(t0 + kTileSteps);
    }
    if (args.checkpoint && t0 % kScanCheckpoint == 0 && scans) {
      write_states(&args.checkpoint(b, t0 / kScanCheckpoint, scanned, 0), args.checkpoint.stride[3], state_whole,
                   states, lane, h);
    }
    // The next block's inputs are asked for before this block is computed, where registers allow.
    constexpr bool kAhead = kStates <= 4 && SCAN_AHEAD;
    BlockInputs<kStates> in;
    if (kAhead) {
      in.load(tile, 0, slot, lane);
    }
#pragma unroll 2
    for (int block = 0; block < kBlocks; ++block) {
      BlockInputs<kStates> next;
      if (kAhead) {
        next.load(tile, block + 1 < kBlocks ? block + 1 : block, slot, lane);
      } else {
        in.load(tile, block, slot, lane);
      }
      float y[4];
      const uint32_t starts = steps.starts >> (4 * block) & 15u;
      if (kPosition && starts != 0) {
        scan_block<kStates, kPolynomials, true>(in, starts, A, h, y);
      } else {
        scan_block<kStates, kPolynomials, false>(in, 0, A, h, y);
      }
      tile.part[block][lane][part_slot(lane, slot)] = make_float4(y[0], y[1], y[2], y[3]);
      if (kAhead) {
        in = next;
      }
    }
    __syncthreads();

    float low[4], high[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      low[j] = skip_low * low_of(u[j]);
      high[j] = skip_high * high_of(u[j]);
    }
#pragma unroll
    for (int part = 0; part < kLanes; ++part) {
      const float4 low_part = tile.part[block_of_thread][part][part_slot(part, pair)];
      const float4 high_part = tile.part[block_of_thread][part][part_slot(part, pair + kPairs)];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        low[j] += component(low_part, j);
        high[j] += component(high_part, j);
      }
    }
    if (gated) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        low[j] *= silu(low_of(z[j]));
        high[j] *= silu(high_of(z[j]));
      }
    }
    if (steps.valid == 0xffffffffu && y_access.whole) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        store_row(y_row + j * args.y.stride[1], y_access, low[j], high[j]);
      }
    } else {
      const int rows = static_cast<int>(min(end - t0, int64_t{kTileSteps})) - 4 * block_of_thread;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (j < rows) {
          const bool counts = !kPosition || (valid >> j & 1u) != 0;
          store_row(y_row + j * args.y.stride[1], y_access, counts ? low[j] : 0.0f, counts ? high[j] : 0.0f);
        }
      }
    }
    y_row += kTileSteps * args.y.stride[1];
  }
  if (args.final && segment == plan.segments - 1 && scans) {
    write_states(&args.final(b, scanned, 0), args.final.stride[2], whole_quads && quads_aligned(args.final), states,
                 lane, h);
  }
}

template <class T, int kStates, bool kPosition, int kPolynomials>
void launch_forward(const Exec& exec, const SelectiveScanForward<T, float>& args, const Plan& plan) {
  const auto kernel = forward_kernel<T, kStates, kPosition, kPolynomials>;
  constexpr int kShared = static_cast<int>(sizeof(SharedTile<kStates>));
  if (kShared > 48 * 1024) {
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared), "selective_scan");
  }
  const int64_t blocks = plan.groups * plan.segments * args.u.size[0];
  kernel<<<static_cast<unsigned>(blocks), kTileThreads, kShared, stream_of(exec)>>>(args, plan);
  check_launch(exec, "selective_scan");
}

template <class T, int kStates>
void launch_states(const Exec& exec, const SelectiveScanForward<T, float>& args, const Plan& plan) {
  if (args.position) {
    launch_forward<T, kStates, true, 0>(exec, args, plan);
  } else {
    launch_forward<T, kStates, false, kStates == 4 ? 1 : 0>(exec, args, plan);
  }
}

template <class T>
void scan_rows(const Exec& exec, const SelectiveScanForward<T, float>& args) {
  const int64_t batch = args.u.size[0], length = args.u.size[1], width = args.u.size[2], states = args.A.size[1];
  Plan plan;
  plan.groups = ceil_div(width, int64_t{kTileChannels});
  plan.segment_steps = segment_steps(exec, batch * plan.groups, length);
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
