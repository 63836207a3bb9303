// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "audio/sample_source.h"
#include "core/data/dataset.h"
#include "core/data/manifest.h"

namespace blockstate::audio {

/// What a model sees of a waveform.
enum class AudioInput {
  kWaveform,  ///< frames (L, patch)
  kMulaw,     ///< tokens (L), 256 codes
  kLinear8,   ///< tokens (L), 256 codes
};

/// "waveform", "mulaw" or "linear8"; Error otherwise.
AudioInput parse_audio_input(const std::string& text);

struct AudioOptions {
  int64_t sample_rate = 16000;  ///< Hz; files at another rate are resampled
  int64_t length = 0;           ///< samples of an example at most; 0: the whole clip
  AudioInput input = AudioInput::kWaveform;
  int64_t patch = 1;  ///< samples a step; only for kWaveform
  data::ManifestOptions manifest;
};

/// Error: a rate below 1, a negative length, a patch below 1, a patch for an input of codes.
void validate(const AudioOptions& options);

/// Tokens or frames of samples (T) that are already at the options' rate; the label is left unknown.
data::Example audio_example(const std::string& name, std::span<const float> samples, const AudioOptions& options);

/// A file, or an interval of it, at `sample_rate`. Error names the file.
std::unique_ptr<SampleSource> open_audio(const std::string& file, int64_t sample_rate, std::optional<double> start = {},
                                         std::optional<double> end = {});

/// One clip of an AudioDataset.
struct AudioItem {
  std::string name;
  std::string path;
  std::optional<double> start;  ///< seconds
  std::optional<double> end;
  int64_t label = -1;  ///< class index; -1 unknown
  std::string origin;  ///< "manifest FILE line N", for messages; may be empty
};

/// Files as items without labels.
std::vector<AudioItem> audio_items(const std::vector<std::string>& files);

/// A manifest's rows as items; a label's class is its place in `classes` (no classes: labels stay unknown).
/// Error: a label that is none of the classes, a row with bases inline.
std::vector<AudioItem> audio_items(const data::Manifest& manifest, const std::vector<std::string>& classes);

/// Clips on disk. A clip longer than `length` is cut, one that is shorter stays short. A file is opened for each
/// call, so several threads may call at once.
class AudioDataset : public data::Dataset {
 public:
  AudioDataset(std::vector<AudioItem> items, const AudioOptions& options);
  int64_t size() const override { return static_cast<int64_t>(items_.size()); }
  /// From the header, which is read once. Where it gives no length: the longest that is possible.
  int64_t length(int64_t index) const override;
  data::Example get(int64_t index) const override;

 private:
  const AudioItem& item(int64_t index) const;

  std::vector<AudioItem> items_;
  AudioOptions options_;
  std::unique_ptr<std::atomic<int64_t>[]> lengths_;  ///< steps of each item; 0 not known yet
};

/// Reads the manifest `file` with options.manifest. `classes` empty: labels stay unknown.
std::unique_ptr<AudioDataset> open_audio_dataset(const std::string& file, const std::vector<std::string>& classes,
                                                 const AudioOptions& options);

}  // namespace blockstate::audio
