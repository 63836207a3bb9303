// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "genomics/bgzf_lines.h"

namespace blockstate::genomics {

/// One record of a FASTA or FASTQ file.
struct SequenceRecord {
  std::string name;     ///< header up to its first blank; empty for a bare '>'
  std::string comment;  ///< the rest of the header
  std::string bases;    ///< letters as they stand in the file, line ends and blanks at line ends removed
  int64_t line = 0;     ///< line of the header, from 1
};

/// How the bases of a FASTA record lie in the unpacked file: what a .fai line says.
struct RecordLayout {
  int64_t offset = 0;      ///< byte of the first base
  int64_t line_bases = 0;  ///< bases of each line but the last
  int64_t line_bytes = 0;  ///< with the line end
  bool regular = true;     ///< all lines but the last have these lengths, and nothing but bases and line ends
};

/// Name of the record whose header line is `header` (with its '>' or '@').
std::string_view record_name(std::string_view header);

/// Records of a FASTA or FASTQ file in order: plain, gzip or bgzip; LF or CRLF; wrapped or on one line; "-" is standard
/// input. Memory: one record, or with read_bases what is asked for and a line. Characters are not checked here: that
/// they are bases is the tokenizer's to say.
class FastaReader {
 public:
  /// Errors name the file: none there, directory, empty, a known other format (BAM, VCF, ...).
  explicit FastaReader(const std::string& file, bool track_blocks = false);

  /// Reads the next record; false at the end. Errors name file, record and line: no header line, a record without
  /// bases (the reader stays usable and goes on with the next record), FASTQ qualities that are not as many
  /// as the bases, data cut short.
  bool next(SequenceRecord& record);
  /// The same in pieces, for records that are not to be held whole. Goes to the next record, past what is left of the
  /// one before, and leaves its bases to be read; false at the end.
  bool next_header(SequenceRecord& record);
  /// Appends to `bases` until it holds `wanted` or the record ends; by whole lines, so it may come to hold more.
  /// Returns whether the record goes on. A FASTQ record comes whole. Errors as of next(), once the record's end is
  /// reached.
  bool read_bases(std::string& bases, size_t wanted);
  bool is_fastq() const { return marker_ == '@'; }
  /// Of the record read last; FASTA only.
  const RecordLayout& layout() const { return layout_; }
  const BgzfLines& lines() const { return lines_; }

 private:
  void find_first_header();
  void read_fasta_bases(std::string& bases, size_t wanted);
  void read_fastq_bases(std::string& bases);
  void track_layout(size_t bases, size_t bytes, bool clean);

  std::string file_;
  BgzfLines lines_;
  char marker_ = 0;  ///< '>' or '@'; 0 before the first record
  bool has_header_ = false;
  std::string header_;  ///< of the record that comes next
  int64_t header_line_ = 0;
  std::string line_;
  std::string name_;  ///< of the record being read, and the line of its header
  int64_t name_line_ = 0;
  bool in_record_ = false;  ///< it has bases left to read
  bool has_bases_ = false;  ///< it had some
  RecordLayout layout_;
  bool short_line_seen_ = false;
};

}  // namespace blockstate::genomics
