// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "audio/sample_source.h"

namespace blockstate::audio {

/// A WAV file, or any other that libsndfile opens (FLAC, OGG, MP3, AIFF, AU, ...), as one channel: the mean of its
/// channels. Errors: no such file, a directory, empty, no audio, cut short, a sample that is NaN or infinite.
class AudioReader : public SampleSource {
 public:
  explicit AudioReader(const std::string& file);
  ~AudioReader() override;
  AudioReader(AudioReader&&) noexcept;
  AudioReader& operator=(AudioReader&&) noexcept;

  const std::string& name() const override;
  int64_t rate() const override;
  /// Frames of the whole file; -1 where its header does not say.
  int64_t frames() const;
  int64_t channels() const;
  /// Frames left to read; -1 where not known.
  int64_t left() const;

  /// Goes to `start` and stops at `end` (seconds, half-open, rounded to the nearest frame). Error: start at or past the
  /// end of the file, an interval of no frames, an end more than kEndSlack past the end. A smaller overshoot is cut:
  /// hand-made annotations often end a little late (Kaldi's extract-segments has the same allowance).
  void select(std::optional<double> start, std::optional<double> end);
  static constexpr double kEndSlack = 0.5;

  int64_t read(std::span<float> out) override;

 private:
  struct File;
  std::unique_ptr<File> file_;
};

/// A whole file, or the interval [start, end) of it in seconds, at its own rate.
Clip read_clip(const std::string& file, std::optional<double> start = {}, std::optional<double> end = {});

}  // namespace blockstate::audio
