// SPDX-License-Identifier: Apache-2.0
#include "kernels/selective_scan_check.h"
#include "kernels/selective_scan_segments.cuh"
#include "kernels/selective_scan_walk.cuh"

namespace blockstate::kernels::cuda {
namespace {

using namespace scan;

template <class T, int kStates, bool kPosition, int kPolynomials>
void launch_forward(const Exec& exec, const SelectiveScanForward<T, float>& args, const Plan& plan) {
  const auto kernel = forward_kernel<T, kStates, kPosition, kPolynomials>;
  constexpr int kBytes = static_cast<int>(sizeof(SharedTiles<kStates>));
  if (kBytes > most_shared_memory(exec)) {
    fail("selective_scan: ", args.A.size[1], " states need ", kBytes / 1024,
         " KB of shared memory a block, cuda:", exec.device, " has ", most_shared_memory(exec) / 1024,
         "; use 64 states or fewer on this GPU");
  }
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), "selective_scan");
  const int64_t blocks = plan.groups * plan.segments * args.u.size[0];
  kernel<<<static_cast<unsigned>(blocks), 2 * kTileThreads, kBytes, stream_of(exec)>>>(args, plan);
  check_launch(exec, "selective_scan");
}

template <class T, int kStates>
void launch_states(const Exec& exec, const SelectiveScanForward<T, float>& args, const Plan& plan) {
  if (args.position) {
    launch_forward<T, kStates, true, 0>(exec, args, plan);
  } else {
    launch_forward<T, kStates, false, 0>(exec, args, plan);
  }
}

template <class T>
void scan_rows(const Exec& exec, const SelectiveScanForward<T, float>& args) {
  const int64_t batch = args.u.size[0], length = args.u.size[1], width = args.u.size[2], states = args.A.size[1];
  Plan plan;
  plan.groups = ceil_div(width, int64_t{kTileChannels});
  plan.segment_steps = segment_steps(3 * multiprocessors(exec), batch * plan.groups, length);
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
