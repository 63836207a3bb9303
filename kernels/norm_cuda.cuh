// SPDX-License-Identifier: Apache-2.0
// What both directions of the norms share on a GPU. A row lies in the registers of kRow threads, in packs of kN
// neighbouring elements: thread `lane` holds packs lane, lane + kRow, ... Rows that do not fit, or do not lie so that
// packs can be read, are walked element by element.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_packs.cuh"
#include "kernels/norm_check.h"

namespace blockstate::kernels::cuda {

/// Elements of a pack: 16 bytes of the widest type, so that neighbouring threads read neighbouring bytes of each.
template <class T, class X, class H>
constexpr int kNormPack = sizeof(T) == 2 && sizeof(X) == 2 && sizeof(H) == 2 ? 8 : 4;

template <int kRow>
constexpr int kNormThreads = kRow > 32 ? kRow : 256;

template <int kRow>
__device__ inline float row_sum(float value, float* shared) {
  if constexpr (kRow <= 32) {
    return warp_sum<kRow>(value);
  } else {
    return block_sum<kRow>(value, shared);
  }
}

/// Calls launch(kRow, kPacks), as integral constants, for the smallest shape that holds the columns; false where none.
template <int kN, class Launch>
bool for_row_shape(int64_t columns, Launch launch) {
  bool done = false;
  const auto offer = [&](auto row, auto packs) {
    if (!done && columns <= int64_t{row()} * packs() * kN) {
      launch(row, packs);
      done = true;
    }
  };
  const auto one = std::integral_constant<int, 1>();
  const auto two = std::integral_constant<int, 2>();
  const auto three = std::integral_constant<int, 3>();
  const auto four = std::integral_constant<int, 4>();
  offer(std::integral_constant<int, 16 / kN>(), one);
  offer(std::integral_constant<int, 32 / kN>(), one);
  offer(std::integral_constant<int, 64 / kN>(), one);
  offer(std::integral_constant<int, 128 / kN>(), one);
  const auto warp = std::integral_constant<int, 32>();
  if constexpr (kN == 8) {
    offer(warp, one);
    offer(warp, two);
    offer(warp, three);
  } else {
    offer(warp, two);
    offer(warp, three);
    offer(warp, four);
    offer(warp, std::integral_constant<int, 6>());
  }
  offer(std::integral_constant<int, 1024 / kN>(), one);
  const auto block = std::integral_constant<int, 256>();
  if constexpr (kN == 8) {
    offer(block, one);
  }
  offer(block, two);
  offer(block, four);
  if constexpr (kN == 4) {
    offer(block, std::integral_constant<int, 8>());
  }
  return done;
}

}  // namespace blockstate::kernels::cuda
