// SPDX-License-Identifier: Apache-2.0
#include "genomics/fasta_index.h"

#include <htslib/faidx.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "core/base/check.h"

namespace blockstate::genomics {
namespace {

namespace fs = std::filesystem;

/// A fresh folder inside `parent`, removed with all in it; empty path if it cannot be made.
class ScratchFolder {
 public:
  explicit ScratchFolder(const fs::path& parent) {
    std::string pattern = (parent / ".blockstate_index_XXXXXX").string();
    if (mkdtemp(pattern.data()) != nullptr) {
      path_ = pattern;
    }
  }
  ~ScratchFolder() {
    std::error_code ignored;
    if (!path_.empty()) {
      fs::remove_all(path_, ignored);
    }
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

void warn(const FastaIndexOptions& options, const std::string& text) {
  if (options.warn) {
    options.warn(text);
  }
}

}  // namespace

FastaIndex::FastaIndex(const std::string& file, const FastaIndexOptions& options) : file_(file) {
  // Standard input can be read once, from its start, like gzip.
  packing_ = file == "-" ? Packing::kGzip : packing(open_bgzf(file));
  require_sequence_text(file);
  if (packing_ == Packing::kGzip || !use_existing(options)) {
    build(options);
  }
  for (int64_t i = 0; i < size(); ++i) {
    by_name_[name(i)].push_back(i);
  }
}

bool FastaIndex::open_index(const std::string& index, const std::string& block_index) {
  faidx_.reset(fai_load3(file_.c_str(), index.c_str(), packing_ == Packing::kBgzf ? block_index.c_str() : nullptr, 0));
  return faidx_ != nullptr;
}

bool FastaIndex::use_existing(const FastaIndexOptions& options) {
  const std::string index = file_ + ".fai";
  const std::string block_index = file_ + ".gzi";
  std::error_code ignored;
  index_lies_beside_ = fs::exists(index, ignored) || fs::exists(block_index, ignored);
  if (!fs::exists(index, ignored) || (packing_ == Packing::kBgzf && !fs::exists(block_index, ignored))) {
    return false;
  }
  std::string reason;
  try {
    entries_ = read_fai(index);
    reason = mismatch(file_, packing_, index, block_index, entries_);
    reason = reason.empty() ? reason : index + " " + reason;
  } catch (const Error& error) {
    reason = error.what();
  }
  if (reason.empty() && !open_index(index, block_index)) {
    reason = index + " cannot be read";
  }
  if (!reason.empty()) {
    entries_.clear();
    warn(options, reason + "; a new index is made for this run (`samtools faidx` would renew the file)");
    return false;
  }
  return true;
}

bool FastaIndex::scan(FastaReader& reader, bool keep) {
  entries_.clear();
  bases_.clear();
  by_name_.clear();
  bool describable = true;
  SequenceRecord record;
  while (reader.next(record)) {
    entries_.push_back({record.name, static_cast<int64_t>(record.bases.size()), reader.layout()});
    describable = describable && !reader.is_fastq() && reader.layout().regular;
    describable = by_name_.emplace(record.name, std::vector<int64_t>{}).second && describable;
    if (keep) {
      bases_.push_back(record.bases);
    }
  }
  by_name_.clear();
  return describable;
}

void FastaIndex::build(const FastaIndexOptions& options) {
  const bool keep = packing_ == Packing::kGzip;
  {
    FastaReader reader(file_, packing_ == Packing::kBgzf);
    const bool describable = scan(reader, keep);
    if (keep) {
      return;
    }
    if (describable) {
      const fs::path path(file_);
      const std::string folder = path.has_parent_path() ? path.parent_path().string() : ".";
      if (options.write_index && !index_lies_beside_ && save_and_open(reader, folder, file_)) {
        return;
      }
      if (save_for_this_process(reader)) {
        return;
      }
    } else if (!reader.is_fastq()) {
      warn(options, file_ + ": lines of uneven length or several records of one name, so it is held in memory whole");
    }
  }
  FastaReader reader(file_);
  scan(reader, true);
}

bool FastaIndex::save_and_open(const FastaReader& reader, const std::string& folder, const std::string& stem) {
  const ScratchFolder scratch(folder);
  if (scratch.path().empty()) {
    return false;
  }
  const std::string index = (scratch.path() / "fai").string();
  const std::string block_index = (scratch.path() / "gzi").string();
  try {
    write_fai(index, entries_);
    if (packing_ == Packing::kBgzf) {
      reader.lines().write_block_index(block_index);
    }
  } catch (const Error&) {
    return false;
  }
  if (!open_index(index, block_index)) {
    return false;
  }
  // Whole or not at all, whoever else makes the same index at the same time; if it fails, the next run tries again.
  std::error_code ignored;
  if (!stem.empty()) {
    if (packing_ == Packing::kBgzf) {
      fs::rename(block_index, stem + ".gzi", ignored);
    }
    fs::rename(index, stem + ".fai", ignored);
  }
  return true;
}

bool FastaIndex::save_for_this_process(const FastaReader& reader) {
  // htslib reads both index files whole when it opens them: they need not outlive the opening.
  std::error_code problem;
  const fs::path folder = fs::temp_directory_path(problem);
  return !problem && save_and_open(reader, folder.string(), "");
}

int64_t FastaIndex::find(std::string_view wanted) const {
  const auto found = by_name_.find(std::string(wanted));
  if (found == by_name_.end()) {
    fail(why_missing(wanted));
  }
  require(found->second.size() == 1, file_, ": wanted one record ", shown_text(wanted), ", found ",
          found->second.size(), " of that name");
  return found->second.front();
}

std::string FastaIndex::why_missing(std::string_view wanted) const {
  const bool with_prefix = wanted.substr(0, 3) == "chr";
  const std::string near = with_prefix ? std::string(wanted.substr(3)) : "chr" + std::string(wanted);
  if (has(near)) {
    return join(file_, ": no record ", shown_text(wanted), "; did you mean ", shown_text(near), "?");
  }
  constexpr int64_t kShown = 5;
  std::string names;
  for (int64_t i = 0; i < std::min(size(), kShown); ++i) {
    names += join(i == 0 ? "" : ", ", shown_text(name(i)));
  }
  return join(file_, ": no record ", shown_text(wanted), "; it has ", names,
              size() > kShown ? join(" and ", size() - kShown, " more") : "");
}

std::string FastaIndex::fetch(int64_t record, int64_t begin, int64_t end) const {
  require(record >= 0 && record < size(), file_, ": wanted record number ", record, ", found ", size(), " records");
  require(begin >= 0 && begin < end && end <= length(record), file_, ": region ", name(record), ":", begin + 1, "-",
          end, " does not lie within record ", shown_text(name(record)), ", which has ", length(record), " bases");
  if (in_memory()) {
    return bases_[static_cast<size_t>(record)].substr(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  }
  hts_pos_t got = 0;
  HtsText bases;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    bases.reset(faidx_fetch_seq64(faidx_.get(), name(record).c_str(), begin, end - 1, &got));
  }
  require(bases != nullptr && got == end - begin, file_, ": region ", name(record), ":", begin + 1, "-", end,
          " cannot be read: the file is damaged, or its index (.fai, .gzi) is that of another file");
  return {bases.get(), static_cast<size_t>(got)};
}

}  // namespace blockstate::genomics
