// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace blockstate::audio {

/// L = ceil(T / patch): steps of a waveform of T samples. Error: patch below 1.
int64_t patch_steps(int64_t samples, int64_t patch);

/// A waveform (T) as frames (L, patch), row-major; the last one is filled up with zeros.
std::vector<float> patch_frames(std::span<const float> samples, int64_t patch);

}  // namespace blockstate::audio
