// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "audio/quantise.h"
#include "audio/wav_reader.h"
#include "audio/wav_writer.h"
#include "core/base/check.h"
#include "tests/support/temp_dir.h"

namespace blockstate::audio {
namespace {

using Catch::Matchers::Contains;

std::vector<int64_t> all_codes() {
  std::vector<int64_t> codes(kCodes);
  for (int64_t code = 0; code < kCodes; ++code) {
    codes[static_cast<size_t>(code)] = code;
  }
  return codes;
}

}  // namespace

TEST_CASE("wav writer: every 8-bit code comes back as it was") {
  const test::TempDir folder;
  const std::vector<int64_t> codes = all_codes();
  for (const bool mulaw : {true, false}) {
    const std::string file = folder.file("codes.wav");
    WavWriter writer(file, 8000, kCodes);
    writer.write(mulaw ? mulaw_decode(codes) : linear8_decode(codes));
    writer.finish();
    const Clip clip = read_clip(file);
    CHECK(clip.rate == 8000);
    CHECK((mulaw ? mulaw_encode(clip.samples) : linear8_encode(clip.samples)) == codes);
  }
}

TEST_CASE("wav writer: a file that was never finished is whole as far as it was written") {
  const test::TempDir folder;
  const std::string file = folder.file("begun.wav");
  WavWriter writer(file, 11025, 1000);
  const std::vector<float> part(300, 0.25F);
  for (int64_t written = 300; written <= 900; written += 300) {
    writer.write(part);
    const Clip clip = read_clip(file);  // the writer still has it open
    CHECK(static_cast<int64_t>(clip.samples.size()) == written);
    CHECK(clip.samples.back() == 0.25F);
  }
}

TEST_CASE("wav writer: what lies beyond full scale is clipped") {
  const test::TempDir folder;
  WavWriter writer(folder.file("loud.wav"), 8000, 3);
  writer.write(std::vector<float>{2, -2, 1});
  writer.finish();
  CHECK(read_clip(folder.file("loud.wav")).samples == std::vector<float>{32767 / 32768.0F, -1, 32767 / 32768.0F});
}

TEST_CASE("wav writer: more than a WAV header can say makes an RF64") {
  const test::TempDir folder;
  WavWriter writer(folder.file("long.wav"), 8000, int64_t{3} << 30);
  writer.write(std::vector<float>(5, 0.5F));
  writer.finish();
  CHECK(read_clip(folder.file("long.wav")).samples.size() == 5);
  std::ifstream in(folder.file("long.wav"), std::ios::binary);
  std::string magic(4, ' ');
  in.read(magic.data(), 4);
  CHECK(magic == "RF64");
}

TEST_CASE("wav writer: a place that cannot be written is named") {
  CHECK_THROWS_WITH(WavWriter("not/there.wav", 8000, 1), Contains("not/there.wav: cannot write"));
}

}  // namespace blockstate::audio
