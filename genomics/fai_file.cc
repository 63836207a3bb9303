// SPDX-License-Identifier: Apache-2.0
#include "genomics/fai_file.h"

#include <htslib/bgzf.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <limits>
#include <system_error>
#include <unordered_set>

#include "core/base/check.h"
#include "core/data/line_reader.h"
#include "genomics/block_index.h"

namespace blockstate::genomics {
namespace {

constexpr int64_t kRecordsChecked = 32;
constexpr int64_t kLongestHeader = 4096;
constexpr int64_t kLargestNumber = int64_t{1} << 50;  // so that places computed from an entry stay within 64 bits
constexpr int64_t kLongestLineEnd = 2;

bool parse_number(std::string_view text, int64_t& value) {
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  return problem == std::errc() && end == text.data() + text.size() && value >= 0 && value <= kLargestNumber;
}

bool parse_entry(std::string_view line, FaiEntry& entry) {
  std::array<int64_t, 4> numbers{};
  const size_t name_end = line.find('\t');
  if (name_end == std::string_view::npos) {
    return false;
  }
  entry.name = line.substr(0, name_end);
  line.remove_prefix(name_end + 1);
  for (size_t i = 0; i < numbers.size(); ++i) {
    const size_t end = line.find('\t');
    // A fifth number is the place of FASTQ qualities: such an index is not one of a FASTA.
    if ((end == std::string_view::npos) != (i + 1 == numbers.size()) ||
        !parse_number(line.substr(0, end), numbers[i])) {
      return false;
    }
    line.remove_prefix(end == std::string_view::npos ? line.size() : end + 1);
  }
  entry.length = numbers[0];
  entry.layout = {numbers[1], numbers[2], numbers[3], true};
  const int64_t line_end = entry.layout.line_bytes - entry.layout.line_bases;
  return entry.length == 0 || (entry.layout.line_bases > 0 && line_end >= 0 && line_end <= kLongestLineEnd);
}

/// Bytes [begin, begin + count) of the unpacked file, or fewer at its end.
std::string bytes_at(const BgzfPtr& handle, int64_t begin, int64_t count) {
  std::string bytes(static_cast<size_t>(count), '\0');
  if (bgzf_useek(handle.get(), begin, SEEK_SET) < 0) {
    return {};
  }
  const ssize_t got = bgzf_read(handle.get(), bytes.data(), bytes.size());
  bytes.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return bytes;
}

bool header_fits(const BgzfPtr& handle, const FaiEntry& entry) {
  const int64_t begin = std::max<int64_t>(0, entry.layout.offset - kLongestHeader);
  const std::string before = bytes_at(handle, begin, entry.layout.offset - begin);
  if (static_cast<int64_t>(before.size()) != entry.layout.offset - begin || before.empty() || before.back() != '\n') {
    return false;
  }
  const size_t line_end = before.size() - 1;
  const size_t previous = line_end == 0 ? std::string::npos : before.rfind('\n', line_end - 1);
  if (previous == std::string::npos && begin > 0) {
    return true;  // a header longer than what was read says nothing
  }
  const size_t first = previous == std::string::npos ? 0 : previous + 1;
  const std::string_view header = std::string_view(before).substr(first, line_end - first);
  return !header.empty() && header[0] == '>' && record_name(header) == entry.name;
}

/// Byte of the record's last base in the unpacked file.
int64_t last_byte(const FaiEntry& entry) {
  const int64_t last = entry.length - 1;
  const RecordLayout& layout = entry.layout;
  return layout.offset + last / layout.line_bases * layout.line_bytes + last % layout.line_bases;
}

bool end_fits(const BgzfPtr& handle, const FaiEntry& entry) {
  const std::string found = bytes_at(handle, last_byte(entry), 2);
  const bool base = !found.empty() && found[0] > 0x20;
  return base && (found.size() == 1 || found[1] == '\n' || found[1] == '\r');
}

/// `bytes`: of the unpacked file, or as many as can be if that is not known.
bool entry_fits(const BgzfPtr& handle, const FaiEntry& entry, int64_t bytes) {
  const bool within = entry.layout.offset <= bytes && (entry.length == 0 || last_byte(entry) < bytes);
  return within && header_fits(handle, entry) && (entry.length == 0 || end_fits(handle, entry));
}

}  // namespace

std::vector<FaiEntry> read_fai(const std::string& file) {
  std::vector<FaiEntry> entries;
  data::LineReader lines("FASTA index", file);
  std::unordered_set<std::string> names;
  std::string line;
  while (lines.next(line)) {
    FaiEntry entry;
    require(parse_entry(line, entry), file, ", line ", lines.number(),
            ": wanted name, length, offset, bases of a line and bytes of a line, found something else");
    require(names.insert(entry.name).second, file, ", line ", lines.number(), ": record ", shown_text(entry.name),
            " is named a second time");
    entries.push_back(std::move(entry));
  }
  return entries;
}

void write_fai(const std::string& file, const std::vector<FaiEntry>& entries) {
  std::ofstream stream(file, std::ios::binary);
  for (const FaiEntry& entry : entries) {
    stream << entry.name << '\t' << entry.length << '\t' << entry.layout.offset << '\t' << entry.layout.line_bases
           << '\t' << entry.layout.line_bytes << '\n';
  }
  stream.close();
  require(!stream.fail(), file, ": cannot be written");
}

std::string mismatch(const std::string& fasta, Packing packing, const std::string& index,
                     const std::string& block_index, const std::vector<FaiEntry>& entries) {
  std::error_code ignored;
  const auto written = std::filesystem::last_write_time(fasta, ignored);
  if (std::filesystem::last_write_time(index, ignored) < written ||
      (packing == Packing::kBgzf && std::filesystem::last_write_time(block_index, ignored) < written)) {
    return "is older than the FASTA";
  }
  if (entries.empty()) {
    return "is empty";
  }
  if (packing == Packing::kBgzf) {
    if (const std::string problem = block_index_problem(fasta, block_index); !problem.empty()) {
      return "cannot be used, as " + block_index + " " + problem;
    }
  }
  const BgzfPtr handle = open_bgzf(fasta);
  if (packing == Packing::kBgzf && bgzf_index_load(handle.get(), block_index.c_str(), nullptr) != 0) {
    return "has an unreadable block index (.gzi) beside it";
  }
  const int64_t bytes = packing == Packing::kPlain ? static_cast<int64_t>(std::filesystem::file_size(fasta))
                                                   : std::numeric_limits<int64_t>::max();
  const auto count = static_cast<int64_t>(entries.size());
  const int64_t checks = std::min(count, kRecordsChecked);
  for (int64_t i = 0; i < checks; ++i) {
    const int64_t record = checks == 1 ? 0 : i * (count - 1) / (checks - 1);
    const FaiEntry& entry = entries[static_cast<size_t>(record)];
    if (!entry_fits(handle, entry, bytes)) {
      return join("puts record ", shown_text(entry.name), " where the FASTA does not have it");
    }
  }
  return {};
}

}  // namespace blockstate::genomics
