// SPDX-License-Identifier: Apache-2.0
// Sums over the lanes of many vectors at once. One at a time costs a shuffle and an addition for every halving; sixteen
// together cost three instructions a vector.
#if defined(BLOCKSTATE_KERNELS_LANE_SUMS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BLOCKSTATE_KERNELS_LANE_SUMS_INL_H_
#undef BLOCKSTATE_KERNELS_LANE_SUMS_INL_H_
#else
#define BLOCKSTATE_KERNELS_LANE_SUMS_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr int64_t kLaneSums = 16;

#if HWY_TARGET == HWY_AVX3
namespace detail {
// Each step adds the halves (of 512, 256, 128, 64 bits) of two vectors: x's sums go where the mask is 0, y's where 1.
HWY_INLINE __m512 add_halves(__m512 x, __m512 y) {
  return _mm512_add_ps(_mm512_mask_blend_ps(0xFF00, x, y), _mm512_shuffle_f32x4(x, y, 0x4E));
}
HWY_INLINE __m512 add_quarters(__m512 x, __m512 y) {
  const __m512i swapped = _mm512_setr_epi32(4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 24, 25, 26, 27);
  return _mm512_add_ps(_mm512_mask_blend_ps(0xF0F0, x, y), _mm512_permutex2var_ps(x, swapped, y));
}
HWY_INLINE __m512 add_pairs(__m512 x, __m512 y) {
  return _mm512_add_ps(_mm512_mask_blend_ps(0xCCCC, x, y), _mm512_shuffle_ps(x, y, 0x4E));
}
HWY_INLINE __m512 add_neighbours(__m512 x, __m512 y) {
  return _mm512_add_ps(_mm512_mask_blend_ps(0xAAAA, x, y), _mm512_permute_ps(_mm512_mask_blend_ps(0xAAAA, y, x), 0xB1));
}
}  // namespace detail

/// sums[i] += the sum of the lanes of vector i, for kLaneSums aligned vectors one after the other.
HWY_INLINE void AddLaneSums(hn::ScalableTag<float>, const float* HWY_RESTRICT vectors, float* HWY_RESTRICT sums) {
  __m512 quarter[4];
  for (size_t i = 0; i < 4; ++i) {
    const float* at = vectors + 16 * i;
    const __m512 even = detail::add_halves(_mm512_load_ps(at), _mm512_load_ps(at + 8 * 16));
    const __m512 odd = detail::add_halves(_mm512_load_ps(at + 4 * 16), _mm512_load_ps(at + 12 * 16));
    quarter[i] = detail::add_quarters(even, odd);
  }
  const __m512 total =
      detail::add_neighbours(detail::add_pairs(quarter[0], quarter[2]), detail::add_pairs(quarter[1], quarter[3]));
  _mm512_storeu_ps(sums, _mm512_add_ps(_mm512_loadu_ps(sums), total));
}
#endif

template <class D, class T>
HWY_INLINE void AddLaneSums(D d, const T* HWY_RESTRICT vectors, T* HWY_RESTRICT sums) {
  for (int64_t i = 0; i < kLaneSums; ++i) {
    sums[i] += hn::GetLane(hn::SumOfLanes(d, hn::Load(d, vectors + i * static_cast<int64_t>(hn::Lanes(d)))));
  }
}

}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard of the target
