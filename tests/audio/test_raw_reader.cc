// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <bit>
#include <catch2/catch.hpp>
#include <cstdio>
#include <limits>
#include <memory>
#include <thread>

#include "audio/raw_reader.h"
#include "core/base/check.h"
#include "tests/audio/audio_files.h"
#include "tests/support/temp_dir.h"

namespace blockstate::audio {
namespace {

using Catch::Matchers::Contains;
using test::little;
using Stream = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

Stream open_bytes(const test::TempDir& folder, const std::string& bytes) {
  return {std::fopen(folder.write("raw", bytes).c_str(), "rb"), std::fclose};
}

TEST_CASE("raw: 16-bit samples are scaled by 32768") {
  const test::TempDir folder;
  const Stream stream = open_bytes(folder, little(0, 2) + little(0x4000, 2) + little(0x8000, 2) + little(0xFFFF, 2));
  RawReader reader(stream.get(), "standard input", RawFormat::kS16le, 8000);
  CHECK(read_samples(reader) == std::vector<float>{0.0f, 0.5f, -1.0f, -1.0f / 32768});
  CHECK(reader.rate() == 8000);
  CHECK(read_samples(reader).empty());
}

TEST_CASE("raw: floats arrive bit for bit through a pipe that delivers odd pieces") {
  const std::vector<float> samples = test::sine(50'001, 440, 16000);
  std::string bytes;
  for (const float x : samples) {
    bytes += little(std::bit_cast<uint32_t>(x), 4);
  }
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  std::thread writer([&] {
    for (size_t at = 0, size = 1; at < bytes.size(); at += size, size = size * 2 % 1021 + 1) {
      size = std::min(size, bytes.size() - at);
      if (write(ends[1], bytes.data() + at, size) != static_cast<ssize_t>(size)) {
        break;
      }
    }
    close(ends[1]);
  });
  const Stream stream(fdopen(ends[0], "rb"), std::fclose);
  RawReader reader(stream.get(), "standard input", RawFormat::kF32le, 16000);
  const std::vector<float> got = read_samples(reader);
  writer.join();
  CHECK(got == samples);
}

TEST_CASE("raw: bad streams are errors") {
  const test::TempDir folder;
  const auto read = [&](const std::string& bytes, RawFormat format) {
    const Stream stream = open_bytes(folder, bytes);
    RawReader reader(stream.get(), "standard input", format, 8000);
    read_samples(reader);
  };
  CHECK_THROWS_WITH(read("", RawFormat::kS16le), Contains("standard input: holds no audio"));
  CHECK_THROWS_WITH(read("abc", RawFormat::kS16le), Contains("1 bytes more after sample 1"));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(read(little(0, 4) + little(std::bit_cast<uint32_t>(nan), 4), RawFormat::kF32le),
                    Contains("NaN at 0.000125 s (sample 1)"));
  CHECK_THROWS_WITH(RawReader(stdin, "standard input", RawFormat::kS16le, 0), Contains("rate from 1 Hz up, found 0"));
  CHECK(parse_raw_format("f32le") == RawFormat::kF32le);
  CHECK_THROWS_WITH(parse_raw_format("u8"), Contains("wanted s16le or f32le, found 'u8'"));
}

}  // namespace
}  // namespace blockstate::audio
