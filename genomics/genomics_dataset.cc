// SPDX-License-Identifier: Apache-2.0
#include "genomics/genomics_dataset.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "core/base/check.h"

namespace blockstate::genomics {
namespace {

std::string listed(const std::vector<std::string>& names) {
  constexpr size_t kShown = 10;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kShown); ++i) {
    text += join(i == 0 ? "" : ", ", shown_text(names[i]));
  }
  return names.size() > kShown ? join(text, " and ", names.size() - kShown, " more") : text;
}

/// A manifest's position, which may have been written with a fraction, as bases.
int64_t whole_position(double value, const char* column, const std::string& where) {
  constexpr double kExact = 9007199254740992.0;  // 2^53
  require(value >= 0 && value < kExact && value == std::floor(value), where, ": wanted a whole number of bases as ",
          column, ", found ", value);
  return static_cast<int64_t>(value);
}

void cut(const data::ManifestRow& row, const std::string& what, const std::string& where, int64_t& begin,
         int64_t& end) {
  const int64_t extent = end;
  begin = row.start ? whole_position(*row.start, "start", where) : 0;
  end = row.end ? whole_position(*row.end, "end", where) : extent;
  require(begin < end && end <= extent, where, ": wanted a stretch within the ", extent, " bases of ", what,
          ", found start ", begin, " and end ", end);
}

int64_t find_record(const FastaIndex& index, const std::string& name, const std::string& where) {
  if (!index.has(name)) {
    fail(where, ": ", index.why_missing(name));
  }
  return index.find(name);
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r";
  const size_t first = text.find_first_not_of(kBlanks);
  return first == std::string_view::npos ? std::string_view{}
                                         : text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

}  // namespace

GenomicsDataset::GenomicsDataset(const std::vector<std::string>& classes, const GenomicsOptions& options)
    : options_(options),
      tiling_{options.length, options.hop, std::max(options.min_length, options.kmer)},
      tokenizer_(options.lower_case, options.kmer, options.kmer_stride),
      classes_(classes),
      cache_(options.files) {
  tiling_.check();
}

std::unique_ptr<GenomicsDataset> GenomicsDataset::from_manifest(const data::Manifest& manifest,
                                                                const std::vector<std::string>& classes,
                                                                const GenomicsOptions& options) {
  std::unique_ptr<GenomicsDataset> dataset(new GenomicsDataset(classes, options));
  for (const data::ManifestRow& row : manifest.rows) {
    const std::string where = join("manifest ", manifest.file, " line ", row.line);
    if (row.path.empty()) {
      dataset->add_inline(row, where);
    } else {
      dataset->add_path(row, where);
    }
  }
  dataset->finish("manifest " + manifest.file);
  return dataset;
}

std::unique_ptr<GenomicsDataset> GenomicsDataset::from_fasta(const std::string& file, const GenomicsOptions& options) {
  std::unique_ptr<GenomicsDataset> dataset(new GenomicsDataset({}, options));
  const auto index = dataset->cache_.get(file);
  Interval interval;
  interval.file = dataset->file_number(file);
  for (int64_t record = 0; record < index->size(); ++record) {
    interval.sequence = record;
    interval.name = index->name(record).empty() ? join("record ", record + 1) : index->name(record);
    interval.end = index->length(record);
    dataset->add_record(*index, interval, file);
  }
  dataset->finish(file);
  return dataset;
}

std::unique_ptr<GenomicsDataset> GenomicsDataset::from_regions(const std::string& fasta, const std::string& bed,
                                                               const std::vector<std::string>& classes,
                                                               const GenomicsOptions& options) {
  std::unique_ptr<GenomicsDataset> dataset(new GenomicsDataset(classes, options));
  const auto index = dataset->cache_.get(fasta);
  const int64_t file = dataset->file_number(fasta);
  for (const Region& region : read_bed(bed)) {
    const std::string where = join("regions ", bed, ", line ", region.line);
    const int64_t record = find_record(*index, region.record, where);
    require(region.end <= index->length(record), where, ": wanted a stretch within the ", index->length(record),
            " bases of record ", shown_text(region.record), ", found begin ", region.begin, " and end ", region.end);
    Interval interval;
    interval.stem = region.record;
    interval.name =
        join(region.record, ":", region.begin + 1, "-", region.end, region.strand == Strand::kReverse ? "(-)" : "");
    interval.file = file;
    interval.sequence = record;
    interval.begin = region.begin;
    interval.end = region.end;
    interval.strand = region.strand;
    interval.label = dataset->class_index(region.label, where);
    dataset->add(std::move(interval));
  }
  dataset->finish("regions " + bed);
  return dataset;
}

int64_t GenomicsDataset::class_index(const std::string& label, const std::string& where) const {
  if (classes_.empty() || label.empty()) {
    return -1;
  }
  const auto found = std::find(classes_.begin(), classes_.end(), label);
  require(found != classes_.end(), where, ": unknown label ", shown_text(label), "; the classes are ",
          listed(classes_));
  return found - classes_.begin();
}

int64_t GenomicsDataset::file_number(const std::string& file) {
  // Rows of one file mostly follow each other.
  if (files_.empty() || files_.back() != file) {
    files_.push_back(file);
  }
  return static_cast<int64_t>(files_.size()) - 1;
}

void GenomicsDataset::add_inline(const data::ManifestRow& row, const std::string& where) {
  const std::string_view bases = trimmed(row.sequence);
  require(!bases.empty(), where, ": the sequence is empty");
  Interval interval;
  interval.name = row.name;
  interval.where = where;
  interval.end = static_cast<int64_t>(bases.size());
  if (options_.slice) {
    cut(row, "its sequence", where, interval.begin, interval.end);
    interval.strand = parse_strand(row.strand, where);
  }
  interval.label = class_index(row.label, where);
  // A letter that is no base is better found now than in the middle of a training.
  DnaTokenizer(options_.lower_case).encode(bases, {where, 0});
  interval.sequence = static_cast<int64_t>(inline_.size());
  inline_.emplace_back(bases);
  add(std::move(interval));
}

void GenomicsDataset::add_path(const data::ManifestRow& row, const std::string& where) {
  const auto index = cache_.get(row.path);
  Interval interval;
  interval.file = file_number(row.path);
  interval.strand = parse_strand(row.strand, where);
  interval.label = class_index(row.label, where);
  interval.name = row.name;
  const bool whole = !row.start && !row.end;
  if (row.record.empty() && whole) {
    for (int64_t record = 0; record < index->size(); ++record) {
      interval.sequence = record;
      interval.name = index->size() == 1 ? row.name : join(row.name, ":", index->name(record));
      interval.end = index->length(record);
      add_record(*index, interval, row.path);
    }
    return;
  }
  require(!row.record.empty() || index->size() == 1, where, ": start and end need a record's name, as ", row.path,
          " has ", index->size(), " records");
  interval.sequence = row.record.empty() ? 0 : find_record(*index, row.record, where);
  interval.end = index->length(interval.sequence);
  cut(row, join("record ", shown_text(index->name(interval.sequence)), " of ", row.path), where, interval.begin,
      interval.end);
  add(std::move(interval));
}

void GenomicsDataset::add_record(const FastaIndex& index, const Interval& interval, const std::string& where) {
  require(interval.end > 0, where, ": record ", shown_text(index.name(interval.sequence)), " has no bases");
  add(interval);
}

void GenomicsDataset::add(Interval interval) {
  int64_t windows = tiling_.count(interval.end - interval.begin);
  if (windows == 0) {
    return;
  }
  windows = options_.first_window_only ? 1 : windows;
  interval.stem = interval.stem.empty() ? interval.name : interval.stem;
  first_window_.push_back(first_window_.back() + windows);
  intervals_.push_back(std::move(interval));
}

void GenomicsDataset::finish(const std::string& source) const {
  require(size() > 0, source, ": no sequence has the ", tiling_.min_length, " bases that an example needs at least");
}

GenomicsDataset::Window GenomicsDataset::window(int64_t index) const {
  require(index >= 0 && index < size(), "example: wanted an index below ", size(), ", found ", index);
  const auto after = std::upper_bound(first_window_.begin(), first_window_.end(), index);
  const auto number = static_cast<size_t>(after - first_window_.begin()) - 1;
  const Interval& interval = intervals_[number];
  Window window{&interval, interval.begin, interval.end};
  tiling_.window(index - first_window_[number], interval.strand, window.begin, window.end);
  return window;
}

int64_t GenomicsDataset::length(int64_t index) const {
  const Window window = this->window(index);
  return tokenizer_.length(window.end - window.begin);
}

data::Example GenomicsDataset::get(int64_t index) const {
  const Window window = this->window(index);
  const Interval& interval = *window.interval;
  const bool reverse = interval.strand == Strand::kReverse;
  data::Example example;
  const bool whole = window.begin == interval.begin && window.end == interval.end;
  example.name =
      whole ? interval.name : join(interval.stem, ":", window.begin + 1, "-", window.end, reverse ? "(-)" : "");
  example.label = interval.label;
  if (interval.file < 0) {
    const std::string_view bases = inline_[static_cast<size_t>(interval.sequence)];
    const auto count = static_cast<size_t>(window.end - window.begin);
    example.tokens = tokenizer_.encode(bases.substr(static_cast<size_t>(window.begin), count),
                                       {interval.where, window.begin}, reverse);
  } else {
    const auto file = cache_.get(files_[static_cast<size_t>(interval.file)]);
    const std::string bases = file->fetch(interval.sequence, window.begin, window.end);
    example.tokens = tokenizer_.encode(
        bases, {join(file->file(), ": record ", shown_text(file->name(interval.sequence))), window.begin}, reverse);
  }
  return example;
}

}  // namespace blockstate::genomics
