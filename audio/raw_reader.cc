// SPDX-License-Identifier: Apache-2.0
#include "audio/raw_reader.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "core/base/check.h"

namespace blockstate::audio {
namespace {

float decode(RawFormat format, const unsigned char* bytes) {
  if (format == RawFormat::kS16le) {
    return static_cast<float>(static_cast<int16_t>(bytes[0] | bytes[1] << 8)) / 32768.0f;
  }
  const uint32_t word =
      uint32_t{bytes[0]} | uint32_t{bytes[1]} << 8 | uint32_t{bytes[2]} << 16 | uint32_t{bytes[3]} << 24;
  return std::bit_cast<float>(word);
}

}  // namespace

RawFormat parse_raw_format(const std::string& text) {
  require(text == "s16le" || text == "f32le", "raw format: wanted s16le or f32le, found '", text, "'");
  return text == "s16le" ? RawFormat::kS16le : RawFormat::kF32le;
}

RawReader::RawReader(std::FILE* stream, const std::string& name, RawFormat format, int64_t rate)
    : stream_(stream), name_(name), format_(format), rate_(rate) {
  require(rate > 0, "audio ", name, ": wanted a rate from 1 Hz up, found ", rate);
}

int64_t RawReader::read(std::span<float> out) {
  constexpr size_t kBlockSamples = 16384;
  const size_t width = format_ == RawFormat::kS16le ? 2 : 4;
  const int64_t first = position_;
  size_t done = 0;
  while (done < out.size()) {
    const size_t wanted = std::min(kBlockSamples, out.size() - done);
    bytes_.resize(wanted * width);
    errno = 0;
    const size_t got = std::fread(bytes_.data(), 1, bytes_.size(), stream_);
    require(std::ferror(stream_) == 0, "audio ", name_, ": cannot be read: ", std::strerror(errno));
    for (size_t i = 0; i < got / width; ++i) {
      out[done + i] = decode(format_, bytes_.data() + i * width);
    }
    done += got / width;
    position_ += static_cast<int64_t>(got / width);
    require(got % width == 0, "audio ", name_, ": wanted samples of ", width, " bytes, found ", got % width,
            " bytes more after sample ", position_);
    if (got < bytes_.size()) {
      require(position_ > 0, "audio ", name_, ": holds no audio (0 samples)");
      break;
    }
  }
  require_finite(out.first(done), first, *this);
  return static_cast<int64_t>(done);
}

}  // namespace blockstate::audio
