// SPDX-License-Identifier: Apache-2.0
#include <sys/resource.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include "audio/wav_reader.h"
#include "core/base/check.h"
#include "core/base/random.h"
#include "tests/audio/audio_files.h"
#include "tests/support/temp_dir.h"

namespace blockstate::audio {
namespace {

using Catch::Matchers::Contains;
using test::ramp_bytes;
using test::TempDir;
using test::wav_bytes;
using test::write_audio;

std::vector<float> noise(int64_t samples, uint64_t seed) {
  RandomStream random(seed);
  std::vector<float> out(static_cast<size_t>(samples));
  for (float& x : out) {
    x = static_cast<float>(2 * random.uniform() - 1);
  }
  return out;
}

std::string error_of(const std::string& file, std::optional<double> start = {}, std::optional<double> end = {}) {
  try {
    read_clip(file, start, end);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("reader: a float WAV comes back bit for bit, with its rate and frames") {
  const TempDir folder;
  const std::vector<float> samples = noise(10'007, 1);
  AudioReader reader(write_audio(folder.file("a.wav"), samples, 1, 11025));
  CHECK(reader.rate() == 11025);
  CHECK(reader.channels() == 1);
  CHECK(reader.frames() == 10'007);
  CHECK(reader.left() == 10'007);
  CHECK(read_samples(reader) == samples);
  CHECK(reader.left() == 0);
  CHECK(read_samples(reader).empty());
}

TEST_CASE("reader: the mono mix is the mean of the channels") {
  const TempDir folder;
  for (const int channels : {2, 3, 20}) {
    CAPTURE(channels);
    const std::vector<float> samples = noise(5000 * channels, 2);
    const Clip clip = read_clip(write_audio(folder.file("a.wav"), samples, channels, 8000));
    REQUIRE(clip.samples.size() == 5000);
    int64_t wrong = 0;
    for (size_t t = 0; t < clip.samples.size(); ++t) {
      double sum = 0;
      for (size_t c = 0; c < static_cast<size_t>(channels); ++c) {
        sum += static_cast<double>(samples[t * static_cast<size_t>(channels) + c]);
      }
      wrong += clip.samples[t] != static_cast<float>(sum / channels);
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("reader: integers are scaled to full scale 1 in every width") {
  const TempDir folder;
  const std::vector<float> samples = {0.0f, 0.5f, -0.5f, -1.0f, 0.25f};
  for (const int subtype :
       {SF_FORMAT_PCM_U8, SF_FORMAT_PCM_16, SF_FORMAT_PCM_24, SF_FORMAT_PCM_32, SF_FORMAT_FLOAT, SF_FORMAT_DOUBLE}) {
    CAPTURE(subtype);
    const Clip clip = read_clip(write_audio(folder.file("a.wav"), samples, 1, 8000, SF_FORMAT_WAV | subtype));
    REQUIRE(clip.samples.size() == samples.size());
    for (size_t t = 0; t < samples.size(); ++t) {
      // One step of the 8-bit scale; the writer scales by 127 where the reader divides by 128.
      CHECK(std::abs(clip.samples[t] - samples[t]) <= (subtype == SF_FORMAT_PCM_U8 ? 1.0f / 128 : 1.0f / 16384));
    }
  }
}

TEST_CASE("reader: pieces of any size and slices agree with the whole, in every container") {
  const TempDir folder;
  const std::vector<float> samples = test::sine(2 * 24'000, 300, 16000);
  struct Kind {
    const char* file;
    int format;
  };
  const std::vector<Kind> kinds = {
      {"a.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_16},   {"a.flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_16},
      {"a.aiff", SF_FORMAT_AIFF | SF_FORMAT_PCM_24}, {"a.au", SF_FORMAT_AU | SF_FORMAT_ULAW},
      {"a.ogg", SF_FORMAT_OGG | SF_FORMAT_VORBIS},   {"a.mp3", SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III}};
  for (const Kind& kind : kinds) {
    CAPTURE(kind.file);
    const std::string file = write_audio(folder.file(kind.file), samples, 2, 16000, kind.format);
    const Clip whole = read_clip(file);
    REQUIRE(whole.samples.size() == 24'000);
    CHECK(std::abs(whole.samples[1000] - (samples[2000] + samples[2001]) / 2) < 0.05f);

    AudioReader reader(file);
    std::vector<float> pieces;
    std::vector<float> piece;
    for (int64_t size = 1; pieces.size() < whole.samples.size(); size = size * 3 + 1) {
      piece.resize(static_cast<size_t>(size));
      const int64_t got = reader.read(piece);
      pieces.insert(pieces.end(), piece.begin(), piece.begin() + got);
    }
    CHECK(pieces == whole.samples);

    reader.select(0.25, 0.5);  // back again
    CHECK(reader.left() == 4000);
    const std::vector<float> again = read_samples(reader);
    CHECK(again.size() == 4000);
    CHECK(std::equal(again.begin(), again.end(), whole.samples.begin() + 4000));

    for (const double start : {0.0, 0.1, 0.5000313, 1.2}) {
      for (const double end : {1.25, 1.4999}) {
        const Clip slice = read_clip(file, start, end);
        const auto first = static_cast<size_t>(std::lround(start * 16000));
        REQUIRE(slice.samples.size() == static_cast<size_t>(std::lround(end * 16000)) - first);
        CHECK(std::equal(slice.samples.begin(), slice.samples.end(),
                         whole.samples.begin() + static_cast<std::ptrdiff_t>(first)));
      }
    }
  }
}

TEST_CASE("reader: intervals at and past the end") {
  const TempDir folder;
  const std::string file = write_audio(folder.file("a.wav"), noise(8000, 3), 1, 8000);
  CHECK(read_clip(file, 0.5).samples.size() == 4000);
  CHECK(read_clip(file, {}, 0.25).samples.size() == 2000);
  CHECK(read_clip(file, 0.5, 1.25).samples.size() == 4000);
  CHECK_THAT(error_of(file, 0.5, 1.6), Contains("a.wav: end 1.6 s lies past the end (1 s)"));
  CHECK_THAT(error_of(file, 1.0, 1.2), Contains("start 1 s lies past the end (1 s)"));
  CHECK_THAT(error_of(file, 7.0), Contains("start 7 s lies past the end"));
  CHECK_THAT(error_of(file, 0.5, 0.5), Contains("no sample lies between"));
  CHECK_THAT(error_of(file, 0.5, 0.2), Contains("wanted an interval"));
  CHECK_THAT(error_of(file, -1.0, 0.2), Contains("wanted an interval"));
}

TEST_CASE("reader: what is no audio is named in a sentence") {
  const TempDir folder;
  CHECK_THAT(error_of(folder.file("none.wav")), Contains("none.wav: no such file"));
  CHECK_THAT(error_of(folder.path().string()), Contains("found a directory"));
  CHECK_THAT(error_of(folder.write("empty.wav", "")), Contains("the file is empty"));
  CHECK_THAT(error_of(folder.write("text.wav", "no audio in here, only words")), Contains("cannot be decoded"));
  CHECK_THAT(error_of(folder.write("text.au", "no audio in here, only words")), Contains("without a header"));
  CHECK_THAT(error_of(folder.write("silent.wav", wav_bytes({}, ""))), Contains("holds no audio"));
  CHECK_THAT(error_of(folder.write("rate.wav", wav_bytes({.rate = 0}, ramp_bytes(8)))), Contains("rate.wav"));
  CHECK_THAT(error_of(folder.write("none.wav", wav_bytes({.channels = 0}, ramp_bytes(8)))), Contains("none.wav"));
  CHECK_THAT(error_of(folder.write("align.wav", wav_bytes({.bits = 24, .align = 4}, ramp_bytes(8)))),
             Contains("1 channels of 24 bits, but frames of 4 bytes"));
}

TEST_CASE("reader: a file cut short says what was promised and what is there") {
  const TempDir folder;
  const std::string whole = wav_bytes({}, ramp_bytes(1000));
  REQUIRE(read_clip(folder.write("w.wav", whole)).samples.size() == 1000);
  CHECK_THAT(error_of(folder.write("c.wav", whole.substr(0, whole.size() - 2))),
             Contains("c.wav: the header promises 1000 frames, the file holds 999"));
  CHECK_THAT(error_of(folder.write("c.wav", whole.substr(0, 44 + 200))), Contains("the file holds 100"));
  // Cut anywhere: never a crash, never samples that pass for the whole.
  for (size_t size = 0; size < whole.size(); size += size < 60 ? 1 : 97) {
    CAPTURE(size);
    CHECK_FALSE(error_of(folder.write("c.wav", whole.substr(0, size))).empty());
  }
  for (const auto& [name, format] :
       {std::pair{"a.flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_16}, std::pair{"a.aiff", SF_FORMAT_AIFF | SF_FORMAT_PCM_16},
        std::pair{"a.au", SF_FORMAT_AU | SF_FORMAT_PCM_16}, std::pair{"a.wav", SF_FORMAT_RF64 | SF_FORMAT_PCM_16},
        std::pair{"b.wav", SF_FORMAT_WAV | SF_FORMAT_IMA_ADPCM}}) {
    CAPTURE(name);
    const std::string file = write_audio(folder.file(name), noise(20'000, 4), 1, 8000, format);
    REQUIRE(error_of(file).empty());
    std::filesystem::resize_file(file, std::filesystem::file_size(file) * 2 / 3);
    CHECK_THAT(error_of(file), Contains("promises"));
  }
}

TEST_CASE("reader: sizes that a writer to a pipe leaves behind mean to the end") {
  const TempDir folder;
  for (const int64_t size : {int64_t{0xFFFFFFFF}, int64_t{0x7FFFF000}}) {
    const std::string bytes = wav_bytes({.riff_size = size, .data_size = size}, ramp_bytes(500));
    CHECK(read_clip(folder.write("p.wav", bytes)).samples.size() == 500);
  }
}

TEST_CASE("reader: a header that promises hours costs no memory") {
  const TempDir folder;
  // FLAC: the stream information says 2^35 samples, the file holds 4096.
  const std::string file =
      write_audio(folder.file("a.flac"), noise(4096, 5), 1, 8000, SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
  std::FILE* stream = std::fopen(file.c_str(), "r+b");
  REQUIRE(stream != nullptr);
  const unsigned char total[5] = {0x78, 0, 0, 0};  // low 4 bits of byte 21, bytes 22..25: 36-bit count
  std::fseek(stream, 21, SEEK_SET);
  REQUIRE(std::fwrite(total, 1, 5, stream) == 5);
  std::fclose(stream);
  rusage before{};
  getrusage(RUSAGE_SELF, &before);
  CHECK_FALSE(error_of(file).empty());
  rusage after{};
  getrusage(RUSAGE_SELF, &after);
  CHECK(after.ru_maxrss - before.ru_maxrss < 64 * 1024);  // KiB
}

TEST_CASE("reader: the first sample that is not finite is named by its time") {
  const TempDir folder;
  for (const float odd : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    std::vector<float> samples = noise(2 * 9000, 6);
    samples[2 * 6000 + 1] = odd;
    samples[2 * 7000] = odd;
    const std::string file = write_audio(folder.file("odd.wav"), samples, 2, 8000);
    CHECK_THAT(error_of(file), Contains("odd.wav") && Contains("at 0.75 s (sample 6000)"));
    CHECK_THAT(error_of(file, 0.5), Contains("at 0.75 s (sample 6000)"));
    CHECK(error_of(file, {}, 0.75).empty());
  }
}

TEST_CASE("reader: threads with readers of their own, some of bad files, do not disturb each other") {
  const TempDir folder;
  const std::vector<float> samples = noise(3000, 7);
  const std::string good = write_audio(folder.file("good.wav"), samples, 1, 8000);
  const std::string bad = folder.write("bad.wav", "no audio in here, only words");
  std::vector<int> right(4, 0);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < right.size(); ++i) {
    threads.emplace_back([&, i] {
      for (int k = 0; k < 50; ++k) {
        right[i] += read_clip(good).samples == samples;
        right[i] += error_of(bad).find("bad.wav") != std::string::npos;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(right == std::vector<int>(4, 100));
}

}  // namespace
}  // namespace blockstate::audio
