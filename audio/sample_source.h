// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace blockstate::audio {

/// Samples of one channel.
struct Clip {
  std::vector<float> samples;  ///< (T), full scale -1 to 1; floating-point files may go beyond
  int64_t rate = 0;            ///< Hz
};

/// One channel of samples from first to last, in pieces of any size and in constant memory. One thread at a time.
class SampleSource {
 public:
  virtual ~SampleSource() = default;
  /// What messages call it: a path or "standard input".
  virtual const std::string& name() const = 0;
  /// Hz.
  virtual int64_t rate() const = 0;
  /// Fills `out` from its beginning and returns how many samples it wrote: fewer than asked only at the end, then 0.
  /// Error: no audio at all, cut short, a sample that is NaN or infinite (names the first one's time).
  virtual int64_t read(std::span<float> out) = 0;
};

/// The next `length` samples, or all that are left where `length` is 0 or there are fewer.
std::vector<float> read_samples(SampleSource& source, int64_t length = 0);

/// Error that names the first sample which is NaN or infinite; `first` is the position of samples[0] in the source.
void require_finite(std::span<const float> samples, int64_t first, const SampleSource& source);

}  // namespace blockstate::audio
