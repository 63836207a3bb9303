// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <catch2/catch.hpp>
#include <thread>

#include "audio/audio_dataset.h"
#include "audio/quantise.h"
#include "audio/resample.h"
#include "audio/wav_reader.h"
#include "core/base/check.h"
#include "tests/audio/audio_files.h"
#include "tests/support/temp_dir.h"

namespace blockstate::audio {
namespace {

using Catch::Matchers::Contains;
using test::sine;
using test::TempDir;
using test::write_audio;

/// A folder with two clips, one of them of two channels at another rate, and a manifest over them.
struct Clips {
  TempDir folder;
  std::vector<float> low = sine(1000, 200, 8000);
  std::string manifest;

  Clips() {
    std::filesystem::create_directories(folder.path() / "wav");
    write_audio(folder.file("wav/low.wav"), low, 1, 8000);
    write_audio(folder.file("wav/high.wav"), sine(2 * 8820, 300, 44100), 2, 44100);
    manifest = folder.write("all.tsv",
                            "path\tlabel\tstart\tend\n"
                            "wav/low.wav\tb\t\t\n"
                            "wav/high.wav\ta\t\t\n"
                            "wav/low.wav\ta\t0.05\t0.1\n");
  }
};

TEST_CASE("audio data set: frames, labels, names and lengths of a manifest") {
  const Clips clips;
  AudioOptions options;
  options.sample_rate = 8000;
  options.patch = 16;
  const auto data = open_audio_dataset(clips.manifest, {"a", "b"}, options);
  REQUIRE(data->size() == 3);
  const data::Example first = data->get(0);
  CHECK(first.name == "wav/low.wav");
  CHECK(first.label == 1);
  CHECK(first.channels == 16);
  CHECK(first.length() == 63);
  CHECK(std::equal(clips.low.begin(), clips.low.end(), first.frames.begin()));
  CHECK(std::all_of(first.frames.begin() + 1000, first.frames.end(), [](float x) { return x == 0; }));
  const data::Example second = data->get(1);
  CHECK(second.label == 0);
  CHECK(second.length() == 100);  // 8820 frames at 44.1 kHz are 1600 samples at 8 kHz
  const Clip high = read_clip(clips.folder.file("wav/high.wav"));
  CHECK(second.frames == resample(high.samples, 44100, 8000));
  const data::Example third = data->get(2);
  CHECK(third.name == "wav/low.wav:0.05-0.1");
  CHECK(std::equal(third.frames.begin(), third.frames.end(), clips.low.begin() + 400));
  for (int64_t i = 0; i < data->size(); ++i) {
    CHECK(data->length(i) == data->get(i).length());
    CHECK(data->length(i) == data->get(i).length());  // and again, once it is known
  }
}

TEST_CASE("audio data set: a long clip is cut at its start, a short one stays short") {
  const Clips clips;
  AudioOptions options;
  options.sample_rate = 8000;
  options.length = 1200;
  options.input = AudioInput::kMulaw;
  const auto data = open_audio_dataset(clips.manifest, {}, options);
  const data::Example whole = data->get(0);
  CHECK(whole.tokens == mulaw_encode(clips.low));
  CHECK(whole.frames.empty());
  CHECK(whole.label == -1);
  const data::Example cut = data->get(1);
  REQUIRE(cut.length() == 1200);
  CHECK(data->length(1) == 1200);
  const std::vector<float> resampled = resample(read_clip(clips.folder.file("wav/high.wav")).samples, 44100, 8000);
  CHECK(cut.tokens == mulaw_encode(std::span(resampled).first(1200)));

  options.input = AudioInput::kLinear8;
  const AudioDataset linear(audio_items({clips.folder.file("wav/low.wav")}), options);
  CHECK(linear.get(0).tokens == linear8_encode(clips.low));
  CHECK(linear.get(0).name == clips.folder.file("wav/low.wav"));
}

TEST_CASE("audio data set: the same examples from several threads at once") {
  const Clips clips;
  AudioOptions options;
  options.sample_rate = 16000;
  const auto data = open_audio_dataset(clips.manifest, {"a", "b"}, options);
  std::vector<data::Example> expected;
  for (int64_t i = 0; i < data->size(); ++i) {
    expected.push_back(data->get(i));
  }
  const auto again = open_audio_dataset(clips.manifest, {"a", "b"}, options);
  std::vector<int64_t> right(4, 0);
  std::vector<std::thread> threads;
  for (size_t worker = 0; worker < right.size(); ++worker) {
    threads.emplace_back([&, worker] {
      for (int64_t k = 0; k < 30; ++k) {
        const int64_t i = k % again->size();
        const data::Example& wanted = expected[static_cast<size_t>(i)];
        right[worker] += again->length(i) == wanted.length() && again->get(i).frames == wanted.frames;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(right == std::vector<int64_t>(4, 30));
}

TEST_CASE("audio data set: what is wrong is said with the manifest's line") {
  const Clips clips;
  AudioOptions options;
  options.sample_rate = 8000;
  CHECK_THROWS_WITH(open_audio_dataset(clips.manifest, {"b", "c"}, options),
                    Contains("all.tsv line 3") && Contains("label 'a' is none of the 2 classes"));
  const std::string bad = clips.folder.write("bad.tsv",
                                             "path\tstart\tend\n"
                                             "wav/none.wav\t\t\n"
                                             "wav/low.wav\t5\t6\n");
  const auto data = open_audio_dataset(bad, {}, options);
  CHECK_THROWS_WITH(data->get(0), Contains("none.wav: no such file (manifest") && Contains("bad.tsv line 2)"));
  CHECK_THROWS_WITH(data->get(1), Contains("start 5 s lies past the end (0.125 s)") && Contains("bad.tsv line 3)"));
  CHECK_THROWS_WITH(data->length(1), Contains("bad.tsv line 3)"));
  CHECK_THROWS_WITH(data->get(2), Contains("from 0 to 1, found 2"));
  const std::string dna = clips.folder.write("dna.tsv", "sequence\tlabel\nACGT\tx\n");
  CHECK_THROWS_WITH(open_audio_dataset(dna, {}, options), Contains("wanted the path of an audio file"));
}

TEST_CASE("audio data set: options that make no sense are refused") {
  const auto error = [](const AudioOptions& options) {
    try {
      validate(options);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(error({}).empty());
  CHECK_THAT(error({.sample_rate = 0, .manifest = {}}), Contains("data.sample_rate") && Contains("found 0"));
  CHECK_THAT(error({.length = -1, .manifest = {}}), Contains("data.length"));
  CHECK_THAT(error({.patch = 0, .manifest = {}}), Contains("data.patch"));
  CHECK_THAT(error({.input = AudioInput::kMulaw, .patch = 16, .manifest = {}}), Contains("only input = \"waveform\""));
  CHECK(parse_audio_input("linear8") == AudioInput::kLinear8);
  CHECK_THROWS_WITH(parse_audio_input("wave"), Contains("waveform, mulaw or linear8, found 'wave'"));
}

}  // namespace
}  // namespace blockstate::audio
