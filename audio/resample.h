// SPDX-License-Identifier: Apache-2.0
// Change of sampling rate by libsoxr at its high quality (20 bits; band-limited to the lower of the two Nyquist rates).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "audio/sample_source.h"

namespace blockstate::audio {

/// round(T * rate_out / rate_in), halves up.
int64_t resampled_length(int64_t samples, int64_t rate_in, int64_t rate_out);

/// One channel from rate_in to rate_out (Hz, from 1 up) in pieces: what comes out in all is the same, bit for bit,
/// whatever the pieces, and has resampled_length(T) samples. Equal rates pass the samples on as they are.
class Resampler {
 public:
  Resampler(int64_t rate_in, int64_t rate_out);
  ~Resampler();
  Resampler(Resampler&&) noexcept;
  Resampler& operator=(Resampler&&) noexcept;

  /// Takes the next samples and appends to `out` what is ready.
  void push(std::span<const float> in, std::vector<float>& out);
  /// No more samples come: appends the rest. Neither may be called afterwards.
  void finish(std::vector<float>& out);

 private:
  struct Engine;
  std::unique_ptr<Engine> engine_;  ///< null for equal rates
  int64_t rate_in_;
  int64_t rate_out_;
  int64_t taken_ = 0;
  int64_t given_ = 0;
};

/// The whole signal (T) at once: (resampled_length(T)).
std::vector<float> resample(std::span<const float> samples, int64_t rate_in, int64_t rate_out);

/// A source at another rate, still in constant memory.
class ResampledSource : public SampleSource {
 public:
  ResampledSource(std::unique_ptr<SampleSource> source, int64_t rate);
  const std::string& name() const override { return source_->name(); }
  int64_t rate() const override { return rate_; }
  int64_t read(std::span<float> out) override;

 private:
  std::unique_ptr<SampleSource> source_;
  int64_t rate_;
  Resampler resampler_;
  bool finished_ = false;
  std::vector<float> piece_;  ///< as read
  std::vector<float> ready_;  ///< resampled, from ready_at_ on not yet given
  size_t ready_at_ = 0;
};

}  // namespace blockstate::audio
