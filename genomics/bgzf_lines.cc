// SPDX-License-Identifier: Apache-2.0
#include "genomics/bgzf_lines.h"

#include <htslib/bgzf.h>

#include <cstring>

#include "core/base/check.h"

namespace blockstate::genomics {

BgzfLines::BgzfLines(const std::string& file, bool track_blocks)
    : file_(file), handle_(open_bgzf(file)), packing_(genomics::packing(handle_)), buffer_(size_t{1} << 16) {
  if (packing_ != Packing::kBgzf) {
    return;
  }
  // 0: the file can be searched and its last block is not the empty one that bgzip writes last.
  end_mark_missing_ = bgzf_check_EOF(handle_.get()) == 0;
  require(!track_blocks || bgzf_index_build_init(handle_.get()) == 0, file, ": no memory for its block index");
}

bool BgzfLines::fill() {
  const ssize_t got = bgzf_read(handle_.get(), buffer_.data(), buffer_.size());
  require(got >= 0, file_, ": its compressed data are damaged or cut short after line ", number_);
  require(got > 0 || !end_mark_missing_, file_, ": cut short after line ", number_,
          ": the end mark of bgzip is missing");
  at_ = 0;
  filled_ = static_cast<size_t>(got);
  return got > 0;
}

bool BgzfLines::next(std::string& line) {
  line.clear();
  bool any = false;
  while (at_ < filled_ || fill()) {
    any = true;
    const char* begin = buffer_.data() + at_;
    const auto* end = static_cast<const char*>(std::memchr(begin, '\n', filled_ - at_));
    const size_t bytes = end == nullptr ? filled_ - at_ : static_cast<size_t>(end - begin);
    line.append(begin, bytes);
    at_ += bytes + (end != nullptr);
    offset_ += static_cast<int64_t>(bytes + (end != nullptr));
    if (end != nullptr) {
      break;
    }
  }
  number_ += any;
  return any;
}

void BgzfLines::write_block_index(const std::string& file) const {
  require(bgzf_index_dump(handle_.get(), file.c_str(), nullptr) == 0, file, ": cannot be written");
}

}  // namespace blockstate::genomics
