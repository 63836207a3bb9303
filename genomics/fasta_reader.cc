// SPDX-License-Identifier: Apache-2.0
#include "genomics/fasta_reader.h"

#include <algorithm>

#include "core/base/check.h"

namespace blockstate::genomics {
namespace {

constexpr std::string_view kBlanks = " \t\r\v\f";

void strip_end(std::string& line) {
  const size_t last = line.find_last_not_of(kBlanks);
  line.resize(last == std::string::npos ? 0 : last + 1);
}

bool is_graph(char c) { return c > 0x20 && c < 0x7f; }

/// The part of a header after its marker and the blanks behind it.
std::string_view header_text(std::string_view header) {
  header.remove_prefix(std::min<size_t>(1, header.size()));
  const size_t first = header.find_first_not_of(kBlanks);
  return first == std::string_view::npos ? std::string_view{} : header.substr(first);
}

}  // namespace

std::string_view record_name(std::string_view header) {
  const std::string_view text = header_text(header);
  return text.substr(0, text.find_first_of(kBlanks));
}

FastaReader::FastaReader(const std::string& file, bool track_blocks) : file_(file), lines_(file, track_blocks) {
  require_sequence_text(file);
}

void FastaReader::find_first_header() {
  while (lines_.next(line_)) {
    strip_end(line_);
    if (line_.empty()) {
      continue;
    }
    require(line_[0] == '>' || line_[0] == '@', file_, ", line ", lines_.number(),
            ": wanted a header line that starts with '>' (FASTA) or '@' (FASTQ), found ", shown_character(line_[0]));
    marker_ = line_[0];
    header_ = line_;
    header_line_ = lines_.number();
    has_header_ = true;
    return;
  }
  fail(file_, ": wanted at least one FASTA or FASTQ record, found only blank lines");
}

bool FastaReader::next(SequenceRecord& record) {
  if (!next_header(record)) {
    return false;
  }
  read_bases(record.bases, std::string::npos);
  return true;
}

bool FastaReader::next_header(SequenceRecord& record) {
  if (marker_ == 0) {
    find_first_header();
  }
  for (std::string passed; in_record_; passed.clear()) {
    is_fastq() ? read_fastq_bases(passed) : read_fasta_bases(passed, 1);
  }
  if (!has_header_) {
    return false;
  }
  const std::string_view text = header_text(header_);
  name_ = record.name = record_name(header_);
  const size_t rest = text.find_first_not_of(kBlanks, record.name.size());
  record.comment = rest == std::string_view::npos ? std::string_view{} : text.substr(rest);
  record.bases.clear();
  name_line_ = record.line = header_line_;
  layout_ = {};
  layout_.offset = lines_.offset();
  short_line_seen_ = false;
  has_header_ = false;
  in_record_ = true;
  has_bases_ = false;
  return true;
}

bool FastaReader::read_bases(std::string& bases, size_t wanted) {
  const size_t before = bases.size();
  if (in_record_) {
    is_fastq() ? read_fastq_bases(bases) : read_fasta_bases(bases, wanted);
  }
  has_bases_ = has_bases_ || bases.size() > before;
  require(has_bases_ || in_record_, file_, ": record ", shown_text(name_), " (line ", name_line_, ") has no bases");
  return in_record_;
}

void FastaReader::read_fasta_bases(std::string& bases, size_t wanted) {
  while (bases.size() < wanted) {
    const int64_t before = lines_.offset();
    in_record_ = lines_.next(line_);
    if (!in_record_) {
      return;
    }
    if (!line_.empty() && line_[0] == '>') {
      strip_end(line_);
      header_.swap(line_);
      header_line_ = lines_.number();
      has_header_ = true;
      in_record_ = false;
      return;
    }
    const size_t raw = line_.size() - (!line_.empty() && line_.back() == '\r');
    strip_end(line_);
    const bool clean = raw == line_.size() && std::all_of(line_.begin(), line_.end(), is_graph);
    track_layout(line_.size(), static_cast<size_t>(lines_.offset() - before), clean);
    bases += line_;
  }
}

void FastaReader::track_layout(size_t bases, size_t bytes, bool clean) {
  const auto line_bases = static_cast<int64_t>(bases);
  const auto line_bytes = static_cast<int64_t>(bytes);
  if (layout_.line_bases == 0) {
    // A blank line before the first base moves the bases away from `offset`.
    layout_.regular = layout_.regular && line_bases > 0;
    layout_.line_bases = line_bases;
    layout_.line_bytes = line_bytes;
  } else if (line_bases > 0) {
    // The last line may be shorter, and the file's very last one has no line end.
    const bool same_line_end = line_bytes - line_bases == layout_.line_bytes - layout_.line_bases;
    layout_.regular = layout_.regular && !short_line_seen_ && line_bases <= layout_.line_bases;
    short_line_seen_ = line_bases < layout_.line_bases || !same_line_end;
  } else {
    short_line_seen_ = true;
  }
  layout_.regular = layout_.regular && clean;
}

void FastaReader::read_fastq_bases(std::string& bases) {
  in_record_ = false;
  const size_t first = bases.size();
  bool plus = false;
  while (!plus && lines_.next(line_)) {
    strip_end(line_);
    plus = !line_.empty() && line_[0] == '+';
    bases += plus ? std::string_view{} : std::string_view(line_);
  }
  require(plus, file_, ": record ", shown_text(name_), " (line ", name_line_,
          "): wanted a line that starts with '+' after the bases, found the end of the file");
  const size_t count = bases.size() - first;
  size_t qualities = 0;
  bool more = lines_.next(line_);
  while (more && qualities < count) {
    strip_end(line_);
    qualities += line_.size();
    more = lines_.next(line_);
  }
  require(qualities == count, file_, ": record ", shown_text(name_), " (line ", name_line_, "): wanted ", count,
          " qualities, one a base, found ", qualities);
  for (; more; more = lines_.next(line_)) {
    strip_end(line_);
    if (line_.empty()) {
      continue;
    }
    require(line_[0] == '@', file_, ", line ", lines_.number(),
            ": wanted a FASTQ header line that starts with '@' after record ", shown_text(name_), ", found ",
            shown_character(line_[0]));
    header_ = line_;
    header_line_ = lines_.number();
    has_header_ = true;
    return;
  }
}

}  // namespace blockstate::genomics
