// SPDX-License-Identifier: Apache-2.0
#include "kernels/selective_scan_check.h"
#include "kernels/selective_scan_segments.cuh"
#include "kernels/selective_scan_step.cuh"
#include "kernels/selective_scan_walk.cuh"

namespace blockstate::kernels::cuda {
namespace {

using namespace scan;

template <class T, int kStates, bool kPosition>
void launch_forward(const Exec& exec, const SelectiveScanForward<T, float>& args, const Plan& plan) {
  const auto kernel = forward_kernel<T, kStates, kPosition>;
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
    launch_forward<T, kStates, true>(exec, args, plan);
  } else {
    launch_forward<T, kStates, false>(exec, args, plan);
  }
}

Plan make_plan(const Exec& exec, int64_t batch, int64_t length, int64_t width) {
  Plan plan{};
  plan.groups = ceil_div(width, int64_t{kTileChannels});
  plan.segment_steps = segment_steps(3 * multiprocessors(exec), batch * plan.groups, length);
  plan.segments = ceil_div(length, plan.segment_steps);
  return plan;
}

template <class T>
void scan_rows(const Exec& exec, const SelectiveScanForward<T, float>& args) {
  const int64_t batch = args.u.size[0], length = args.u.size[1], width = args.u.size[2], states = args.A.size[1];
  Plan plan = make_plan(exec, batch, length, width);
  const bool own = plan.segments > 1 && !args.entry;
  const Scratch<float> scratch(exec, own ? plan.segments * batch * width * states : 1);
  if (plan.segments > 1) {
    float* const entry = own ? scratch.get() : args.entry.data;
    if (!args.entry_known) {
      find_entries(exec, args, plan.segments, plan.segment_steps, entry);
    }
    plan.entry = entry;
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

template <class T>
void forward(const Exec& exec, const SelectiveScanForward<T, float>& args) {
  check_selective_scan(args, kScanCheckpoint);
  check_optional_view("selective_scan", "entry", args.entry,
                      {scan_segments(exec, args.u.size[0], args.u.size[1], args.u.size[2]), args.u.size[0],
                       args.A.size[0], args.A.size[1]});
  require(!args.entry_known || args.entry, "selective_scan: no entry is there to be known");
  if (args.u.size[0] * args.A.size[0] == 0) {
    return;
  }
  if (args.u.size[1] <= 1) {
    scan_one_step(exec, args);
  } else {
    scan_rows(exec, args);
  }
}

}  // namespace

int64_t scan_segments(const Exec& exec, int64_t batch, int64_t length, int64_t width) {
  return length <= 1 || batch * width == 0 ? 1 : make_plan(exec, batch, length, width).segments;
}

template <>
void selective_scan_forward(const Exec& exec, const SelectiveScanForward<float, float>& args) {
  forward(exec, args);
}
template <>
void selective_scan_forward(const Exec& exec, const SelectiveScanForward<BFloat16, float>& args) {
  forward(exec, args);
}

}  // namespace blockstate::kernels::cuda
