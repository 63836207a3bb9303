// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct gzFile_s;

namespace blockstate::data {

/// Lines of a text file, plain or gzip (of several members too, so bgzf), in constant memory. Errors name the file as
/// `what` ("manifest", "regions") and its path: no such file, a directory, no permission, cut short inside its gzip
/// stream, binary data (a zero byte in a line).
class LineReader {
 public:
  LineReader(const std::string& what, const std::string& file);
  /// The next line without its LF or CRLF, and without a UTF-8 byte order mark; false at the end of the file.
  bool next(std::string& line);
  /// Number of the line read last, from 1.
  int64_t number() const { return number_; }

 private:
  bool fill();

  std::string file_;  ///< as messages call it
  std::unique_ptr<gzFile_s, int (*)(gzFile_s*)> stream_;
  std::vector<char> buffer_;
  size_t at_ = 0;
  size_t filled_ = 0;
  int64_t number_ = 0;
};

}  // namespace blockstate::data
