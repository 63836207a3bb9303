// SPDX-License-Identifier: Apache-2.0
#include "apps/input_stream.h"

#include <algorithm>
#include <cstdio>
#include <deque>

#include "apps/format.h"
#include "apps/session.h"
#include "audio/audio_dataset.h"
#include "audio/quantise.h"
#include "audio/raw_reader.h"
#include "audio/resample.h"
#include "audio/waveform.h"
#include "core/base/check.h"
#include "genomics/dna_tokenizer.h"
#include "genomics/fasta_reader.h"

namespace blockstate::apps {
namespace {

constexpr int64_t kEndless = INT64_MAX;

std::string seconds_text(int64_t samples, int64_t rate) {
  return format_fixed(static_cast<double>(samples) / static_cast<double>(rate), 3);
}

/// One recording, read through a buffer that holds at most one window (or, without windows, one chunk).
class AudioStream : public InputStream {
 public:
  AudioStream(std::unique_ptr<audio::SampleSource> source, const audio::AudioOptions& options, const Windows& windows)
      : source_(std::move(source)), options_(options), windows_(windows) {}

  bool next_piece() override {
    if (windows_.length == 0) {
      if (started_) {
        return false;
      }
      started_ = true;
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
    const int64_t have = std::min(left, first_ + static_cast<int64_t>(buffer_.size()) - at_);
    if (have <= 0) {
      return std::nullopt;
    }
    const auto from = buffer_.begin() + (at_ - first_);
    const std::vector<float> samples(from, from + have);
    at_ += have;
    piece_.end = seconds_text(at_, options_.sample_rate);
    if (windows_.length == 0) {
      drop_before(at_);
    }
    return steps_of(samples);
  }

  const Piece& piece() const override { return piece_; }

 private:
  void begin_piece(int64_t begin, int64_t end) {
    begin_ = at_ = begin;
    end_ = end;
    piece_ = {source_->name(), seconds_text(begin, options_.sample_rate), ""};
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
  Piece piece_;
  std::deque<float> buffer_;
  int64_t first_ = 0;  ///< sample at the buffer's front
  int64_t begin_ = 0, at_ = 0, end_ = 0;
  bool started_ = false, ended_ = false;
};

/// Records of a FASTA or FASTQ file, one in memory at a time.
class SequenceStream : public InputStream {
 public:
  SequenceStream(const std::string& file, const genomics::DnaTokenizer& tokenizer, int64_t kmer, const Windows& windows)
      : file_(file), reader_(file), tokenizer_(tokenizer), kmer_(kmer), windows_(windows) {}

  bool next_piece() override {
    const int64_t size = static_cast<int64_t>(record_.bases.size());
    if (windows_.length > 0 && open_ && end_ < size) {
      begin_piece(begin_ + windows_.hop);
      return true;
    }
    open_ = reader_.next(record_);
    if (open_) {
      begin_piece(0);
    }
    return open_;
  }

  std::optional<StepRun> read(int64_t steps) override {
    const int64_t count = std::min(steps * kmer_, end_ - at_) / kmer_ * kmer_;
    if (count <= 0) {
      return std::nullopt;
    }
    StepRun run;
    run.tokens = tokenizer_.encode(std::string_view(record_.bases).substr(static_cast<size_t>(at_), static_cast<size_t>(count)),
                                   {join(file_, ": record ", record_.name), at_});
    run.length = static_cast<int64_t>(run.tokens.size());
    at_ += count;
    return run;
  }

  const Piece& piece() const override { return piece_; }
  bool survives_errors() const override { return true; }

 private:
  void begin_piece(int64_t begin) {
    const int64_t size = static_cast<int64_t>(record_.bases.size());
    begin_ = at_ = begin;
    end_ = windows_.length > 0 ? std::min(size, begin + windows_.length) : size;
    piece_ = {record_.name, std::to_string(begin_), std::to_string(end_)};
  }

  std::string file_;
  genomics::FastaReader reader_;
  genomics::DnaTokenizer tokenizer_;
  int64_t kmer_;
  Windows windows_;
  genomics::SequenceRecord record_;
  Piece piece_;
  int64_t begin_ = 0, at_ = 0, end_ = 0;
  bool open_ = false;
};

/// Examples of a data set: rows of a manifest, or of a token array.
class ExampleStream : public InputStream {
 public:
  ExampleStream(std::shared_ptr<data::Dataset> data) : data_(std::move(data)) {}

  bool next_piece() override {
    if (index_ >= data_->size()) {
      return false;
    }
    example_ = data_->get(index_++);
    at_ = 0;
    piece_ = {example_.name, "0", std::to_string(example_.length())};
    return true;
  }

  std::optional<StepRun> read(int64_t steps) override {
    StepRun run;
    run.length = std::min(steps, example_.length() - at_);
    run.channels = example_.channels;
    if (run.length <= 0) {
      return std::nullopt;
    }
    if (example_.tokens.empty()) {
      const auto from = example_.frames.begin() + at_ * run.channels;
      run.frames.assign(from, from + run.length * run.channels);
    } else {
      run.tokens.assign(example_.tokens.begin() + at_, example_.tokens.begin() + at_ + run.length);
    }
    at_ += run.length;
    return run;
  }

  const Piece& piece() const override { return piece_; }

 private:
  std::shared_ptr<data::Dataset> data_;
  data::Example example_;
  Piece piece_;
  int64_t index_ = 0;
  int64_t at_ = 0;
};

}  // namespace

model::ModelInput StepRun::input(DType dtype, int64_t offset) const {
  model::ModelInput result;
  if (tokens.empty()) {
    result.frames = Tensor::from({1, length, channels}, frames).to(dtype);
  } else {
    result.tokens = Tensor::from({1, length}, tokens);
  }
  result.sequence = nn::plain_sequence(1, length, offset);
  return result;
}

std::unique_ptr<InputStream> open_input_stream(const RunConfig& run, const TaskShape& task, const std::string& file,
                                               const Windows& windows, const RawFormat& raw) {
  const bool table = is_table(file);
  if (run.data.kind == DataKind::kAudio && !table) {
    const audio::AudioOptions options = audio_options(run);
    if (file == "-" && !raw.format.empty()) {
      require(raw.rate > 0, "--raw-format ", raw.format, " needs --raw-rate in Hz");
      auto source = std::make_unique<audio::RawReader>(stdin, "standard input", audio::parse_raw_format(raw.format),
                                                       raw.rate);
      return std::make_unique<AudioStream>(
          std::make_unique<audio::ResampledSource>(std::move(source), options.sample_rate), options, windows);
    }
    require(file != "-", "standard input carries no header: say --raw-format s16le or f32le and --raw-rate HZ");
    return std::make_unique<AudioStream>(audio::open_audio(file, options.sample_rate), options, windows);
  }
  if (run.data.kind == DataKind::kDna && !table) {
    const int64_t kmer = run.data.input == "kmer" ? run.data.kmer : 1;
    return std::make_unique<SequenceStream>(
        file, genomics::DnaTokenizer(genomics::parse_lower_case(run.data.lower_case), kmer), kmer, windows);
  }
  require(windows.length == 0, "--windows cuts recordings and FASTA records; ", file, " is a list of examples");
  return std::make_unique<ExampleStream>(open_input(run, task, file));
}

namespace {

void report(const Error& problem) {
  std::fflush(stdout);
  std::fprintf(stderr, "error: %s\n", problem.what());
}

/// Runs one file's pieces; returns the number of reports.
int run_pieces(InputStream& stream, const std::function<void(InputStream&)>& body) {
  int reports = 0;
  std::string last_problem;
  for (;;) {
    try {
      if (stop_requested() || !stream.next_piece()) {
        return reports;
      }
      body(stream);
      last_problem.clear();
    } catch (const Error& problem) {
      if (problem.what() == last_problem) {
        return reports;  // the same again: the stream cannot get past it
      }
      report(problem);
      ++reports;
      last_problem = problem.what();
      if (!stream.survives_errors()) {
        return reports;
      }
    }
  }
}

}  // namespace

int for_each_piece(const RunConfig& run, const TaskShape& task, const std::vector<std::string>& files,
                   const Windows& windows, const RawFormat& raw, const std::function<void(InputStream&)>& body) {
  int reports = 0;
  for (const std::string& file : files) {
    if (stop_requested()) {
      break;
    }
    try {
      const std::unique_ptr<InputStream> stream = open_input_stream(run, task, file, windows, raw);
      reports += run_pieces(*stream, body);
    } catch (const Error& problem) {
      report(problem);
      ++reports;
    }
  }
  std::fflush(stdout);
  if (reports > 0) {
    std::fprintf(stderr, "%d part%s of the input could not be read\n", reports, reports == 1 ? "" : "s");
  }
  return reports;
}

}  // namespace blockstate::apps
