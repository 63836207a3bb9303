// SPDX-License-Identifier: Apache-2.0
// One step of the selective scan: a group of lanes has a channel, and takes its states four at a time. A block has some
// channels of one row of the batch or a few.
#include <type_traits>

#include "kernels/cuda_launch.cuh"
#include "kernels/selective_scan.cuh"
#include "kernels/selective_scan_step.cuh"
#include "kernels/selective_scan_step_check.h"

namespace blockstate::kernels::cuda {
namespace {

using namespace scan;

constexpr int kThreads = 128;
constexpr int kMostRows = 4;  // of a block
template <class T>
constexpr int kPack = 16 / static_cast<int>(sizeof(T));  // elements of low and delta_weight that are read at once

struct StepPlan {
  int lanes;         // of a channel: a power of two, 32 at most
  unsigned groups;   // blocks side by side over the channels
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

/// This lane's parts of sum_r low[b,r] delta_weight[d,r] for kRows rows of the batch.
template <int kRows, class T>
__device__ inline void partial_deltas(const SelectiveScanStep<T, float>& args, const int64_t (&b)[kRows], int64_t d,
                                      int lane, const StepPlan& plan, float (&sum)[kRows]) {
  const T* weight = args.delta_weight.data + d * args.delta_weight.stride[0];
  const int64_t rank = args.low.size[1];
  if (plan.whole_ranks) {
    for (int64_t r = kPack<T> * lane; r < rank; r += kPack<T> * plan.lanes) {
      float w[kPack<T>];
      load_pack<kPack<T>>(weight + r, w);
#pragma unroll
      for (int k = 0; k < kRows; ++k) {
        float x[kPack<T>];
        load_pack<kPack<T>>(args.low.data + b[k] * args.low.stride[0] + r, x);
#pragma unroll
        for (int i = 0; i < kPack<T>; ++i) {
          sum[k] = fmaf(x[i], w[i], sum[k]);
        }
      }
    }
  } else {
    for (int64_t r = lane; r < rank; r += plan.lanes) {
#pragma unroll
      for (int k = 0; k < kRows; ++k) {
        sum[k] = fmaf(to_float(args.low.data[b[k] * args.low.stride[0] + r]), to_float(weight[r]), sum[k]);
      }
    }
  }
}

/// Four neighbours, as they lie in memory; zeros from `count` on.
template <bool kWhole, class T>
__device__ inline Pack<T, 4> load_four(const T* from, int64_t stride, int count) {
  if constexpr (kWhole) {
    return *reinterpret_cast<const Pack<T, 4>*>(from);
  } else {
    Pack<T, 4> pack;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      pack.value[i] = i < count ? from[i * stride] : T{};
    }
    return pack;
  }
}

template <bool kWhole>
__device__ inline void store_four(float* to, int64_t stride, int count, const float (&values)[4]) {
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

/// kProduct: delta is a product. kWhole: states can be read in fours. A block takes kRows rows: all of their states are
/// under way at once. What is read of padding is not used.
template <class T, bool kProduct, bool kWhole, int kRows>
__global__ void __launch_bounds__(kThreads)
    step_kernel(const __grid_constant__ SelectiveScanStep<T, float> all, const StepPlan plan) {
  const SelectiveScanForward<T, float>& args = all.scan;
  const int states = static_cast<int>(args.A.size[1]), lanes = plan.lanes;
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int64_t channel =
      int64_t{blockIdx.x % plan.groups} * (kThreads / lanes) + static_cast<int>(threadIdx.x) / lanes;
  const bool exists = channel < args.A.size[0];
  const int64_t d = exists ? channel : 0;
  const int64_t first = int64_t{blockIdx.x / plan.groups} * kRows, last = args.u.size[0] - 1;
  int64_t b[kRows];  // beyond the last row: the last once more
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    b[k] = first + k < last ? first + k : last;
  }
  const int n0 = 4 * lane < states ? 4 * lane : 0;
  let_next_begin();
  prefetch_to_l2(&args.A(d, n0));
  if (kProduct && 16 * lane < all.low.size[1]) {
    prefetch_to_l2(all.delta_weight.data + d * all.delta_weight.stride[0] + 16 * lane);
  }
  if (lane % 2 == 0 && args.initial) {
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      prefetch_to_l2(&args.initial(b[k], d, n0));
    }
  }
  wait_for_earlier_work();

  const bool has_step = args.u.size[1] == 1;  // else it hands the state on
  Pack<float, 4> A, before[kRows];
  Pack<T, 4> B[kRows] = {}, C[kRows] = {};
  const auto load = [&](int n) {
    const int count = states - n;
    A = load_four<kWhole>(&args.A(d, n), args.A.stride[1], count);
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      before[k] = {};
      if (args.initial) {
        before[k] = load_four<kWhole>(&args.initial(b[k], d, n), args.initial.stride[2], count);
      }
    }
    if (has_step) {
#pragma unroll
      for (int k = 0; k < kRows; ++k) {
        B[k] = load_four<kWhole>(&args.B(b[k], 0, n), 1, count);
        C[k] = load_four<kWhole>(&args.C(b[k], 0, n), 1, count);
      }
    }
  };
  load(n0);
  float delta[kRows] = {}, u[kRows] = {}, gate[kRows] = {}, sum[kRows] = {};
  int64_t at[kRows];
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    at[k] = !has_step ? -1 : args.position ? args.position(b[k], 0) : 1;
    if (has_step) {
      u[k] = to_float(args.u(b[k], 0, d));
      gate[k] = args.z ? to_float(args.z(b[k], 0, d)) : 0.0f;
      delta[k] = kProduct ? 0.0f : to_float(args.delta(b[k], 0, d));
    }
  }
  if (kProduct) {
    partial_deltas(all, b, d, lane, plan, delta);
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      delta[k] = group_sum(delta[k], lanes);
    }
  }
  const float bias = args.delta_bias ? args.delta_bias(d) : 0.0f, skip = args.D ? args.D(d) : 0.0f;
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    delta[k] = softplus(delta[k] + bias);
  }
  for (int n = 4 * lane; n < states; n += 4 * lanes) {
    if (n != n0) {
      load(n);
    }
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      float h[4], old[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        old[i] = before[k].value[i];
        const float carried = at[k] != 0 ? old[i] : 0.0f, dt = delta[k];
        h[i] = fmaf(exp2_approx(dt * base2_decay(A.value[i])), carried, dt * u[k] * to_float(B[k].value[i]));
        h[i] = at[k] < 0 ? old[i] : h[i];
        sum[k] = n + i < states ? fmaf(to_float(C[k].value[i]), h[i], sum[k]) : sum[k];
      }
      if (exists && first + k <= last) {
        if (args.final) {
          store_four<kWhole>(&args.final(b[k], d, n), args.final.stride[2], states - n, h);
        }
        if (args.checkpoint && has_step) {
          store_four<kWhole>(&args.checkpoint(b[k], 0, d, n), args.checkpoint.stride[3], states - n, old);
        }
      }
    }
  }
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    sum[k] = group_sum(sum[k], lanes);
    if (exists && first + k <= last && has_step && lane == 0) {
      const float value = (sum[k] + skip * u[k]) * (args.z ? silu(gate[k]) : 1.0f);
      args.y(b[k], 0, d) = from_float<T>(at[k] >= 0 ? value : 0.0f);
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
  plan.whole_ranks =
      kProduct && step.low.size[1] % kPack<T> == 0 && packs_of_ranks(step.low) && packs_of_ranks(step.delta_weight);
  const bool whole = states % 4 == 0 && quads_aligned(args.A) && quads_aligned(args.B) && quads_aligned(args.C) &&
                     (!args.initial || quads_aligned(args.initial)) && (!args.final || quads_aligned(args.final)) &&
                     (!args.checkpoint || quads_aligned(args.checkpoint));
  const int64_t groups = ceil_div(args.A.size[0] * plan.lanes, int64_t{kThreads});
  require(groups < (int64_t{1} << 31), op, ": ", args.A.size[0], " channels are too many for one call");
  plan.groups = static_cast<unsigned>(groups);
  const auto launch = [&](auto whole_states, auto rows) {
    const int64_t blocks = groups * ceil_div<int64_t>(batch, rows());
    require(blocks < (int64_t{1} << 31), op, ": ", batch, " rows are too many for one call");
    launch_early<step_kernel<T, kProduct, whole_states(), rows()>>(exec, op, static_cast<unsigned>(blocks), kThreads, 0,
                                                                   step, plan);
  };
  const std::integral_constant<int, 1> one;
  const std::integral_constant<int, kMostRows> most;
  // Many rows share A and the weight of delta; few are spread over more blocks.
  const bool many = batch * groups > int64_t{8} * multiprocessors(exec);
  if (whole) {
    many ? launch(std::true_type(), most) : launch(std::true_type(), one);
  } else {
    many ? launch(std::false_type(), most) : launch(std::false_type(), one);
  }
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
