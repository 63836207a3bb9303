// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "genomics/fai_file.h"

namespace blockstate::genomics {

/// Takes a sentence that the user should read but that stops nothing.
using WarningSink = std::function<void(const std::string&)>;

struct FastaIndexOptions {
  WarningSink warn;         ///< none: warnings are dropped
  bool write_index = true;  ///< where no index lies beside the file, leave one there for the next time
};

/// Random access to the records of a FASTA (or FASTQ) file, from any thread.
///
/// Plain and bgzip files are read through htslib's faidx with the indexes that samtools writes (FILE.fai, and FILE.gzi
/// for bgzip). Where there are none they are made, beside the file if its folder can be written, else for this process
/// only. An index that is older than the file or does not fit it is left alone, with a warning, and made anew for this
/// process only. Files that such an index cannot describe are held in memory whole: plain gzip, FASTQ, records with
/// lines of uneven length, several records of one name.
///
/// One htslib handle and one lock serve all threads: a fetch costs a copy (bgzip: the unpacking of its blocks).
class FastaIndex {
 public:
  /// Errors: those of FastaReader.
  explicit FastaIndex(const std::string& file, const FastaIndexOptions& options = {});

  const std::string& file() const { return file_; }
  int64_t size() const { return static_cast<int64_t>(entries_.size()); }
  const std::string& name(int64_t record) const { return entries_[static_cast<size_t>(record)].name; }
  /// Bases of a record.
  int64_t length(int64_t record) const { return entries_[static_cast<size_t>(record)].length; }
  bool has(std::string_view name) const { return by_name_.count(std::string(name)) > 0; }
  /// The record of that name. Error if there is none or more than one.
  int64_t find(std::string_view name) const;
  /// For messages: that there is no record of that name, and which ones there are (a near one, or the first ones).
  std::string why_missing(std::string_view name) const;
  /// Bases [begin, end) of a record, 0-based, as they stand in the file. Error names the region and the record's length
  /// unless 0 <= begin < end <= length.
  std::string fetch(int64_t record, int64_t begin, int64_t end) const;
  /// The records are held in memory; else they are read from the file at each fetch.
  bool in_memory() const { return faidx_ == nullptr; }

 private:
  bool open_index(const std::string& index, const std::string& block_index);
  bool use_existing(const FastaIndexOptions& options);
  void build(const FastaIndexOptions& options);
  bool scan(FastaReader& reader, bool keep);
  bool save_and_open(const FastaReader& reader, const std::string& folder, const std::string& stem);
  bool save_for_this_process(const FastaReader& reader);

  std::string file_;
  Packing packing_ = Packing::kPlain;
  bool index_lies_beside_ = false;  ///< one that was refused: not to be overwritten
  std::vector<FaiEntry> entries_;
  std::unordered_map<std::string, std::vector<int64_t>> by_name_;
  std::vector<std::string> bases_;  ///< of each record, where they are held in memory
  mutable std::mutex mutex_;        ///< guards faidx_
  FaidxPtr faidx_;
};

}  // namespace blockstate::genomics
