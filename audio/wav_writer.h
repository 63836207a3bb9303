// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace blockstate::audio {

/// A WAV file of one channel and 16 bits that grows as samples come, in constant memory. Its header is true after every
/// call, so that an interrupted program leaves a valid file. 16 bits hold every 8-bit code exactly.
class WavWriter {
 public:
  /// Replaces what was there. `expected` samples: beyond what a WAV header can say (4 GiB) the file is an RF64. Error
  /// names the file and what the system said.
  WavWriter(const std::string& file, int64_t rate, int64_t expected);
  ~WavWriter();
  WavWriter(const WavWriter&) = delete;
  WavWriter& operator=(const WavWriter&) = delete;

  /// Full scale -1 to 1; what lies beyond is clipped.
  void write(std::span<const float> samples);
  void finish();

 private:
  struct File;
  std::unique_ptr<File> file_;
};

}  // namespace blockstate::audio
