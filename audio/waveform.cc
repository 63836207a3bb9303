// SPDX-License-Identifier: Apache-2.0
#include "audio/waveform.h"

#include "core/base/check.h"

namespace blockstate::audio {

int64_t patch_steps(int64_t samples, int64_t patch) {
  require(patch > 0, "data.patch: wanted samples a step from 1 up, found ", patch);
  return samples / patch + (samples % patch != 0 ? 1 : 0);
}

std::vector<float> patch_frames(std::span<const float> samples, int64_t patch) {
  std::vector<float> frames(samples.begin(), samples.end());
  frames.resize(static_cast<size_t>(patch_steps(static_cast<int64_t>(samples.size()), patch) * patch), 0.0f);
  return frames;
}

}  // namespace blockstate::audio
