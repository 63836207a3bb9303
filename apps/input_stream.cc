// SPDX-License-Identifier: Apache-2.0
#include "apps/input_stream.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "apps/audio_stream.h"
#include "apps/session.h"
#include "core/base/check.h"
#include "genomics/dna_tokenizer.h"
#include "genomics/fasta_reader.h"

namespace blockstate::apps {
namespace {

constexpr int64_t kEndless = INT64_MAX;

/// Records of a FASTA or FASTQ file, read through a buffer that holds at most one window (or, without windows, one
/// chunk) and a line.
class SequenceStream : public InputStream {
 public:
  SequenceStream(const std::string& file, const genomics::DnaTokenizer& tokenizer, int64_t kmer, const Windows& windows)
      : file_(file), reader_(file), tokenizer_(tokenizer), kmer_(kmer), windows_(windows) {}

  bool next_piece() override {
    // A further window must bring bases that the one before did not hold.
    if (windows_.length > 0 && open_ && fill(end_ - first_ + 1)) {
      begin_piece(begin_ + windows_.hop);
      if (fill(at_ - first_ + 1)) {
        return true;
      }
    }
    open_ = false;
    record_.line = 0;
    if (!reader_.next_header(record_)) {
      return false;
    }
    buffer_ = kept_.bases;
    first_ = 0;
    inserted_ = static_cast<int64_t>(kept_.bases.size());
    before_ = kept_.units - inserted_;
    kept_ = {};
    more_ = true;
    begin_piece(0);
    fill(inserted_ + 1);  // a record without bases is told here
    open_ = true;
    return true;
  }

  std::optional<StepRun> read(int64_t steps) override {
    const int64_t wanted = steps >= kEndless / kmer_ ? kEndless : steps * kmer_;
    const int64_t left = end_ == kEndless ? wanted : std::min(wanted, end_ - at_);
    fill(at_ - first_ + left);
    const int64_t have = std::min(left, held() - (at_ - first_));
    const int64_t count = have / kmer_ * kmer_;
    if (have < left || windows_.length > 0) {
      piece_.end = std::to_string(before_ + at_ + have);
    }
    if (count <= 0) {
      return std::nullopt;
    }
    StepRun run;
    const auto from = static_cast<size_t>(at_ - first_);
    run.tokens = tokenizer_.encode(std::string_view(buffer_).substr(from, static_cast<size_t>(count)),
                                   {join(file_, ": record ", record_.name), at_ - inserted_});
    run.length = static_cast<int64_t>(run.tokens.size());
    at_ += count;
    if (windows_.length == 0) {
      drop_before(at_);
    }
    return run;
  }

  const Piece& piece() const override { return piece_; }
  /// Where not even a header was found, this is no file of sequences.
  bool survives_errors() const override { return record_.line > 0; }
  void keep(const StreamPlace& place) override { kept_ = place; }
  StreamPlace place() const override {
    StreamPlace place;
    place.units = before_ + first_ + held();
    place.bases = buffer_.substr(static_cast<size_t>(at_ - first_));
    return place;
  }

 private:
  int64_t held() const { return static_cast<int64_t>(buffer_.size()); }

  void begin_piece(int64_t begin) {
    drop_before(begin);
    begin_ = at_ = begin;
    end_ = windows_.length > 0 ? begin + windows_.length : kEndless;
    piece_ = {record_.name, std::to_string(before_ + begin_), std::to_string(before_ + begin_)};
  }

  /// Reads until the buffer holds `count` bases; false where the record has fewer.
  bool fill(int64_t count) {
    while (more_ && held() < count) {
      more_ = reader_.read_bases(buffer_, static_cast<size_t>(count));
    }
    return held() >= count;
  }

  void drop_before(int64_t base) {
    while (first_ < base && fill(1)) {
      const int64_t count = std::min(base - first_, held());
      buffer_.erase(0, static_cast<size_t>(count));
      first_ += count;
    }
  }

  std::string file_;
  genomics::FastaReader reader_;
  genomics::DnaTokenizer tokenizer_;
  int64_t kmer_;
  Windows windows_;
  genomics::SequenceRecord record_;
  Piece piece_;
  std::string buffer_;
  int64_t first_ = 0;  ///< base at the buffer's front
  int64_t begin_ = 0, at_ = 0, end_ = 0;
  StreamPlace kept_;
  int64_t before_ = 0;    ///< bases of the stream before those of the record
  int64_t inserted_ = 0;  ///< bases at its front that the stream before had left
  bool open_ = false;
  bool more_ = false;  ///< the record has bases that the buffer has not held yet
};

/// Examples of a data set: sequences of a manifest, or rows of a token array.
class ExampleStream : public InputStream {
 public:
  ExampleStream(std::shared_ptr<data::Dataset> data, int64_t kmer, int64_t vocabulary)
      : data_(std::move(data)), kmer_(kmer), vocabulary_(vocabulary) {}

  bool next_piece() override {
    if (index_ >= data_->size()) {
      return false;
    }
    example_ = data_->get(index_++);
    at_ = 0;
    for (size_t i = 0; i < example_.tokens.size(); ++i) {
      require(example_.tokens[i] < vocabulary_, example_.name, ": the id at position ", i, " is ", example_.tokens[i],
              "; the model knows ids from 0 to ", vocabulary_ - 1);
    }
    piece_ = {example_.name, std::to_string(before_), std::to_string(before_ + example_.length() * kmer_)};
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
  bool survives_errors() const override { return true; }
  void keep(const StreamPlace& place) override { before_ = place.units; }
  StreamPlace place() const override {
    StreamPlace place;
    place.units = before_ + at_;
    return place;
  }

 private:
  std::shared_ptr<data::Dataset> data_;
  int64_t kmer_;
  int64_t vocabulary_;
  int64_t before_ = 0;  ///< ids of the stream before this one
  data::Example example_;
  Piece piece_;
  int64_t index_ = 0;
  int64_t at_ = 0;
};

}  // namespace

void InputStream::keep(const StreamPlace&) { fail("this kind of input cannot be left and gone on with"); }

Windows parse_windows(const std::string& text) {
  Windows windows;
  if (text.empty()) {
    return windows;
  }
  const char* end = text.data() + text.size();
  const auto [slash, problem] = std::from_chars(text.data(), end, windows.length);
  bool good = problem == std::errc() && windows.length > 0;
  windows.hop = windows.length;
  if (good && slash != end) {
    good = *slash == '/';
    const auto [rest, hop_problem] = std::from_chars(slash + 1, end, windows.hop);
    good = good && hop_problem == std::errc() && rest == end && windows.hop > 0;
  }
  require(good, "--windows ", text, ": LENGTH or LENGTH/HOP in samples or bases was wanted, such as 16000/8000");
  return windows;
}

model::ModelInput StepRun::input(const model::Model& model, int64_t offset) const {
  model::ModelInput result;
  if (tokens.empty()) {
    result.frames = Tensor::from({1, length, channels}, frames).to(model.dtype()).to(model.device());
  } else {
    result.tokens = Tensor::from({1, length}, tokens).to(model.device());
  }
  result.sequence = nn::plain_sequence(1, length, offset, model.device());
  return result;
}

std::unique_ptr<InputStream> open_input_stream(const RunConfig& run, const TaskShape& task, const std::string& file,
                                               const Windows& windows, const RawFormat& raw) {
  const bool table = is_table(file);
  const int64_t kmer = run.data.kind == DataKind::kDna && run.data.input == "kmer" ? run.data.kmer : 1;
  if (run.data.kind == DataKind::kAudio) {
    return open_audio_stream(run, file, windows, raw);
  }
  if (run.data.kind == DataKind::kDna && !table) {
    return std::make_unique<SequenceStream>(
        file, genomics::DnaTokenizer(genomics::parse_lower_case(run.data.lower_case), kmer), kmer, windows);
  }
  require(windows.length == 0, "--windows cuts recordings and FASTA records; ", file, " is a list of examples");
  return std::make_unique<ExampleStream>(open_input(run, file), kmer, task.shape.vocabulary);
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
