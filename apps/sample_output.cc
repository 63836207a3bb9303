// SPDX-License-Identifier: Apache-2.0
#include "apps/sample_output.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <vector>

#include "audio/quantise.h"
#include "audio/wav_writer.h"
#include "core/base/check.h"
#include "core/data/npy_rows.h"
#include "genomics/dna_tokenizer.h"

namespace blockstate::apps {
namespace {

constexpr size_t kBlock = 4096;  // tokens written at once

using Handle = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

/// One sample being written.
class Track {
 public:
  virtual ~Track() = default;
  virtual void write(const std::vector<int64_t>& tokens) = 0;
  virtual void finish() = 0;

  void add(int64_t token) {
    block_.push_back(token);
    if (block_.size() == kBlock) {
      flush();
    }
  }
  void flush() {
    if (!block_.empty()) {
      write(block_);
      block_.clear();
    }
  }

 private:
  std::vector<int64_t> block_;
};

/// A FASTA record in lines of 60.
class FastaTrack : public Track {
 public:
  FastaTrack(std::FILE* file, const std::string& name, const std::string& header,
             const genomics::DnaTokenizer& tokenizer)
      : file_(file), name_(name), tokenizer_(tokenizer) {
    put(header);
  }
  void write(const std::vector<int64_t>& tokens) override {
    std::string text;
    for (const char letter : tokenizer_.decode(tokens)) {
      text += letter;
      if (++column_ == kLine) {
        text += '\n';
        column_ = 0;
      }
    }
    put(text);
  }
  void finish() override { put(column_ > 0 ? "\n" : ""); }

 private:
  static constexpr int kLine = 60;

  void put(const std::string& text) {
    if (std::fwrite(text.data(), 1, text.size(), file_) != text.size() || std::fflush(file_) != 0) {
      fail(name_, ": cannot write: ", std::strerror(errno));
    }
  }

  std::FILE* file_;
  std::string name_;
  const genomics::DnaTokenizer& tokenizer_;
  int column_ = 0;
};

class WavTrack : public Track {
 public:
  WavTrack(const std::string& file, int64_t rate, int64_t length, bool mulaw)
      : writer_(file, rate, length), mulaw_(mulaw) {}
  void write(const std::vector<int64_t>& tokens) override {
    writer_.write(mulaw_ ? audio::mulaw_decode(tokens) : audio::linear8_decode(tokens));
  }
  void finish() override { writer_.finish(); }

 private:
  audio::WavWriter writer_;
  bool mulaw_;
};

class NpyTrack : public Track {
 public:
  explicit NpyTrack(const std::string& file) : rows_(file, DType::kInt64, 0) {}
  void write(const std::vector<int64_t>& tokens) override {
    rows_.append(tokens.data(), static_cast<int64_t>(tokens.size()));
  }
  void finish() override { rows_.finish(); }

 private:
  data::NpyRows rows_;
};

/// One FASTA file. Of samples made at once the first is written to it, the others wait in temporary files.
class FastaOutput : public SampleOutput {
 public:
  FastaOutput(const SampleFiles& files, const genomics::DnaTokenizer& tokenizer)
      : files_(files), tokenizer_(tokenizer), own_(nullptr, std::fclose) {
    if (files.out != "-") {
      own_.reset(std::fopen(files.out.c_str(), "wb"));
      require(own_ != nullptr, files.out, ": cannot write: ", std::strerror(errno));
    }
  }
  void begin(int64_t first, int64_t rows) override {
    for (int64_t row = 0; row < rows; ++row) {
      if (row > 0) {
        waiting_.emplace_back(std::tmpfile(), std::fclose);
        require(waiting_.back() != nullptr, "a temporary file cannot be made: ", std::strerror(errno),
                "; try --batch 1");
      }
      const std::string header = join(">sample_", first + row + 1, files_.note.empty() ? "" : " ", files_.note, "\n");
      tracks_.push_back(
          std::make_unique<FastaTrack>(row > 0 ? waiting_.back().get() : out(), files_.out, header, tokenizer_));
    }
  }
  void add(int64_t row, int64_t token) override { tracks_[static_cast<size_t>(row)]->add(token); }
  void end() override {
    for (const auto& track : tracks_) {
      track->flush();
      track->finish();
    }
    for (const Handle& part : waiting_) {
      std::rewind(part.get());
      append(part.get());
    }
    tracks_.clear();
    waiting_.clear();
    require(std::fflush(out()) == 0, files_.out, ": cannot write: ", std::strerror(errno));
  }

 private:
  std::FILE* out() const { return own_ != nullptr ? own_.get() : stdout; }
  void append(std::FILE* part) const {
    std::vector<char> bytes(1 << 16);
    while (const size_t got = std::fread(bytes.data(), 1, bytes.size(), part)) {
      require(std::fwrite(bytes.data(), 1, got, out()) == got, files_.out, ": cannot write: ", std::strerror(errno));
    }
  }

  SampleFiles files_;
  genomics::DnaTokenizer tokenizer_;
  Handle own_;
  std::vector<Handle> waiting_;
  std::vector<std::unique_ptr<FastaTrack>> tracks_;
};

/// A file a sample.
class FilesOutput : public SampleOutput {
 public:
  using Open = std::function<std::unique_ptr<Track>(const std::string& file)>;

  FilesOutput(const SampleFiles& files, Open open) : files_(files), open_(std::move(open)) {}
  void begin(int64_t first, int64_t rows) override {
    for (int64_t row = 0; row < rows; ++row) {
      std::filesystem::path file = files_.out;
      if (files_.samples > 1) {
        file.replace_filename(join(file.stem().string(), "-", first + row + 1, file.extension().string()));
      }
      tracks_.push_back(open_(file.string()));
    }
  }
  void add(int64_t row, int64_t token) override { tracks_[static_cast<size_t>(row)]->add(token); }
  void end() override {
    for (const auto& track : tracks_) {
      track->flush();
      track->finish();
    }
    tracks_.clear();
  }

 private:
  SampleFiles files_;
  Open open_;
  std::vector<std::unique_ptr<Track>> tracks_;
};

}  // namespace

int64_t symbols_per_token(const RunConfig& run) {
  return run.data.kind == DataKind::kDna && run.data.input == "kmer" ? run.data.kmer : 1;
}

std::unique_ptr<SampleOutput> open_sample_output(const RunConfig& run, const SampleFiles& files) {
  if (run.data.kind == DataKind::kDna) {
    require(!files.out.ends_with(".wav") && !files.out.ends_with(".npy"), "--out ", files.out,
            ": this model makes DNA; the name of a FASTA file was wanted, or - for standard output");
    return std::make_unique<FastaOutput>(
        files, genomics::DnaTokenizer(genomics::parse_lower_case(run.data.lower_case), symbols_per_token(run)));
  }
  if (run.data.kind == DataKind::kAudio) {
    require(files.out.ends_with(".wav"), "--out ", files.out, ": this model makes sound; a name that ends in .wav was ",
            "wanted");
    return std::make_unique<FilesOutput>(files, [run, files](const std::string& file) {
      return std::make_unique<WavTrack>(file, run.data.sample_rate, files.length, run.data.input == "mulaw");
    });
  }
  require(files.out.ends_with(".npy"), "--out ", files.out, ": this model makes token ids; a name that ends in .npy ",
          "was wanted");
  return std::make_unique<FilesOutput>(files, [](const std::string& file) { return std::make_unique<NpyTrack>(file); });
}

}  // namespace blockstate::apps
