// SPDX-License-Identifier: Apache-2.0
// One step of the selective scan: a group of lanes has a channel, and takes its states four at a time. A block has some
// channels and goes over a few rows of the batch with them.
#include <algorithm>

#include "kernels/cuda_launch.cuh"
#include "kernels/selective_scan.cuh"
#include "kernels/selective_scan_step.cuh"
#include "kernels/selective_scan_step_check.h"

namespace blockstate::kernels::cuda {
namespace {

using namespace scan;

constexpr int kThreads = 128;
constexpr int kMostRows = 8;  // of a block
template <class T>
constexpr int kPack = 16 / static_cast<int>(sizeof(T));  // elements of low and delta_weight that are read at once

struct StepPlan {
  int lanes;         // of a channel: a power of two, 32 at most
  int rows;          // of the batch, a block
  bool whole_ranks;  // low and delta_weight can be read in packs
};

__device__ inline float group_sum(float value, int lanes) {
  for (int offset = lanes / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
}

template <class T>
bool packs_of_ranks(const View<const T, 2>& rows) {
  return reinterpret_cast<uintptr_t>(rows.data) % 16 == 0 &&
         (rows.size[0] <= 1 || rows.stride[0] * static_cast<int64_t>(sizeof(T)) % 16 == 0);
}

/// This lane's part of sum_r low[b,r] delta_weight[d,r].
template <class T>
__device__ inline float partial_delta(const SelectiveScanStep<T, float>& args, int64_t b, int64_t d, int lane,
                                      const StepPlan& plan) {
  const T* low = args.low.data + b * args.low.stride[0];
  const T* weight = args.delta_weight.data + d * args.delta_weight.stride[0];
  const int64_t rank = args.low.size[1];
  float sum = 0;
  if (plan.whole_ranks) {
    for (int64_t r = kPack<T> * lane; r < rank; r += kPack<T> * plan.lanes) {
      float x[kPack<T>], w[kPack<T>];
      load_pack<kPack<T>>(low + r, x);
      load_pack<kPack<T>>(weight + r, w);
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) {
        sum = fmaf(x[i], w[i], sum);
      }
    }
  } else {
    for (int64_t r = lane; r < rank; r += plan.lanes) {
      sum = fmaf(to_float(low[r]), to_float(weight[r]), sum);
    }
  }
  return sum;
}

/// Four states of a channel and what moves them; zeros beyond the last.
struct Quad {
  float before[4] = {}, A[4] = {}, B[4] = {}, C[4] = {};
};

template <bool kWhole, class T>
__device__ inline Quad load_quad(const SelectiveScanForward<T, float>& args, int64_t b, int64_t d, int n, bool valid) {
  Quad quad;
  const int states = static_cast<int>(args.A.size[1]);
  if (kWhole && n < states) {
    if (args.initial) {
      load_pack<4>(&args.initial(b, d, n), quad.before);
    }
    if (valid) {
      load_pack<4>(&args.A(d, n), quad.A);
      load_pack<4>(&args.B(b, 0, n), quad.B);
      load_pack<4>(&args.C(b, 0, n), quad.C);
    }
  } else if (!kWhole) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (n + i < states) {
        quad.before[i] = args.initial ? args.initial(b, d, n + i) : 0.0f;
        quad.A[i] = valid ? args.A(d, n + i) : 0.0f;
        quad.B[i] = valid ? to_float(args.B(b, 0, n + i)) : 0.0f;
        quad.C[i] = valid ? to_float(args.C(b, 0, n + i)) : 0.0f;
      }
    }
  }
  return quad;
}

template <bool kWhole>
__device__ inline void store_quad(float* to, int64_t stride, int count, const float (&values)[4]) {
  if constexpr (kWhole) {
    store_pack<4>(to, values);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < count) {
        to[i * stride] = values[i];
      }
    }
  }
}

/// kProduct: delta is a product. kWhole: states can be read in fours.
template <class T, bool kProduct, bool kWhole>
__global__ void __launch_bounds__(kThreads)
    step_kernel(const __grid_constant__ SelectiveScanStep<T, float> all, const StepPlan plan) {
  const SelectiveScanForward<T, float>& args = all.scan;
  const int states = static_cast<int>(args.A.size[1]), lanes = plan.lanes;
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int64_t width = args.A.size[0];
  const int64_t channel = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / lanes;
  const bool exists = channel < width;
  const int64_t d = exists ? channel : 0;
  const int64_t first = int64_t{blockIdx.y} * plan.rows;
  const int64_t end = first + plan.rows < args.u.size[0] ? first + plan.rows : args.u.size[0];
  let_next_begin();
  if (exists) {
    const int n = 4 * lane < states ? 4 * lane : 0;
    prefetch_to_l2(&args.A(d, n));
    if (kProduct && 16 * lane < all.low.size[1]) {
      prefetch_to_l2(all.delta_weight.data + d * all.delta_weight.stride[0] + 16 * lane);
    }
    if (lane % 2 == 0 && args.initial) {
      for (int64_t b = first; b < end; ++b) {
        prefetch_to_l2(&args.initial(b, d, n));
      }
    }
  }
  wait_for_earlier_work();
  const bool has_step = args.u.size[1] == 1;  // else it hands the state on
  const float bias = args.delta_bias ? args.delta_bias(d) : 0.0f, skip = args.D ? args.D(d) : 0.0f;
  for (int64_t b = first; b < end; ++b) {
    const int64_t at = !has_step ? -1 : args.position ? args.position(b, 0) : 1;
    const bool valid = at >= 0, resumes = at != 0 && args.initial;
    // The states first: they come from furthest away.
    Quad quad = load_quad<kWhole>(args, b, d, exists ? 4 * lane : states, valid);
    float delta = 0, u = 0, gate = 0;
    if (valid) {  // the same for all threads of the block
      u = to_float(args.u(b, 0, d));
      gate = args.z ? to_float(args.z(b, 0, d)) : 0.0f;
      delta = kProduct ? group_sum(partial_delta(all, b, d, lane, plan), lanes) : to_float(args.delta(b, 0, d));
    }
    const float dt = valid ? softplus(delta + bias) : 0.0f;
    float sum = 0;
    for (int n = 4 * lane; exists && n < states; n += 4 * lanes) {
      float h[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float carried = valid && !resumes ? 0.0f : quad.before[i];
        h[i] = fmaf(exp2_approx(dt * base2_decay(quad.A[i])), carried, dt * u * quad.B[i]);
        sum = fmaf(quad.C[i], h[i], sum);
      }
      if (args.final) {
        store_quad<kWhole>(&args.final(b, d, n), args.final.stride[2], states - n, h);
      }
      if (args.checkpoint && has_step) {
        store_quad<kWhole>(&args.checkpoint(b, 0, d, n), args.checkpoint.stride[3], states - n, quad.before);
      }
      quad = load_quad<kWhole>(args, b, d, n + 4 * lanes, valid);
    }
    sum = group_sum(sum, lanes);
    if (exists && has_step && lane == 0) {
      const float value = (sum + skip * u) * (args.z ? silu(gate) : 1.0f);
      args.y(b, 0, d) = from_float<T>(valid ? value : 0.0f);
    }
  }
}

template <class T, bool kProduct>
void launch_step(const Exec& exec, const SelectiveScanStep<T, float>& step, const char* op) {
  const SelectiveScanForward<T, float>& args = step.scan;
  const int64_t batch = args.u.size[0], states = args.A.size[1];
  if (batch * args.A.size[0] == 0) {
    return;
  }
  StepPlan plan;
  plan.lanes = 1;
  while (plan.lanes < 32 && 4 * plan.lanes < states) {
    plan.lanes *= 2;
  }
  // As many rows a block as leave no more blocks than run at once: they share A and the weight of delta. At least as
  // many as the grid's second dimension needs.
  const int64_t groups = ceil_div(args.A.size[0] * plan.lanes, int64_t{kThreads});
  const int64_t wanted = ceil_div(batch * groups, int64_t{8} * multiprocessors(exec));
  plan.rows = static_cast<int>(std::max(std::clamp<int64_t>(wanted, 1, kMostRows), ceil_div<int64_t>(batch, 65535)));
  plan.whole_ranks =
      kProduct && step.low.size[1] % kPack<T> == 0 && packs_of_ranks(step.low) && packs_of_ranks(step.delta_weight);
  const bool whole = states % 4 == 0 && quads_aligned(args.A) && quads_aligned(args.B) && quads_aligned(args.C) &&
                     (!args.initial || quads_aligned(args.initial)) && (!args.final || quads_aligned(args.final)) &&
                     (!args.checkpoint || quads_aligned(args.checkpoint));
  const dim3 grid(static_cast<unsigned>(groups), static_cast<unsigned>(ceil_div<int64_t>(batch, plan.rows)));
  whole ? launch_early<step_kernel<T, kProduct, true>>(exec, op, grid, kThreads, 0, step, plan)
        : launch_early<step_kernel<T, kProduct, false>>(exec, op, grid, kThreads, 0, step, plan);
}

}  // namespace

template <class T>
void scan_one_step(const Exec& exec, const SelectiveScanForward<T, float>& args) {
  SelectiveScanStep<T, float> step;
  step.scan = args;
  launch_step<T, false>(exec, step, "selective_scan");
}

template <class T>
void selective_scan_step(const Exec& exec, const SelectiveScanStep<T, float>& args) {
  check_selective_scan_step(args);
  launch_step<T, true>(exec, args, "selective_scan_step");
}

template void scan_one_step<float>(const Exec&, const SelectiveScanForward<float, float>&);
template void scan_one_step<BFloat16>(const Exec&, const SelectiveScanForward<BFloat16, float>&);
template void selective_scan_step<float>(const Exec&, const SelectiveScanStep<float, float>&);
template void selective_scan_step<BFloat16>(const Exec&, const SelectiveScanStep<BFloat16, float>&);

}  // namespace blockstate::kernels::cuda
