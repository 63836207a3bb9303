// SPDX-License-Identifier: Apache-2.0
// Real recordings and odd files, unpacked to a temporary folder by tar. Skipped where BLOCKSTATE_DATA is unset.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "audio/audio_dataset.h"
#include "audio/wav_reader.h"
#include "core/base/check.h"
#include "tests/support/temp_dir.h"

namespace blockstate::audio {
namespace {

namespace fs = std::filesystem;

/// Unpacks an archive of the real data; false, with a word on the terminal, where there is none.
bool unpack(const test::TempDir& folder, const std::string& archive) {
  const std::string data = test::real_data_folder();
  if (data.empty()) {
    WARN("skipped: BLOCKSTATE_DATA is unset");
    return false;
  }
  const std::string command = "tar xf '" + data + "/audio/" + archive + "' -C '" + folder.path().string() + "'";
  REQUIRE(std::system(command.c_str()) == 0);
  return true;
}

TEST_CASE("real audio: odd and corrupt files are read or refused in a sentence") {
  const test::TempDir folder;
  if (!unpack(folder, "odd_wav_dev.tar.xz")) {
    return;
  }
  std::map<std::string, int> refused;
  int read = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder.path())) {
    if (!entry.is_regular_file()) {
      continue;
    }
    const std::string name = fs::relative(entry.path(), folder.path()).string();
    CAPTURE(name);
    try {
      const Clip clip = read_clip(entry.path().string());
      CHECK_FALSE(clip.samples.empty());
      CHECK(clip.rate > 0);
      ++read;
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find(name) != std::string::npos);
      ++refused[name.substr(0, name.rfind('/'))];
    }
  }
  CHECK(read > 90);
  CHECK(refused["jstrait_wavefile/valid"] == 1);  // no_samples.wav
  CHECK(refused["jstrait_wavefile/invalid"] > 30);
  CHECK(refused["cpython"] == 0);
}

TEST_CASE("real audio: one sound in fifteen containers is one sound") {
  const test::TempDir folder;
  if (!unpack(folder, "odd_wav_dev.tar.xz")) {
    return;
  }
  const Clip reference = read_clip(folder.file("cpython/pluck-pcm32.wav"));
  REQUIRE(reference.samples.size() == 3307);
  for (const auto& entry : fs::directory_iterator(folder.path() / "cpython")) {
    const std::string name = entry.path().filename().string();
    CAPTURE(name);
    const Clip clip = read_clip(entry.path().string());
    CHECK(clip.rate == 11025);
    REQUIRE(clip.samples.size() == reference.samples.size());
    float worst = 0;
    for (size_t t = 0; t < clip.samples.size(); ++t) {
      worst = std::max(worst, std::abs(clip.samples[t] - reference.samples[t]));
    }
    // A step of 24 bits; three of 16, whose files carry dither; one of 8; of A-law and mu-law at full scale.
    const bool is16 = name.find("pcm16") != std::string::npos;
    const bool is8 = name.find("pcm8") != std::string::npos;
    const bool companded = name.find("law") != std::string::npos;
    CHECK(worst <= (companded ? 0x1p-5f : is8 ? 0x1p-7f : is16 ? 3 * 0x1p-15f : 0x1p-23f));
  }
}

TEST_CASE("real audio: every spoken digit makes an example") {
  const test::TempDir folder;
  if (!unpack(folder, "fsdd_dev.tar.xz")) {
    return;
  }
  std::string manifest = "path\tlabel\n";
  int64_t files = 0;
  for (const auto& entry : fs::directory_iterator(folder.path() / "recordings")) {
    const std::string name = entry.path().filename().string();
    manifest += "recordings/" + name + "\t" + name.substr(0, 1) + "\n";
    ++files;
  }
  AudioOptions options;
  options.sample_rate = 8000;
  options.patch = 16;
  const auto data = open_audio_dataset(folder.write("all.tsv", manifest),
                                       {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}, options);
  REQUIRE(data->size() == files);
  CHECK(files == 2250);
  int64_t wrong = 0;
  for (int64_t i = 0; i < data->size(); ++i) {
    const data::Example example = data->get(i);
    wrong += example.length() != data->length(i) || example.length() < 60 || example.length() > 1250;
    wrong += example.label != example.name[11] - '0';
  }
  CHECK(wrong == 0);
}

TEST_CASE("real audio: seeking in a long Ogg file gives the samples of the whole") {
  const std::string data = test::real_data_folder();
  if (data.empty()) {
    WARN("skipped: BLOCKSTATE_DATA is unset");
    return;
  }
  const std::string file = data + "/audio/Kevin_MacLeod_-_Vibe_Ace.hq.ogg";
  const Clip whole = read_clip(file);
  CHECK(static_cast<double>(whole.samples.size()) / static_cast<double>(whole.rate) > 60);
  for (const double start : {0.01, 13.37, 42.0, 59.9}) {
    CAPTURE(start);
    const Clip slice = read_clip(file, start, start + 0.1);
    const auto first = std::lround(start * static_cast<double>(whole.rate));
    CHECK(std::equal(slice.samples.begin(), slice.samples.end(), whole.samples.begin() + first));
  }
}

}  // namespace
}  // namespace blockstate::audio
