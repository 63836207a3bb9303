// SPDX-License-Identifier: Apache-2.0
#include "audio/wav_writer.h"

#include <sndfile.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/check.h"

namespace blockstate::audio {
namespace {

constexpr int64_t kWavBytes = (int64_t{1} << 32) - 4096;

}  // namespace

struct WavWriter::File {
  std::string name;
  std::unique_ptr<SNDFILE, int (*)(SNDFILE*)> handle{nullptr, sf_close};
  std::vector<int16_t> block;

  [[noreturn]] void failed() const { fail("audio ", name, ": cannot write: ", sf_strerror(handle.get())); }
};

WavWriter::WavWriter(const std::string& file, int64_t rate, int64_t expected) : file_(std::make_unique<File>()) {
  file_->name = file;
  SF_INFO info{};
  info.samplerate = static_cast<int>(rate);
  info.channels = 1;
  info.format = (2 * expected > kWavBytes ? SF_FORMAT_RF64 : SF_FORMAT_WAV) | SF_FORMAT_PCM_16;
  file_->handle.reset(sf_open(file.c_str(), SFM_WRITE, &info));
  if (file_->handle == nullptr) {
    file_->failed();
  }
  sf_command(file_->handle.get(), SFC_SET_UPDATE_HEADER_AUTO, nullptr, SF_TRUE);
}

WavWriter::~WavWriter() = default;

void WavWriter::write(std::span<const float> samples) {
  file_->block.resize(samples.size());
  std::transform(samples.begin(), samples.end(), file_->block.begin(), [](float sample) {
    return static_cast<int16_t>(std::clamp<long>(std::lround(32768.0 * static_cast<double>(sample)), -32768, 32767));
  });
  const auto count = static_cast<sf_count_t>(samples.size());
  if (sf_write_short(file_->handle.get(), file_->block.data(), count) != count) {
    file_->failed();
  }
}

void WavWriter::finish() {
  SNDFILE* handle = file_->handle.release();
  sf_write_sync(handle);
  require(sf_close(handle) == 0, "audio ", file_->name, ": could not be written whole; is the disk full?");
}

}  // namespace blockstate::audio
