// SPDX-License-Identifier: Apache-2.0
#include "genomics/hts_handles.h"

#include <htslib/bgzf.h>
#include <htslib/faidx.h>
#include <htslib/hfile.h>
#include <htslib/hts.h>
#include <htslib/hts_log.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <system_error>

#include "core/base/check.h"

namespace blockstate::genomics {
namespace {

void silence_htslib() {
  static std::once_flag once;
  std::call_once(once, [] { hts_set_log_level(HTS_LOG_OFF); });
}

void require_readable(const std::string& file) {
  namespace fs = std::filesystem;
  std::error_code problem;
  const fs::file_status status = fs::status(file, problem);
  require(status.type() != fs::file_type::not_found, file, ": no such file");
  require(!problem, file, ": cannot be read (", problem.message(), ")");
  require(status.type() != fs::file_type::directory, file, ": wanted a FASTA or FASTQ file, found a directory");
  if (status.type() == fs::file_type::regular) {
    require(fs::file_size(file, problem) > 0 || problem, file, ": wanted a FASTA or FASTQ file, found an empty file");
  }
}

bool detect(const std::string& file, htsFormat& format) {
  hFILE* stream = hopen(file.c_str(), "r");
  if (stream == nullptr) {
    return false;
  }
  const bool known = hts_detect_format2(stream, file.c_str(), &format) == 0;
  hclose_abruptly(stream);
  return known;
}

std::string words(const htsFormat& format) {
  const HtsText text(hts_format_description(&format));
  return text ? text.get() : "unknown data";
}

}  // namespace

void BgzfClose::operator()(BGZF* handle) const {
  // Handles here only read: closing one has nothing to lose.
  [[maybe_unused]] const int ignored = bgzf_close(handle);
}
void FaidxDestroy::operator()(faidx_t* handle) const { fai_destroy(handle); }
void HtsFree::operator()(char* text) const { std::free(text); }

BgzfPtr open_bgzf(const std::string& file) {
  silence_htslib();
  if (file != "-") {
    require_readable(file);
  }
  errno = 0;
  BgzfPtr handle(bgzf_open(file.c_str(), "r"));
  require(handle != nullptr, file, ": cannot be opened (", errno != 0 ? std::strerror(errno) : "damaged header", ")");
  return handle;
}

Packing packing(const BgzfPtr& handle) {
  switch (bgzf_compression(handle.get())) {
    case 0:
      return Packing::kPlain;
    case 1:
      return Packing::kGzip;
    default:
      return Packing::kBgzf;
  }
}

std::string describe_format(const std::string& file) {
  htsFormat format{};
  return detect(file, format) ? words(format) : "unknown data";
}

void require_sequence_text(const std::string& file) {
  htsFormat format{};
  if (file == "-" || !detect(file, format)) {
    return;
  }
  const bool packed_otherwise =
      format.compression != no_compression && format.compression != gzip && format.compression != bgzf;
  const bool other_format = format.format != unknown_format && format.format != text_format &&
                            format.format != fasta_format && format.format != fastq_format &&
                            format.format != empty_format;
  require(!packed_otherwise && !other_format, file, ": wanted FASTA or FASTQ (plain, gzip or bgzip), found ",
          words(format));
}

std::string shown_character(char c) {
  const auto byte = static_cast<unsigned char>(c);
  if (byte > 0x20 && byte < 0x7f) {
    return {'\'', c, '\''};
  }
  if (c == ' ') {
    return "a blank";
  }
  char text[16];
  std::snprintf(text, sizeof text, "byte 0x%02x", static_cast<unsigned>(byte));
  return text;
}

std::string shown_text(std::string_view text) {
  constexpr size_t kLongest = 60;
  std::string out = "'";
  for (const char c : text.substr(0, kLongest)) {
    out += c >= 0x20 && c < 0x7f ? c : '?';
  }
  return out + (text.size() > kLongest ? "...'" : "'");
}

}  // namespace blockstate::genomics
