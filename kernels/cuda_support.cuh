// SPDX-License-Identifier: Apache-2.0
// What all CUDA kernels share: conversions, vector loads, reductions, launches.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdlib>

#include "core/base/bfloat16.h"
#include "core/base/check.h"
#include "core/base/view.h"
#include "kernels/cuda_exec.h"

namespace blockstate::kernels::cuda {

inline cudaStream_t stream_of(const Exec& exec) { return static_cast<cudaStream_t>(exec.stream); }

/// To be called after every launch. With BLOCKSTATE_CUDA_SYNC=1 in the environment it waits for the kernel, so that an
/// error is reported by the op that caused it.
inline void check_launch(const Exec& exec, const char* op) {
  static const bool wait = [] {
    const char* value = std::getenv("BLOCKSTATE_CUDA_SYNC");
    return value != nullptr && value[0] == '1';
  }();
  cudaError_t status = cudaGetLastError();
  if (status == cudaSuccess && wait) {
    status = cudaStreamSynchronize(stream_of(exec));
  }
  if (status != cudaSuccess) {
    fail(op, ": the CUDA kernel failed: ", cudaGetErrorString(status));
  }
}

inline void check_cuda(cudaError_t status, const char* op) {
  if (status != cudaSuccess) {
    fail(op, ": CUDA failed: ", cudaGetErrorString(status));
  }
}

/// Memory of one launch (or several) of one op; the stream's order makes it safe to give it back right after them.
template <class T>
class Scratch {
 public:
  Scratch(const Exec& exec, int64_t elements) : exec_(exec) {
    const int64_t bytes = elements * static_cast<int64_t>(sizeof(T));
    data_ = reinterpret_cast<T*>(take_memory(exec, bytes));
    if (data_ == nullptr) {
      throw OutOfMemory(join("out of memory on cuda:", exec.device, ": ", bytes, " bytes of working memory were asked ",
                             "for; lower train.batch or data.length, or set train.chunk"));
    }
  }
  ~Scratch() { give_memory(exec_, reinterpret_cast<std::byte*>(data_)); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const { return data_; }

 private:
  Exec exec_;
  T* data_;
};

inline int multiprocessors(const Exec& exec) {
  int count = 0;
  check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, exec.device), "device attributes");
  return count;
}

/// Bytes of shared memory that one block may have: 227 KB on the H100, 163 on the A100, 99 on many others.
inline int64_t most_shared_memory(const Exec& exec) {
  int bytes = 0;
  check_cuda(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, exec.device), "device attributes");
  return bytes;
}

template <class Integer>
__host__ __device__ constexpr Integer ceil_div(Integer a, Integer b) {
  return (a + b - 1) / b;
}

// --- elements: computed in float, stored as T ------------------------------------------------------------------------

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(BFloat16 value) { return __uint_as_float(static_cast<uint32_t>(value.bits) << 16); }

template <class T>
__device__ T from_float(float value);
template <>
__device__ inline float from_float<float>(float value) {
  return value;
}
template <>
__device__ inline BFloat16 from_float<BFloat16>(float value) {
  const __nv_bfloat16 rounded = __float2bfloat16_rn(value);
  BFloat16 result;
  result.bits = __bfloat16_as_ushort(rounded);
  return result;
}

/// N neighbouring elements moved as one access where the address allows it (the caller checks alignment to
/// N * sizeof(T), at most 16 bytes).
template <class T, int N>
struct alignas(N * sizeof(T)) Pack {
  T value[N];
};

template <int N, class T>
__device__ inline void load_pack(const T* from, float (&to)[N]) {
  const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    to[i] = to_float(pack.value[i]);
  }
}

template <int N, class T>
__device__ inline void store_pack(T* to, const float (&from)[N]) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    pack.value[i] = from_float<T>(from[i]);
  }
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// --- reductions, always in the same order
// -----------------------------------------------------------------------------

template <int kWidth = 32>
__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int offset = kWidth / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset, kWidth);
  }
  return value;
}

template <int kWidth = 32>
__device__ inline float warp_max(float value) {
#pragma unroll
  for (int offset = kWidth / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset, kWidth));
  }
  return value;
}

/// Sum over a block of kThreads; every thread gets it. `shared` holds kThreads / 32 floats.
template <int kThreads>
__device__ inline float block_sum(float value, float* shared) {
  value = warp_sum(value);
  __syncthreads();
  if (threadIdx.x % 32 == 0) {
    shared[threadIdx.x / 32] = value;
  }
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kThreads / 32; ++warp) {
    sum += shared[warp];
  }
  return sum;
}

}  // namespace blockstate::kernels::cuda
