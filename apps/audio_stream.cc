// SPDX-License-Identifier: Apache-2.0
#include "apps/audio_stream.h"

#include <algorithm>
#include <cstdio>
#include <deque>
#include <filesystem>

#include "apps/format.h"
#include "audio/audio_dataset.h"
#include "audio/raw_reader.h"
#include "audio/resample.h"
#include "audio/wav_reader.h"
#include "core/base/check.h"

namespace blockstate::apps {
namespace {

constexpr int64_t kEndless = INT64_MAX;

/// One recording, read through a buffer that holds at most one window (or, without windows, one chunk).
class AudioStream : public InputStream {
 public:
  /// `start`: seconds at which the source begins, where it is an interval of a recording.
  AudioStream(std::unique_ptr<audio::SampleSource> source, const audio::AudioOptions& options, const Windows& windows,
              const std::string& name, double start = 0)
      : source_(std::move(source)), options_(options), windows_(windows), name_(name), start_(start) {}

  bool next_piece() override {
    if (windows_.length == 0) {
      if (started_) {
        return false;
      }
      started_ = true;
      buffer_.assign(kept_.samples.begin(), kept_.samples.end());
      before_ = kept_.units - static_cast<int64_t>(kept_.samples.size());
      begin_piece(0, kEndless);
      return fill(1);
    }
    const int64_t next = started_ ? begin_ + windows_.hop : 0;
    started_ = true;
    // A window must bring samples that the one before did not hold.
    if (next > 0 && !fill(end_ - first_ + 1)) {
      return false;
    }
    drop_before(next);
    begin_piece(next, next + windows_.length);
    return fill(1);
  }

  std::optional<StepRun> read(int64_t steps) override {
    const int64_t wanted = steps >= kEndless / options_.patch ? kEndless : steps * options_.patch;
    const int64_t left = end_ == kEndless ? wanted : std::min(wanted, end_ - at_);
    fill(at_ - first_ + left);
    int64_t have = std::min(left, first_ + static_cast<int64_t>(buffer_.size()) - at_);
    if (have <= 0) {
      return std::nullopt;
    }
    // A stream that may go on gives its last step apart where it is not full: it will be read again with what follows.
    const bool filled = keeps_ && have < options_.patch;
    if (keeps_ && !filled) {
      have = have / options_.patch * options_.patch;
    }
    const auto from = buffer_.begin() + (at_ - first_);
    const std::vector<float> samples(from, from + have);
    at_ += have;
    piece_.end = seconds_text(at_);
    if (windows_.length == 0) {
      drop_before(at_);
    }
    StepRun run = steps_of(samples);
    run.filled = filled;
    if (filled) {
      rest_ = samples;
    }
    return run;
  }

  const Piece& piece() const override { return piece_; }
  void keep(const StreamPlace& place) override {
    keeps_ = true;
    kept_ = place;
  }
  StreamPlace place() const override {
    StreamPlace place;
    place.units = before_ + at_;
    place.samples = rest_;
    return place;
  }

 private:
  std::string seconds_text(int64_t sample) const {
    return format_fixed(start_ + static_cast<double>(before_ + sample) / static_cast<double>(options_.sample_rate), 3);
  }

  void begin_piece(int64_t begin, int64_t end) {
    begin_ = at_ = begin;
    end_ = end;
    piece_ = {name_, seconds_text(begin), ""};
  }

  /// Reads until the buffer holds `count` samples; false where the source has fewer.
  bool fill(int64_t count) {
    while (!ended_ && static_cast<int64_t>(buffer_.size()) < count) {
      std::vector<float> part(static_cast<size_t>(std::min<int64_t>(65536, count - buffer_.size())));
      const int64_t got = source_->read(part);
      ended_ = got == 0;
      buffer_.insert(buffer_.end(), part.begin(), part.begin() + got);
    }
    return static_cast<int64_t>(buffer_.size()) >= count;
  }

  void drop_before(int64_t sample) {
    const int64_t count = std::clamp<int64_t>(sample - first_, 0, static_cast<int64_t>(buffer_.size()));
    buffer_.erase(buffer_.begin(), buffer_.begin() + count);
    first_ += count;
    while (first_ < sample && fill(1)) {  // a hop beyond the window
      const int64_t skip = std::min<int64_t>(sample - first_, static_cast<int64_t>(buffer_.size()));
      buffer_.erase(buffer_.begin(), buffer_.begin() + skip);
      first_ += skip;
    }
  }

  StepRun steps_of(const std::vector<float>& samples) const {
    data::Example example = audio::audio_example(source_->name(), samples, options_);
    StepRun run;
    run.length = example.length();
    run.channels = example.channels;
    run.tokens = std::move(example.tokens);
    run.frames = std::move(example.frames);
    return run;
  }

  std::unique_ptr<audio::SampleSource> source_;
  audio::AudioOptions options_;
  Windows windows_;
  std::string name_;
  double start_;
  Piece piece_;
  std::deque<float> buffer_;
  int64_t first_ = 0;  ///< sample at the buffer's front
  int64_t begin_ = 0, at_ = 0, end_ = 0;
  bool keeps_ = false;
  StreamPlace kept_;         ///< what the stream goes on from
  std::vector<float> rest_;  ///< samples of its last, unfinished step
  int64_t before_ = 0;       ///< samples of the stream before those of this input and kept_
  bool started_ = false, ended_ = false;
};

/// The recordings of a manifest, one after the other.
class AudioTableStream : public InputStream {
 public:
  AudioTableStream(std::vector<audio::AudioItem> items, const audio::AudioOptions& options, const Windows& windows)
      : items_(std::move(items)), options_(options), windows_(windows) {}

  bool next_piece() override {
    while (true) {
      if (stream_ != nullptr && stream_->next_piece()) {
        return true;
      }
      stream_ = nullptr;
      if (next_ == items_.size()) {
        return false;
      }
      const audio::AudioItem& item = items_[next_++];
      try {
        stream_ =
            std::make_unique<AudioStream>(audio::open_audio(item.path, options_.sample_rate, item.start, item.end),
                                          options_, windows_, item.name, item.start.value_or(0));
      } catch (const Error& problem) {
        fail(problem.what(), " (", item.origin, ")");
      }
    }
  }
  std::optional<StepRun> read(int64_t steps) override { return stream_->read(steps); }
  const Piece& piece() const override { return stream_->piece(); }
  bool survives_errors() const override { return true; }

 private:
  std::vector<audio::AudioItem> items_;
  audio::AudioOptions options_;
  Windows windows_;
  std::unique_ptr<AudioStream> stream_;
  size_t next_ = 0;
};

}  // namespace

int64_t audio_rate(const std::string& file, const RawFormat& raw) {
  if (file == "-") {
    return raw.rate;
  }
  require(!std::filesystem::exists(file) || std::filesystem::is_regular_file(file), file,
          " is no regular file; where a state is saved or resumed, give a file, or raw samples on standard input");
  return audio::AudioReader(file).rate();
}

std::unique_ptr<InputStream> open_audio_stream(const RunConfig& run, const std::string& file, const Windows& windows,
                                               const RawFormat& raw) {
  const audio::AudioOptions options = audio_options(run);
  if (is_table(file)) {
    return std::make_unique<AudioTableStream>(open_recordings(run, file), options, windows);
  }
  if (file == "-" && !raw.format.empty()) {
    require(raw.rate > 0, "--raw-format ", raw.format, " needs --raw-rate in Hz");
    auto source =
        std::make_unique<audio::RawReader>(stdin, "standard input", audio::parse_raw_format(raw.format), raw.rate);
    return std::make_unique<AudioStream>(
        std::make_unique<audio::ResampledSource>(std::move(source), options.sample_rate), options, windows,
        "standard input");
  }
  require(file != "-", "standard input carries no header: say --raw-format s16le or f32le and --raw-rate HZ");
  return std::make_unique<AudioStream>(audio::open_audio(file, options.sample_rate), options, windows, file);
}

}  // namespace blockstate::apps
