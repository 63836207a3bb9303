// SPDX-License-Identifier: Apache-2.0
// What kernels see of a tensor: a pointer, sizes and strides. C++17-clean: included from .cu files.
#pragma once

#include <cstdint>
#include <type_traits>

#if defined(__CUDACC__)
#define BLOCKSTATE_HOST_DEVICE __host__ __device__
#else
#define BLOCKSTATE_HOST_DEVICE
#endif

namespace blockstate {

/// Non-owning strided view of rank R. Sizes and strides are in elements and 64-bit. A view whose `data` is null is
/// "absent": optional arguments of a kernel are passed that way.
template <class T, int R>
struct View {
  static constexpr int kRank = R;
  T* data = nullptr;
  int64_t size[R] = {};
  int64_t stride[R] = {};

  BLOCKSTATE_HOST_DEVICE explicit operator bool() const { return data != nullptr; }

  /// A view of mutable elements reads as a view of const ones.
  template <class U = T, class = std::enable_if_t<!std::is_const_v<U>>>
  BLOCKSTATE_HOST_DEVICE operator View<const U, R>() const {  // NOLINT(google-explicit-constructor)
    View<const U, R> view;
    view.data = data;
    for (int i = 0; i < R; ++i) {
      view.size[i] = size[i];
      view.stride[i] = stride[i];
    }
    return view;
  }

  template <class... Index>
  BLOCKSTATE_HOST_DEVICE T& operator()(Index... index) const {
    static_assert(sizeof...(Index) == R, "one index for each dimension");
    const int64_t at[R] = {static_cast<int64_t>(index)...};
    int64_t offset = 0;
    for (int i = 0; i < R; ++i) {
      offset += at[i] * stride[i];
    }
    return data[offset];
  }

  BLOCKSTATE_HOST_DEVICE int64_t elements() const {
    int64_t count = 1;
    for (int i = 0; i < R; ++i) {
      count *= size[i];
    }
    return count;
  }

  /// True where the elements lie row-major without gaps.
  BLOCKSTATE_HOST_DEVICE bool contiguous() const {
    int64_t expected = 1;
    for (int i = R - 1; i >= 0; --i) {
      if (size[i] != 1 && stride[i] != expected) {
        return false;
      }
      expected *= size[i];
    }
    return true;
  }
};

/// A row-major view without gaps: make_view(p, B, L, D).
template <class T, class... Size>
BLOCKSTATE_HOST_DEVICE View<T, static_cast<int>(sizeof...(Size))> make_view(T* data, Size... sizes) {
  constexpr int kRank = static_cast<int>(sizeof...(Size));
  View<T, kRank> view;
  view.data = data;
  const int64_t given[kRank] = {static_cast<int64_t>(sizes)...};
  int64_t stride = 1;
  for (int i = kRank - 1; i >= 0; --i) {
    view.size[i] = given[i];
    view.stride[i] = stride;
    stride *= given[i];
  }
  return view;
}

}  // namespace blockstate
