// SPDX-License-Identifier: Apache-2.0
// Stretches of a reference, from text, from BED files, and cut into windows. Inside the program every stretch is
// 0-based and half-open, as in BED; only region text ("chr1:101-200") counts from 1 and includes its end.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace blockstate::genomics {

enum class Strand { kForward, kReverse };

/// Reads a strand column: "+", "." or nothing is forward, "-" reverse; else Error that starts with `where`.
Strand parse_strand(std::string_view text, const std::string& where);

struct Region {
  static constexpr int64_t kToTheEnd = -1;

  std::string record;  ///< name of the FASTA record, such as a chromosome
  int64_t begin = 0;
  int64_t end = kToTheEnd;
  Strand strand = Strand::kForward;
  std::string label;  ///< column 4 of BED; empty if there is none
  int64_t line = 0;   ///< line of the BED file, from 1
};

/// Region text as samtools writes it: "chr1", "chr1:101" (to the end), "chr1:101-200", "chr1:1,001-2,000",
/// "{name:with:colons}:101-200". A text that `is_record` knows as a whole names that record, colons and all. Error
/// names the text: no name, a number missing, zero or not a number, an end before the start.
Region parse_region(std::string_view text, const std::function<bool(std::string_view)>& is_record = {});

/// Reads a BED file, plain or gzip: record, begin, end, then optionally label (column 4), score, strand (column 6), by
/// tabs (or blanks, in lines without a tab). Blank lines and lines starting with "track", "browser" or '#' are skipped.
/// Errors name file and line: no such file, fewer than 3 columns, a number that is none, end <= begin, a strand other
/// than + - . , and a file without regions.
std::vector<Region> read_bed(const std::string& file);

/// Sorted distinct labels: class index = position.
std::vector<std::string> region_labels(const std::vector<Region>& regions);

/// Windows of a stretch: window i begins at i * hop and has `length` bases, the last one as many as are left. There is
/// no window after the first that reaches the end of the stretch.
struct Tiling {
  int64_t length = 0;      ///< bases; 0: the whole stretch is one window
  int64_t hop = 0;         ///< bases; 0: `length`
  int64_t min_length = 1;  ///< a last window shorter than this is left out

  /// Error unless length >= 0, hop >= 0 and min_length >= 1 (and not above `length`, where that is given).
  void check() const;
  /// Windows of a stretch of `extent` bases.
  int64_t count(int64_t extent) const;
  /// Window i of [begin, end). On the reverse strand windows are counted from `end`, where that strand starts.
  void window(int64_t i, Strand strand, int64_t& begin, int64_t& end) const;
};

}  // namespace blockstate::genomics
