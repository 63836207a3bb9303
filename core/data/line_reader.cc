// SPDX-License-Identifier: Apache-2.0
#include "core/data/line_reader.h"

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "core/base/check.h"

namespace blockstate::data {

LineReader::LineReader(const std::string& what, const std::string& file)
    : file_(what + " " + file), stream_(nullptr, gzclose_r), buffer_(size_t{1} << 16) {
  std::error_code code;
  const auto status = std::filesystem::status(file, code);
  require(std::filesystem::exists(status), file_, ": no such file");
  require(!std::filesystem::is_directory(status), file_, ": wanted a file, found a directory");
  errno = 0;
  stream_.reset(gzopen(file.c_str(), "rb"));
  require(stream_ != nullptr, file_, ": cannot be opened: ", std::strerror(errno));
}

bool LineReader::next(std::string& line) {
  line.clear();
  bool any = false;
  while (true) {
    if (at_ == filled_ && !fill()) {
      break;
    }
    any = true;
    const char* begin = buffer_.data() + at_;
    const char* end = buffer_.data() + filled_;
    const char* newline = std::find(begin, end, '\n');
    line.append(begin, newline);
    at_ = static_cast<size_t>(newline - buffer_.data());
    if (newline != end) {
      ++at_;
      break;
    }
  }
  if (!any) {
    return false;
  }
  ++number_;
  if (line.ends_with('\r')) {
    line.pop_back();
  }
  if (number_ == 1 && line.starts_with("\xEF\xBB\xBF")) {
    line.erase(0, 3);
  }
  require(line.find('\0') == std::string::npos, file_, " line ", number_, ": wanted text, found binary data");
  return true;
}

bool LineReader::fill() {
  const int count = gzread(stream_.get(), buffer_.data(), static_cast<unsigned>(buffer_.size()));
  int error = Z_OK;
  const char* text = gzerror(stream_.get(), &error);
  require(error != Z_BUF_ERROR, file_, ": the file is cut short inside its gzip stream (after line ", number_, ")");
  require(count >= 0 && error == Z_OK, file_, ": cannot be read after line ", number_, ": ",
          error == Z_ERRNO ? std::strerror(errno) : text);
  at_ = 0;
  filled_ = static_cast<size_t>(count);
  return count > 0;
}

}  // namespace blockstate::data
