// SPDX-License-Identifier: Apache-2.0
#include "audio/audio_dataset.h"

#include <algorithm>
#include <limits>

#include "audio/quantise.h"
#include "audio/resample.h"
#include "audio/wav_reader.h"
#include "audio/waveform.h"
#include "core/base/check.h"

namespace blockstate::audio {
namespace {

AudioReader open_interval(const std::string& file, std::optional<double> start, std::optional<double> end) {
  AudioReader reader(file);
  if (start || end) {
    reader.select(start, end);
  }
  return reader;
}

/// The part of a clip that becomes an example: its first `length` samples. The one place to choose another part.
std::vector<float> crop(SampleSource& clip, int64_t length) { return read_samples(clip, length); }

int64_t steps(int64_t samples, const AudioOptions& options) {
  const int64_t kept = options.length > 0 ? std::min(samples, options.length) : samples;
  return options.input == AudioInput::kWaveform ? patch_steps(kept, options.patch) : kept;
}

/// Runs `read`; its Error also says which line of which manifest asked for the clip.
template <class Read>
auto with_origin(const AudioItem& item, Read read) {
  if (item.origin.empty()) {
    return read();
  }
  try {
    return read();
  } catch (const Error& error) {
    fail(error.what(), " (", item.origin, ")");
  }
}

}  // namespace

AudioInput parse_audio_input(const std::string& text) {
  if (text == "waveform") {
    return AudioInput::kWaveform;
  }
  if (text == "mulaw") {
    return AudioInput::kMulaw;
  }
  require(text == "linear8", "data.input: wanted waveform, mulaw or linear8, found '", text, "'");
  return AudioInput::kLinear8;
}

void validate(const AudioOptions& options) {
  require(options.sample_rate > 0, "data.sample_rate: wanted a rate from 1 Hz up, found ", options.sample_rate);
  require(options.length >= 0, "data.length: wanted samples from 1 up, or 0 for whole clips, found ", options.length);
  require(options.patch > 0, "data.patch: wanted samples a step from 1 up, found ", options.patch);
  require(options.patch == 1 || options.input == AudioInput::kWaveform,
          "data.patch: only input = \"waveform\" has patches, wanted 1, found ", options.patch);
}

data::Example audio_example(const std::string& name, std::span<const float> samples, const AudioOptions& options) {
  data::Example example;
  example.name = name;
  if (options.input == AudioInput::kWaveform) {
    example.frames = patch_frames(samples, options.patch);
    example.channels = options.patch;
  } else {
    example.tokens = options.input == AudioInput::kMulaw ? mulaw_encode(samples) : linear8_encode(samples);
  }
  return example;
}

std::unique_ptr<SampleSource> open_audio(const std::string& file, int64_t sample_rate, std::optional<double> start,
                                         std::optional<double> end) {
  auto reader = std::make_unique<AudioReader>(open_interval(file, start, end));
  if (reader->rate() == sample_rate) {
    return reader;
  }
  return std::make_unique<ResampledSource>(std::move(reader), sample_rate);
}

std::vector<AudioItem> audio_items(const std::vector<std::string>& files) {
  std::vector<AudioItem> items;
  for (const std::string& file : files) {
    items.push_back({file, file, {}, {}, -1, ""});
  }
  return items;
}

std::vector<AudioItem> audio_items(const data::Manifest& manifest, const std::vector<std::string>& classes) {
  std::vector<AudioItem> items;
  for (const data::ManifestRow& row : manifest.rows) {
    const std::string origin = join("manifest ", manifest.file, " line ", row.line);
    require(!row.path.empty(), origin, ": wanted the path of an audio file, found a sequence");
    int64_t label = -1;
    if (!classes.empty() && !row.label.empty()) {
      const auto at = std::find(classes.begin(), classes.end(), row.label);
      require(at != classes.end(), origin, ": label '", row.label, "' is none of the ", classes.size(),
              " classes of the model");
      label = at - classes.begin();
    }
    items.push_back({row.name, row.path, row.start, row.end, label, origin});
  }
  return items;
}

AudioDataset::AudioDataset(std::vector<AudioItem> items, const AudioOptions& options)
    : items_(std::move(items)), options_(options), lengths_(std::make_unique<std::atomic<int64_t>[]>(items_.size())) {
  validate(options);
}

const AudioItem& AudioDataset::item(int64_t index) const {
  require(index >= 0 && index < size(), "audio data set: wanted an example from 0 to ", size() - 1, ", found ", index);
  return items_[static_cast<size_t>(index)];
}

int64_t AudioDataset::length(int64_t index) const {
  const AudioItem& clip = item(index);
  std::atomic<int64_t>& known = lengths_[static_cast<size_t>(index)];
  if (known == 0) {  // two threads may both read the header: they find the same
    known = with_origin(clip, [&] {
      const AudioReader reader = open_interval(clip.path, clip.start, clip.end);
      const int64_t left = reader.left();
      return steps(
          left < 0 ? std::numeric_limits<int64_t>::max() : resampled_length(left, reader.rate(), options_.sample_rate),
          options_);
    });
  }
  return known;
}

data::Example AudioDataset::get(int64_t index) const {
  const AudioItem& clip = item(index);
  return with_origin(clip, [&] {
    const auto source = open_audio(clip.path, options_.sample_rate, clip.start, clip.end);
    const std::vector<float> samples = crop(*source, options_.length);
    require(!samples.empty(), "audio ", clip.path, ": too short for one sample at ", options_.sample_rate, " Hz");
    data::Example example = audio_example(clip.name, samples, options_);
    example.label = clip.label;
    return example;
  });
}

std::unique_ptr<AudioDataset> open_audio_dataset(const std::string& file, const std::vector<std::string>& classes,
                                                 const AudioOptions& options) {
  return std::make_unique<AudioDataset>(audio_items(data::read_manifest(file, options.manifest), classes), options);
}

}  // namespace blockstate::audio
