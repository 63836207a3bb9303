// SPDX-License-Identifier: Apache-2.0
#include "audio/header_check.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string_view>
#include <system_error>

#include "core/base/check.h"

namespace blockstate::audio {
namespace {

/// Bytes of audio that a header promises, that follow it, and of one frame (0: not known).
struct Promise {
  int64_t promised = 0;
  int64_t present = 0;
  int64_t frame = 0;
};

/// Sizes from here up are placeholders of a writer that could not seek back (sox leaves 0x7FFFF000 in a WAV and
/// 0x7F000008 in an AIFF, ffmpeg 0xFFFFFFFF).
constexpr uint64_t kPlaceholder = 0x7F000000u;

/// Integers at byte offsets; what lies past the end reads as 0.
class Bytes {
 public:
  Bytes(const std::string& file, int64_t size) : stream_(file, std::ios::binary), size_(size) {}

  uint64_t number(int64_t at, int bytes, bool big_endian) {
    unsigned char raw[8] = {};
    read(at, reinterpret_cast<char*>(raw), bytes);
    uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) {
      value = value << 8 | raw[big_endian ? i : bytes - 1 - i];
    }
    return value;
  }
  std::string tag(int64_t at) {
    std::string text(4, '\0');
    read(at, text.data(), 4);
    return text;
  }
  int64_t size() const { return size_; }

 private:
  void read(int64_t at, char* out, int64_t bytes) {
    if (at < 0 || at > size_ - bytes) {
      return;
    }
    stream_.clear();
    stream_.seekg(at);
    stream_.read(out, bytes);
  }

  std::ifstream stream_;
  int64_t size_;
};

std::optional<Promise> riff_promise(const std::string& file, Bytes& bytes, bool big_endian) {
  uint64_t size64 = 0;
  int64_t frame = 0;
  for (int64_t at = 12; at + 8 <= bytes.size();) {
    const std::string tag = bytes.tag(at);
    uint64_t size = bytes.number(at + 4, 4, big_endian);
    if (tag == "ds64") {
      size64 = bytes.number(at + 16, 8, false);
    } else if (tag == "fmt ") {
      const uint64_t format = bytes.number(at + 8, 2, big_endian);
      const bool whole_frames = format == 1 || format == 3 || format == 6 || format == 7 || format == 0xFFFE;
      const uint64_t channels = bytes.number(at + 10, 2, big_endian);
      const uint64_t align = bytes.number(at + 20, 2, big_endian);
      const uint64_t bits = bytes.number(at + 22, 2, big_endian);
      require(format != 1 || align == channels * ((bits + 7) / 8), "audio ", file,
              ": the header contradicts itself: ", channels, " channels of ", bits, " bits, but frames of ", align,
              " bytes");
      frame = whole_frames ? static_cast<int64_t>(align) : 0;
    } else if (tag == "data") {
      const bool from_ds64 = size == 0xFFFFFFFFu && size64 > 0 && size64 <= uint64_t{1} << 62;
      if (size >= kPlaceholder && !from_ds64) {
        return std::nullopt;
      }
      return Promise{static_cast<int64_t>(from_ds64 ? size64 : size), bytes.size() - at - 8, frame};
    }
    at += 8 + static_cast<int64_t>(size + size % 2);
  }
  return std::nullopt;
}

std::optional<Promise> aiff_promise(Bytes& bytes) {
  int64_t frames = 0;
  for (int64_t at = 12; at + 8 <= bytes.size();) {
    const std::string tag = bytes.tag(at);
    const uint64_t size = bytes.number(at + 4, 4, true);
    if (tag == "COMM") {
      frames = static_cast<int64_t>(bytes.number(at + 10, 4, true));
    } else if (tag == "SSND") {
      if (size < 8 || size >= kPlaceholder) {
        return std::nullopt;
      }
      const auto promised = static_cast<int64_t>(size) - 8;
      const bool even = frames > 0 && promised % frames == 0;
      return Promise{promised, bytes.size() - at - 16, even ? promised / frames : 0};
    }
    at += 8 + static_cast<int64_t>(size + size % 2);
  }
  return std::nullopt;
}

std::optional<Promise> au_promise(Bytes& bytes, bool big_endian) {
  const uint64_t offset = bytes.number(4, 4, big_endian);
  const uint64_t size = bytes.number(8, 4, big_endian);
  if (size >= kPlaceholder) {
    return std::nullopt;
  }
  constexpr int64_t kSampleBytes[] = {0, 1, 1, 2, 3, 4, 4, 8};  // of encodings 1 to 7: mu-law, PCM, float, double
  const uint64_t encoding = std::min(bytes.number(12, 4, big_endian), uint64_t{8}) % 8;
  const auto channels = static_cast<int64_t>(bytes.number(20, 4, big_endian));
  return Promise{static_cast<int64_t>(size), bytes.size() - static_cast<int64_t>(offset),
                 kSampleBytes[encoding] * channels};
}

std::optional<Promise> promise(const std::string& file, Bytes& bytes) {
  const std::string tag = bytes.tag(0);
  const std::string form = bytes.tag(8);
  if ((tag == "RIFF" || tag == "RIFX" || tag == "RF64" || tag == "BW64") && form == "WAVE") {
    return riff_promise(file, bytes, tag == "RIFX");
  }
  if (tag == "FORM" && (form == "AIFF" || form == "AIFC")) {
    return aiff_promise(bytes);
  }
  if (tag == ".snd" || tag == "dns.") {
    return au_promise(bytes, tag == ".snd");
  }
  return std::nullopt;
}

}  // namespace

void check_header(const std::string& file) {
  std::error_code code;
  if (!std::filesystem::is_regular_file(file, code)) {  // reading from a pipe would take its bytes away
    return;
  }
  Bytes bytes(file, static_cast<int64_t>(std::filesystem::file_size(file, code)));
  const std::optional<Promise> found = promise(file, bytes);
  if (!found) {
    return;
  }
  const int64_t present = std::max<int64_t>(found->present, 0);
  if (found->frame == 0) {
    require(found->promised <= present, "audio ", file, ": the header promises ", found->promised,
            " bytes of audio, the file holds ", present);
    return;
  }
  // Less than a frame missing is a matter of padding.
  require(found->promised / found->frame <= present / found->frame, "audio ", file, ": the header promises ",
          found->promised / found->frame, " frames, the file holds ", present / found->frame);
}

}  // namespace blockstate::audio
