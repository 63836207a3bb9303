// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/data/dataset.h"
#include "core/data/manifest.h"
#include "genomics/dna_tokenizer.h"
#include "genomics/fasta_cache.h"
#include "genomics/region.h"

namespace blockstate::genomics {

struct GenomicsOptions {
  int64_t length = 0;              ///< bases of one example; 0: each sequence whole
  int64_t hop = 0;                 ///< bases between the starts of a long sequence's windows; 0: `length`
  int64_t min_length = 1;          ///< windows of fewer bases are left out (never fewer than one k-mer)
  bool first_window_only = false;  ///< of a sequence longer than `length` keep only its first window
  LowerCase lower_case = LowerCase::kUpper;
  int64_t kmer = 1;         ///< 1: base tokens
  int64_t kmer_stride = 0;  ///< bases; 0: `kmer`
  bool slice = false;       ///< start, end and strand of a manifest apply to its inline sequences too
  FastaIndexOptions files;
};

/// Sequences of DNA as examples of token ids, whatever form they come in. A sequence longer than `length` becomes the
/// examples that Tiling cuts from it, named NAME:FIRST-LAST (1-based, end included, in the record's coordinates, the
/// reverse strand marked by "(-)"). A sequence on the reverse strand is read as its reverse complement, and its windows
/// are counted from its own start. Example::label is the index of the label in `classes`; -1 where there is no label or
/// no class list.
class GenomicsDataset final : public data::Dataset {
 public:
  /// Rows of a manifest. A row with a `sequence` is that sequence; its start, end and strand are what it says of itself
  /// and are not applied unless options.slice. A row with a `path` is a FASTA or FASTQ file: the record it names, or
  /// else all its records; start and end (0-based, half-open) cut a record and then need it named unless it is the only
  /// one. Errors name the manifest's line: an unknown label (with the classes), an unknown record, a stretch outside
  /// its record (with the record's length), a position that is no whole number, a character that is no base.
  static std::unique_ptr<GenomicsDataset> from_manifest(const data::Manifest& manifest,
                                                        const std::vector<std::string>& classes,
                                                        const GenomicsOptions& options);
  /// Every record of a FASTA or FASTQ file, without labels.
  static std::unique_ptr<GenomicsDataset> from_fasta(const std::string& file, const GenomicsOptions& options);
  /// Regions of a BED file in a FASTA, with the labels of its column 4. Errors as for from_manifest.
  static std::unique_ptr<GenomicsDataset> from_regions(const std::string& fasta, const std::string& bed,
                                                       const std::vector<std::string>& classes,
                                                       const GenomicsOptions& options);

  int64_t size() const override { return first_window_.back(); }
  /// Tokens of an example, without reading it.
  int64_t length(int64_t index) const override;
  data::Example get(int64_t index) const override;
  int64_t vocabulary() const { return tokenizer_.vocabulary(); }

 private:
  /// A stretch of one record, cut into windows when read.
  struct Interval {
    std::string name;
    std::string stem;      ///< what the names of its windows start with
    std::string where;     ///< inline only: manifest and line, for messages
    int64_t file = -1;     ///< index into files_; -1: inline
    int64_t sequence = 0;  ///< record of the file, or index into inline_
    int64_t begin = 0;
    int64_t end = 0;
    Strand strand = Strand::kForward;
    int64_t label = -1;
  };
  struct Window {
    const Interval* interval;
    int64_t begin;
    int64_t end;
  };

  GenomicsDataset(const std::vector<std::string>& classes, const GenomicsOptions& options);
  int64_t class_index(const std::string& label, const std::string& where) const;
  int64_t file_number(const std::string& file);
  void add_inline(const data::ManifestRow& row, const std::string& where);
  void add_path(const data::ManifestRow& row, const std::string& where);
  void add_record(const FastaIndex& index, const Interval& interval, const std::string& where);
  void add(Interval interval);
  void finish(const std::string& source) const;
  Window window(int64_t index) const;

  GenomicsOptions options_;
  Tiling tiling_;
  DnaTokenizer tokenizer_;
  std::vector<std::string> classes_;
  std::vector<std::string> files_;
  std::vector<std::string> inline_;
  std::vector<Interval> intervals_;
  std::vector<int64_t> first_window_ = {0};  ///< of each interval, and at the end the number of all
  mutable FastaCache cache_;
};

}  // namespace blockstate::genomics
