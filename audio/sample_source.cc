// SPDX-License-Identifier: Apache-2.0
#include "audio/sample_source.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/check.h"

namespace blockstate::audio {

std::vector<float> read_samples(SampleSource& source, int64_t length) {
  // Grows with what arrives: a header that promises more than the file holds must not cost memory.
  constexpr int64_t kPiece = int64_t{1} << 16;
  const int64_t wanted = length > 0 ? length : std::numeric_limits<int64_t>::max();
  std::vector<float> samples;
  int64_t done = 0;
  while (done < wanted) {
    const int64_t piece = std::min(std::max(kPiece, done), wanted - done);
    samples.resize(static_cast<size_t>(done + piece));
    const int64_t got = source.read(std::span(samples).subspan(static_cast<size_t>(done)));
    done += got;
    if (got < piece) {
      break;
    }
  }
  samples.resize(static_cast<size_t>(done));
  return samples;
}

void require_finite(std::span<const float> samples, int64_t first, const SampleSource& source) {
  const auto bad = std::find_if_not(samples.begin(), samples.end(), [](float x) { return std::isfinite(x); });
  if (bad != samples.end()) {
    const int64_t at = first + (bad - samples.begin());
    fail("audio ", source.name(), ": wanted finite samples, found ", std::isnan(*bad) ? "NaN" : "an infinite one",
         " at ", static_cast<double>(at) / static_cast<double>(source.rate()), " s (sample ", at, ")");
  }
}

}  // namespace blockstate::audio
