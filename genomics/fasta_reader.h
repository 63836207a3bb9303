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
/// input. Memory: one record. Characters are not checked here: that they are bases is the tokenizer's to say.
class FastaReader {
 public:
  /// Errors name the file: none there, directory, empty, a known other format (BAM, VCF, ...).
  explicit FastaReader(const std::string& file, bool track_blocks = false);

  /// Reads the next record; false at the end. Errors name file, record and line: no header line, a record without
  /// bases (the reader stays usable and goes on with the next record), FASTQ qualities that are not as many
  /// as the bases, data cut short.
  bool next(SequenceRecord& record);
  bool is_fastq() const { return marker_ == '@'; }
  /// Of the record read last; FASTA only.
  const RecordLayout& layout() const { return layout_; }
  const BgzfLines& lines() const { return lines_; }

 private:
  void find_first_header();
  void read_fasta_bases(SequenceRecord& record);
  void read_fastq_bases(SequenceRecord& record);
  void track_layout(size_t bases, size_t bytes, bool clean);

  std::string file_;
  BgzfLines lines_;
  char marker_ = 0;  ///< '>' or '@'; 0 before the first record
  bool has_header_ = false;
  std::string header_;  ///< of the record that comes next
  int64_t header_line_ = 0;
  std::string line_;
  RecordLayout layout_;
  bool short_line_seen_ = false;
};

}  // namespace blockstate::genomics
