// SPDX-License-Identifier: Apache-2.0
#include "genomics/region.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <system_error>

#include "core/base/check.h"
#include "core/data/line_reader.h"
#include "genomics/hts_handles.h"

namespace blockstate::genomics {
namespace {

bool parse_number(std::string_view text, int64_t& value) {
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  return problem == std::errc() && end == text.data() + text.size();
}

/// A 1-based position with optional thousands separators.
int64_t parse_position(std::string_view text, std::string_view region) {
  std::string digits;
  std::copy_if(text.begin(), text.end(), std::back_inserter(digits), [](char c) { return c != ','; });
  int64_t value = 0;
  require(parse_number(digits, value) && value >= 1, "region ", shown_text(region),
          ": wanted a position from 1 on, found ", shown_text(text));
  return value;
}

void split_fields(std::string_view line, std::vector<std::string_view>& fields) {
  const std::string_view separators = line.find('\t') != std::string_view::npos ? "\t" : " ";
  fields.clear();
  while (true) {
    const size_t at = line.find_first_of(separators);
    std::string_view field = line.substr(0, at);
    while (!field.empty() && (field.back() == ' ' || field.back() == '\r')) {
      field.remove_suffix(1);
    }
    if (separators == "\t" || !field.empty()) {
      fields.push_back(field);
    }
    if (at == std::string_view::npos) {
      return;
    }
    line.remove_prefix(at + 1);
  }
}

bool is_bed_comment(std::string_view line) {
  const auto starts_with_word = [&](std::string_view word) {
    return line.substr(0, word.size()) == word &&
           (line.size() == word.size() || line[word.size()] == ' ' || line[word.size()] == '\t');
  };
  return line.find_first_not_of(" \t\r") == std::string_view::npos || line[0] == '#' || starts_with_word("track") ||
         starts_with_word("browser");
}

Region parse_bed_line(const std::vector<std::string_view>& fields, const std::string& where, int64_t line) {
  require(fields.size() >= 3, where, ": wanted at least 3 columns (record, begin, end), found ", fields.size());
  Region region;
  region.record = fields[0];
  region.line = line;
  require(!region.record.empty(), where, ": wanted the name of a record in column 1, found nothing");
  require(parse_number(fields[1], region.begin) && region.begin >= 0, where,
          ": wanted a begin from 0 on in column 2, found ", shown_text(fields[1]));
  require(parse_number(fields[2], region.end), where, ": wanted an end in column 3, found ", shown_text(fields[2]));
  require(region.end > region.begin, where, ": wanted an end above the begin ", region.begin, ", found ", region.end);
  region.label = fields.size() > 3 ? fields[3] : std::string_view{};
  region.strand = parse_strand(fields.size() > 5 ? fields[5] : std::string_view{}, where);
  return region;
}

}  // namespace

Strand parse_strand(std::string_view text, const std::string& where) {
  require(text.empty() || text == "+" || text == "." || text == "-", where, ": wanted a strand '+', '-' or '.', found ",
          shown_text(text));
  return text == "-" ? Strand::kReverse : Strand::kForward;
}

Region parse_region(std::string_view text, const std::function<bool(std::string_view)>& is_record) {
  Region region;
  std::string_view interval;
  if (is_record && is_record(text)) {
    region.record = text;
    return region;
  }
  const size_t brace = !text.empty() && text[0] == '{' ? text.find('}') : std::string_view::npos;
  if (brace != std::string_view::npos) {
    region.record = text.substr(1, brace - 1);
    interval = text.substr(brace + 1);
    require(interval.empty() || interval[0] == ':', "region ", shown_text(text), ": wanted ':' after '}', found ",
            shown_text(interval));
  } else {
    const size_t colon = std::min(text.rfind(':'), text.size());
    region.record = text.substr(0, colon);
    interval = text.substr(colon);
  }
  require(!region.record.empty(), "region ", shown_text(text), ": wanted the name of a record, found nothing");
  if (interval.empty()) {
    return region;
  }
  interval.remove_prefix(1);
  const size_t dash = interval.find('-');
  region.begin = parse_position(interval.substr(0, dash), text) - 1;
  if (dash != std::string_view::npos) {
    region.end = parse_position(interval.substr(dash + 1), text);
    require(region.end > region.begin, "region ", shown_text(text), ": wanted an end from ", region.begin + 1,
            " on, found ", region.end);
  }
  return region;
}

std::vector<Region> read_bed(const std::string& file) {
  std::vector<Region> regions;
  data::LineReader lines("regions", file);
  std::string line;
  std::vector<std::string_view> fields;
  while (lines.next(line)) {
    if (!is_bed_comment(line)) {
      split_fields(line, fields);
      regions.push_back(parse_bed_line(fields, join("regions ", file, ", line ", lines.number()), lines.number()));
    }
  }
  require(!regions.empty(), "regions ", file, ": wanted at least one region, found none");
  return regions;
}

std::vector<std::string> region_labels(const std::vector<Region>& regions) {
  std::set<std::string> labels;
  for (const Region& region : regions) {
    if (!region.label.empty()) {
      labels.insert(region.label);
    }
  }
  return {labels.begin(), labels.end()};
}

void Tiling::check() const {
  require(length >= 0, "data.length: wanted 0 (whole) or more bases, found ", length);
  require(hop >= 0, "data.hop: wanted 0 (as much as data.length) or more bases, found ", hop);
  require(min_length >= 1, "data.min_length: wanted at least 1 base, found ", min_length);
  require(length == 0 || min_length <= length, "data.min_length: wanted at most data.length (", length, "), found ",
          min_length);
}

int64_t Tiling::count(int64_t extent) const {
  if (extent < min_length) {
    return 0;
  }
  if (length == 0 || extent <= length) {
    return 1;
  }
  const int64_t step = hop == 0 ? length : hop;
  const int64_t full = (extent - length) / step + 1;
  const int64_t left = extent - full * step;
  const bool end_reached = (full - 1) * step + length >= extent;
  return full + (!end_reached && left >= min_length);
}

void Tiling::window(int64_t i, Strand strand, int64_t& begin, int64_t& end) const {
  const int64_t skip = i * (hop == 0 ? length : hop);
  if (strand == Strand::kForward) {
    begin += skip;
    end = length == 0 ? end : std::min(end, begin + length);
  } else {
    end -= skip;
    begin = length == 0 ? begin : std::max(begin, end - length);
  }
}

}  // namespace blockstate::genomics
