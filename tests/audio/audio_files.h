// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sndfile.h>

#include <cmath>
#include <cstdint>
#include <numbers>
#include <stdexcept>
#include <string>
#include <vector>

namespace blockstate::test {

/// Writes interleaved samples through libsndfile; `format` is a container and a subtype of sndfile.h.
inline std::string write_audio(const std::string& path, const std::vector<float>& interleaved, int channels, int rate,
                               int format = SF_FORMAT_WAV | SF_FORMAT_FLOAT) {
  SF_INFO info{};
  info.channels = channels;
  info.samplerate = rate;
  info.format = format;
  SNDFILE* file = sf_open(path.c_str(), SFM_WRITE, &info);
  if (file == nullptr) {
    throw std::runtime_error("cannot write " + path + ": " + sf_strerror(nullptr));
  }
  const auto frames = static_cast<sf_count_t>(interleaved.size()) / channels;
  const sf_count_t written = sf_writef_float(file, interleaved.data(), frames);
  sf_close(file);
  if (written != frames) {
    throw std::runtime_error("wrote too few frames to " + path);
  }
  return path;
}

/// (T) samples of amplitude * sin(2 pi hz t / rate + phase).
inline std::vector<float> sine(int64_t samples, double hz, double rate, double amplitude = 0.5, double phase = 0.3) {
  std::vector<float> out(static_cast<size_t>(samples));
  for (int64_t t = 0; t < samples; ++t) {
    out[static_cast<size_t>(t)] =
        static_cast<float>(amplitude * std::sin(2 * std::numbers::pi * hz * static_cast<double>(t) / rate + phase));
  }
  return out;
}

/// The lowest `bytes` bytes of a number, little-endian.
inline std::string little(uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) {
    out += static_cast<char>(value >> (8 * i) & 0xff);
  }
  return out;
}

/// What a hand-made 16-bit PCM WAV may get wrong.
struct WavHeader {
  int64_t channels = 1;
  int64_t rate = 8000;
  int64_t bits = 16;
  int64_t align = 2;
  int64_t riff_size = -1;  ///< -1: what it should be
  int64_t data_size = -1;  ///< -1: what it should be
};

/// The bytes of a PCM WAV file with this header and these bytes of data.
inline std::string wav_bytes(const WavHeader& header, const std::string& data) {
  const auto number = [](int64_t value, size_t truth) {
    return value < 0 ? static_cast<uint64_t>(truth) : static_cast<uint64_t>(value);
  };
  return "RIFF" + little(number(header.riff_size, 36 + data.size()), 4) + "WAVEfmt " + little(16, 4) + little(1, 2) +
         little(static_cast<uint64_t>(header.channels), 2) + little(static_cast<uint64_t>(header.rate), 4) +
         little(static_cast<uint64_t>(header.rate * header.align), 4) + little(static_cast<uint64_t>(header.align), 2) +
         little(static_cast<uint64_t>(header.bits), 2) + "data" + little(number(header.data_size, data.size()), 4) +
         data;
}

/// (T) as 16-bit little-endian bytes: 0, 7, 14, ... within the range.
inline std::string ramp_bytes(int64_t samples) {
  std::string out;
  for (int64_t t = 0; t < samples; ++t) {
    out += little(static_cast<uint64_t>(t * 7 % 30000), 2);
  }
  return out;
}

}  // namespace blockstate::test
