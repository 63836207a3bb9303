// SPDX-License-Identifier: Apache-2.0
// The functions of copy.h that look at values.
#include "kernels/copy.h"
#include "kernels/row_map.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kElements = 8;  // a thread: the widest access that the types allow, twice where one is narrow

template <class To, class From>
__device__ inline To converted(From value) {
  return static_cast<To>(value);
}
template <>
__device__ inline float converted<float, BFloat16>(BFloat16 value) {
  return to_float(value);
}
template <>
__device__ inline BFloat16 converted<BFloat16, float>(float value) {
  return from_float<BFloat16>(value);
}

// kElements neighbours, in accesses of at most 16 bytes.
template <class T>
struct Neighbours {
  static constexpr int kPerAccess = sizeof(T) * kElements > 16 ? 16 / static_cast<int>(sizeof(T)) : kElements;
  __device__ static void load(const T* from, T (&to)[kElements]) {
#pragma unroll
    for (int i = 0; i < kElements; i += kPerAccess) {
      const auto pack = *reinterpret_cast<const Pack<T, kPerAccess>*>(from + i);
#pragma unroll
      for (int k = 0; k < kPerAccess; ++k) {
        to[i + k] = pack.value[k];
      }
    }
  }
  __device__ static void store(T* to, const T (&from)[kElements]) {
#pragma unroll
    for (int i = 0; i < kElements; i += kPerAccess) {
      Pack<T, kPerAccess> pack;
#pragma unroll
      for (int k = 0; k < kPerAccess; ++k) {
        pack.value[k] = from[i + k];
      }
      *reinterpret_cast<Pack<T, kPerAccess>*>(to + i) = pack;
    }
  }
  static bool aligned(const T* at) { return reinterpret_cast<uintptr_t>(at) % (kPerAccess * sizeof(T)) == 0; }
};

template <bool kAligned, class To, class From>
__global__ void __launch_bounds__(kThreads) convert_kernel(To* to, const From* from, int64_t count) {
  if (!kAligned) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (i < count) {
      to[i] = converted<To>(from[i]);
    }
    return;
  }
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kElements;
  if (i + kElements <= count) {
    From in[kElements];
    To out[kElements];
    Neighbours<From>::load(from + i, in);
#pragma unroll
    for (int k = 0; k < kElements; ++k) {
      out[k] = converted<To>(in[k]);
    }
    Neighbours<To>::store(to + i, out);
    return;
  }
  for (int64_t k = i; k < count; ++k) {
    to[k] = converted<To>(from[k]);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) fill_kernel(T* to, T value, int64_t count) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kElements;
  if (i + kElements <= count) {
    T out[kElements];
#pragma unroll
    for (int k = 0; k < kElements; ++k) {
      out[k] = value;
    }
    Neighbours<T>::store(to + i, out);
    return;
  }
  for (int64_t k = i; k < count; ++k) {
    to[k] = value;
  }
}

}  // namespace

template <class To, class From>
void convert(const Exec& exec, To* to, const From* from, int64_t count) {
  if (count == 0) {
    return;
  }
  if (Neighbours<To>::aligned(to) && Neighbours<From>::aligned(from)) {
    convert_kernel<true, To, From>
        <<<grid_size(count, kThreads * kElements, "convert"), kThreads, 0, stream_of(exec)>>>(to, from, count);
  } else {
    convert_kernel<false, To, From>
        <<<grid_size(count, kThreads, "convert"), kThreads, 0, stream_of(exec)>>>(to, from, count);
  }
  check_launch(exec, "convert");
}

template <class T>
void fill(const Exec& exec, T* to, float value, int64_t count) {
  if (count == 0) {
    return;
  }
  const T element = static_cast<T>(value);
  // Elements before the first aligned address, then the rest; both loops are the kernel's.
  constexpr int64_t kAlign = Neighbours<T>::kPerAccess * static_cast<int64_t>(sizeof(T));
  const int64_t over = static_cast<int64_t>(reinterpret_cast<uintptr_t>(to)) % kAlign;
  const int64_t head = over == 0 ? 0 : (kAlign - over) / static_cast<int64_t>(sizeof(T));
  const auto launch = [&](T* at, int64_t elements) {
    if (elements > 0) {
      fill_kernel<T>
          <<<grid_size(elements, kThreads * kElements, "fill"), kThreads, 0, stream_of(exec)>>>(at, element, elements);
      check_launch(exec, "fill");
    }
  };
  const int64_t first = head < count ? head : count;
  launch(to, first);  // fewer than kElements: one by one
  launch(to + first, count - first);
}

#define BLOCKSTATE_INSTANTIATE(T)                                          \
  template void convert<T, float>(const Exec&, T*, const float*, int64_t); \
  template void convert<float, T>(const Exec&, float*, const T*, int64_t); \
  template void fill<T>(const Exec&, T*, float, int64_t);
BLOCKSTATE_INSTANTIATE(BFloat16)
BLOCKSTATE_INSTANTIATE(double)
BLOCKSTATE_INSTANTIATE(int64_t)
BLOCKSTATE_INSTANTIATE(int32_t)
BLOCKSTATE_INSTANTIATE(uint8_t)
#undef BLOCKSTATE_INSTANTIATE
template void convert<float, float>(const Exec&, float*, const float*, int64_t);
template void fill<float>(const Exec&, float*, float, int64_t);

}  // namespace blockstate::kernels::cuda
