// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "genomics/hts_handles.h"

namespace blockstate::genomics {

/// Lines of a file, plain, gzip or bgzip, with the place of each in the unpacked text. Memory: one line.
class BgzfLines {
 public:
  /// `track_blocks`: note where bgzip's blocks begin, for write_block_index. Errors: those of open_bgzf.
  explicit BgzfLines(const std::string& file, bool track_blocks = false);

  /// Reads the next line, without its LF (a CR stays); false at the end. Error if the file turns out to be damaged or
  /// cut short, bgzip's end mark included.
  bool next(std::string& line);
  /// Number of the line read last, from 1.
  int64_t number() const { return number_; }
  /// Byte of the unpacked text after the line read last.
  int64_t offset() const { return offset_; }
  Packing packing() const { return packing_; }
  /// Writes bgzip's block index (.gzi) of what was read; the file must have been read to its end. Error if it cannot.
  void write_block_index(const std::string& file) const;

 private:
  bool fill();

  std::string file_;
  BgzfPtr handle_;
  Packing packing_;
  bool end_mark_missing_ = false;
  std::vector<char> buffer_;
  size_t at_ = 0;
  size_t filled_ = 0;
  int64_t number_ = 0;
  int64_t offset_ = 0;
};

}  // namespace blockstate::genomics
