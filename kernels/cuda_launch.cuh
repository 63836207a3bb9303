// SPDX-License-Identifier: Apache-2.0
// Launches in a chain of short kernels, as the steps of generation are, or the sum over what the blocks of a kernel
// left. On GPUs of compute capability 9.0 and newer a kernel launched by launch_early begins while the work before it
// still runs: its blocks are placed and say what they will read (prefetch_to_l2), then wait. Elsewhere it is an
// ordinary launch.
#pragma once

#include <array>
#include <atomic>

#include "kernels/cuda_support.cuh"

namespace blockstate::kernels::cuda {

/// To be called by every thread of a kernel launched by launch_early, before it reads or writes any memory that other
/// work on the stream writes or reads (weights too: an optimiser may just have written them). Returns when all earlier
/// work is done: that before the kernel before this one too, since that kernel waits as well.
__device__ inline void wait_for_earlier_work() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Once all blocks have called this, or ended, the next kernel may begin.
__device__ inline void let_next_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Asks for the line of memory that holds the address: right at any time, since all that changes is where it lies.
__device__ inline void prefetch_to_l2(const void* address) { asm volatile("prefetch.global.L2 [%0];" ::"l"(address)); }

/// The lines of `count` elements, by `threads` threads of which this is number `thread`.
template <class T>
__device__ inline void prefetch_to_l2(const T* from, int64_t count, int64_t thread, int64_t threads) {
  const char* begin = reinterpret_cast<const char*>(from);
  const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
  for (int64_t at = 128 * thread; at < bytes; at += 128 * threads) {
    prefetch_to_l2(begin + at);
  }
}

/// Whether the code of kKernel for this device has the waiting above: code for older architectures has not.
template <auto kKernel>
bool begins_early(const Exec& exec) {
  constexpr int kDevices = 64;
  static std::array<std::atomic<int8_t>, kDevices> known;  // 0: not asked yet, 1: no, 2: yes
  if (exec.device >= kDevices) {
    return false;
  }
  std::atomic<int8_t>& answer = known[static_cast<size_t>(exec.device)];
  if (answer == 0) {
    cudaFuncAttributes attributes;
    int major = 0;
    check_cuda(cudaFuncGetAttributes(&attributes, kKernel), "launch");
    check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, exec.device), "launch");
    answer = major >= 9 && attributes.ptxVersion >= 90 ? 2 : 1;
  }
  return answer == 2;
}

/// Launches a kernel that keeps to the rules above.
template <auto kKernel, class... Args>
void launch_early(const Exec& exec, const char* op, dim3 grid, dim3 block, size_t shared_bytes, const Args&... args) {
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream_of(exec);
  config.attrs = &attribute;
  config.numAttrs = begins_early<kKernel>(exec) ? 1 : 0;
  const cudaError_t status = cudaLaunchKernelEx(&config, kKernel, args...);
  check_cuda(status, op);
  check_launch(exec, op);
}

}  // namespace blockstate::kernels::cuda
