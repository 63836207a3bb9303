// SPDX-License-Identifier: Apache-2.0
#include "core/data/manifest.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <set>
#include <string_view>
#include <system_error>

#include "core/base/check.h"
#include "core/data/line_reader.h"

namespace blockstate::data {
namespace {

constexpr std::array<const char*, 9> kRoles = {"path",  "sequence", "label", "start", "end",
                                               "split", "record",   "name",  "strand"};
enum Role { kPath, kSequence, kLabel, kStart, kEnd, kSplit, kRecord, kName, kStrand };

/// Text from a stranger's file, fit for a message: short and printable.
std::string shown(std::string_view text) {
  constexpr size_t kLongest = 40;
  std::string out;
  for (const char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    out += byte < 0x20 || byte == 0x7f ? '?' : c;
  }
  return "'" + out + (text.size() > kLongest ? "...'" : "'");
}

std::string listed(const std::vector<std::string>& names) {
  constexpr size_t kMost = 20;
  std::string out;
  for (size_t i = 0; i < std::min(names.size(), kMost); ++i) {
    out += (i == 0 ? "" : ", ") + shown(names[i]);
  }
  return names.size() > kMost ? join(out, " and ", names.size() - kMost, " more") : out;
}

std::string_view trimmed(std::string_view field) {
  const size_t first = field.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) {
    return {};
  }
  return field.substr(first, field.find_last_not_of(" \t\r") - first + 1);
}

/// Fields without the blanks around them; they point into `line`.
void split_fields(std::string_view line, char separator, std::vector<std::string_view>& fields) {
  fields.clear();
  while (true) {
    const size_t at = line.find(separator);
    fields.push_back(trimmed(line.substr(0, at)));
    if (at == std::string_view::npos) {
      return;
    }
    line.remove_prefix(at + 1);
  }
}

/// Where each role's column is; -1 for a role that the file does not have.
class Columns {
 public:
  Columns(const std::string& file, std::vector<std::string> found, const ManifestOptions& options)
      : file_(file), found_(std::move(found)) {
    for (const auto& [role, column] : options.columns) {
      require(
          std::find(kRoles.begin(), kRoles.end(), role) != kRoles.end(), "data.columns: ", shown(role),
          " is no role of a manifest; the roles are path, sequence, label, start, end, split, record, name, strand");
    }
    for (size_t role = 0; role < kRoles.size(); ++role) {
      place(role, options);
    }
    require(has(kPath) || has(kSequence), "manifest ", file_, ": wanted a column 'path' or 'sequence', found ",
            listed(found_), "; ", advice("sequence", options));
    require(has(kLabel) || !options.need_label, "manifest ", file_,
            ": the task needs labels, wanted a column 'label', found ", listed(found_), "; ", advice("label", options));
    require(has(kSplit) || options.split.empty(), "manifest ", file_, ": rows of split ", shown(options.split),
            " were asked for, wanted a column 'split', found ", listed(found_), "; ", advice("split", options));
  }

  bool has(Role role) const { return at_[role] >= 0; }
  size_t count() const { return found_.size(); }
  /// The name that the file gives to a role's column.
  const std::string& title(Role role) const { return found_[static_cast<size_t>(at_[role])]; }
  std::string_view field(Role role, const std::vector<std::string_view>& fields) const {
    return has(role) ? fields[static_cast<size_t>(at_[role])] : std::string_view{};
  }

 private:
  void place(size_t role, const ManifestOptions& options) {
    const auto given = options.columns.find(kRoles[role]);
    const std::string wanted = given == options.columns.end() ? kRoles[role] : given->second;
    const auto at = std::find(found_.begin(), found_.end(), wanted);
    require(at != found_.end() || given == options.columns.end(), "manifest ", file_, ": data.columns names ",
            shown(wanted), " as the column of '", kRoles[role], "', found ", listed(found_));
    at_[role] = at == found_.end() ? -1 : at - found_.begin();
    require(at == found_.end() || std::find(at + 1, found_.end(), wanted) == found_.end(), "manifest ", file_,
            ": column ", shown(wanted), " is there twice, wanted it once");
  }

  std::string advice(const char* role, const ManifestOptions& options) const {
    if (options.header.empty() && found_.size() == 1 && found_[0].find_first_of(",;\t ") != std::string::npos) {
      return "if its fields are not separated as expected, set data.separator";
    }
    return join("if it is called otherwise, set data.columns = { ", role, " = \"its name\" }",
                options.header.empty() ? ", and if the first line is no header, data.header = [...]" : "");
  }

  std::string file_;
  std::vector<std::string> found_;
  std::array<std::ptrdiff_t, kRoles.size()> at_{};
};

/// One line's fields, turned into a row; the errors name file, line and column.
class RowParser {
 public:
  RowParser(const std::string& file, const Columns& columns, const ManifestOptions& options)
      : file_(file), folder_(std::filesystem::path(file).parent_path()), columns_(columns), options_(options) {}

  /// Error if the line's fields do not match the columns.
  void check_count(int64_t line, const std::vector<std::string_view>& fields) const {
    require(fields.size() >= columns_.count(), "manifest ", file_, " line ", line, ": wanted ", columns_.count(),
            " fields, found ", fields.size());
    for (size_t i = columns_.count(); i < fields.size(); ++i) {
      require(fields[i].empty(), "manifest ", file_, " line ", line, ": wanted ", columns_.count(),
              " fields, found one more: ", shown(fields[i]));
    }
  }

  ManifestRow parse(int64_t line, const std::vector<std::string_view>& fields) const {
    ManifestRow row;
    row.line = line;
    row.sequence = columns_.field(kSequence, fields);
    const std::string_view path = row.sequence.empty() ? columns_.field(kPath, fields) : std::string_view{};
    if (row.sequence.empty() && path.empty()) {
      fail("manifest ", file_, " line ", line, ": column ",
           shown(columns_.title(columns_.has(kPath) ? kPath : kSequence)), " is empty");
    }
    if (!path.empty()) {
      row.path = (folder_ / path).lexically_normal().string();
    }
    row.label = columns_.field(kLabel, fields);
    require(!options_.need_label || !row.label.empty(), "manifest ", file_, " line ", line, ": the task needs labels, ",
            "but column ", columns_.has(kLabel) ? shown(columns_.title(kLabel)) : "'label'", " is empty");
    row.record = columns_.field(kRecord, fields);
    row.strand = strand(line, fields);
    row.start = number(kStart, line, fields);
    row.end = number(kEnd, line, fields);
    require(!row.start || !row.end || *row.end >= *row.start, "manifest ", file_, " line ", line, ": end ",
            row.end.value_or(0), " lies before start ", row.start.value_or(0));
    row.name = name(row, path, fields);
    return row;
  }

 private:
  std::optional<double> number(Role role, int64_t line, const std::vector<std::string_view>& fields) const {
    const std::string_view text = columns_.field(role, fields);
    if (text.empty() || text == "." || text == "NA") {
      return std::nullopt;
    }
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    require(error == std::errc() && end == text.data() + text.size() && std::isfinite(value) && value >= 0, "manifest ",
            file_, " line ", line, " column ", shown(columns_.title(role)), ": wanted a number from 0 up, found ",
            shown(text));
    return value;
  }

  std::string strand(int64_t line, const std::vector<std::string_view>& fields) const {
    const std::string_view text = columns_.field(kStrand, fields);
    if (text.empty() || text == "." || text == "*" || text == "NA") {
      return "";
    }
    if (text == "+" || text == "1" || text == "+1") {
      return "+";
    }
    require(text == "-" || text == "-1", "manifest ", file_, " line ", line, " column ", shown(columns_.title(kStrand)),
            ": wanted '+', '-' or '.', found ", shown(text));
    return "-";
  }

  std::string name(const ManifestRow& row, std::string_view path, const std::vector<std::string_view>& fields) const {
    if (const std::string_view given = columns_.field(kName, fields); !given.empty()) {
      return std::string(given);
    }
    if (path.empty()) {
      return join("line ", row.line);
    }
    std::string text(path);
    if (!row.record.empty()) {
      text += ":" + row.record;
    }
    if (row.start || row.end) {
      text += join(":", row.start.value_or(0), "-");
      text += row.end ? join(*row.end) : "";
    }
    return text;
  }

  std::string file_;
  std::filesystem::path folder_;
  const Columns& columns_;
  const ManifestOptions& options_;
};

bool blank(std::string_view line) { return trimmed(line).empty(); }

/// The first line that counts; Error if there is none.
void first_line(LineReader& reader, const std::string& file, std::string& line) {
  do {
    require(reader.next(line), "manifest ", file, ": the file is empty");
  } while (blank(line) || line.starts_with('#'));
}

}  // namespace

Manifest read_manifest(const std::string& file, const ManifestOptions& options) {
  LineReader reader("manifest", file);
  std::string line;
  std::vector<std::string_view> fields;
  first_line(reader, file, line);
  bool more = true;
  std::vector<std::string> titles = options.header;
  if (titles.empty()) {
    split_fields(line, options.separator, fields);
    titles.assign(fields.begin(), fields.end());
    more = reader.next(line);
  }
  const Columns columns(file, titles, options);
  const RowParser parser(file, columns, options);
  Manifest manifest;
  manifest.file = file;
  std::set<std::string> splits;
  for (; more; more = reader.next(line)) {
    if (blank(line)) {
      continue;
    }
    split_fields(line, options.separator, fields);
    parser.check_count(reader.number(), fields);
    const std::string split(columns.has(kSplit) ? columns.field(kSplit, fields) : std::string_view());
    if (!options.split.empty()) {
      splits.insert(split);
      if (split != options.split) {
        continue;
      }
    }
    manifest.rows.push_back(parser.parse(reader.number(), fields));
    manifest.rows.back().split = split;
  }
  require(!manifest.rows.empty() || splits.empty(), "manifest ", file, ": no row of split ", shown(options.split),
          ", found ", listed({splits.begin(), splits.end()}));
  require(!manifest.rows.empty(), "manifest ", file, ": wanted rows, found none after the header");
  return manifest;
}

std::vector<std::string> manifest_labels(const Manifest& manifest) {
  std::set<std::string> labels;
  for (const ManifestRow& row : manifest.rows) {
    if (!row.label.empty()) {
      labels.insert(row.label);
    }
  }
  return {labels.begin(), labels.end()};
}

}  // namespace blockstate::data
