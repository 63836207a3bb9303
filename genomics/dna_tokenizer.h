// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "genomics/alphabet.h"

namespace blockstate::genomics {

/// Where bases came from, for messages.
struct BaseOrigin {
  std::string where;  ///< file and record or line
  int64_t first = 0;  ///< 0-based position of the first base in its record
};

/// Reads the value of `data.lower_case`: "upper" or "mask", else Error.
LowerCase parse_lower_case(std::string_view text);

/// Bases to token ids: one token a base (ids of alphabet.h, vocabulary 5), or one a k-mer.
///
/// A k-mer's id is its bases as digits of base 4, the first base the most significant; a k-mer that holds an N is
/// 4^k, so the vocabulary is 4^k + 1. K-mers start every `stride` bases; bases left at the end, fewer than k, have no
/// token.
class DnaTokenizer {
 public:
  static constexpr int64_t kLongestKmer = 12;

  /// `stride` 0 means `kmer` (k-mers do not overlap). Error unless 1 <= kmer <= kLongestKmer and stride >= 0.
  explicit DnaTokenizer(LowerCase policy = LowerCase::kUpper, int64_t kmer = 1, int64_t stride = 0);

  int64_t vocabulary() const { return vocabulary_; }
  /// Tokens of a sequence of `bases` bases.
  int64_t length(int64_t bases) const;
  /// Token ids of `bases`, or of the other strand of it. Error names `origin`, the 1-based position in the record and
  /// the character that is no base; also if there are too few bases for one k-mer.
  std::vector<int64_t> encode(std::string_view bases, const BaseOrigin& origin, bool reverse_strand = false) const;
  /// The letters that ids stand for, k a k-mer (k times N for the one that holds an N); k-mers that do not overlap.
  /// Error on an id outside the vocabulary.
  std::string decode(const std::vector<int64_t>& ids) const;

 private:
  LowerCase policy_;
  int64_t kmer_;
  int64_t stride_;
  int64_t vocabulary_;
};

/// Base tokens (not k-mers) as letters. Error on an id outside the alphabet.
std::string base_letters(const std::vector<int64_t>& tokens);

}  // namespace blockstate::genomics
