// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "audio/sample_source.h"

namespace blockstate::audio {

enum class RawFormat {
  kS16le,  ///< signed 16-bit, little-endian; 32768 is full scale
  kF32le,  ///< IEEE float, little-endian
};

/// "s16le" or "f32le"; Error otherwise.
RawFormat parse_raw_format(const std::string& text);

/// Samples of one channel without a header, as they arrive: standard input in the programs. Errors: rate below 1, no
/// sample at all, an end inside a sample, a sample that is NaN or infinite, a stream that cannot be read.
class RawReader : public SampleSource {
 public:
  /// `stream` stays the caller's.
  RawReader(std::FILE* stream, const std::string& name, RawFormat format, int64_t rate);
  const std::string& name() const override { return name_; }
  int64_t rate() const override { return rate_; }
  int64_t read(std::span<float> out) override;

 private:
  std::FILE* stream_;
  std::string name_;
  RawFormat format_;
  int64_t rate_;
  int64_t position_ = 0;
  std::vector<unsigned char> bytes_;
};

}  // namespace blockstate::audio
