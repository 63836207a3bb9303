// SPDX-License-Identifier: Apache-2.0
#include "genomics/dna_tokenizer.h"

#include "core/base/check.h"
#include "genomics/hts_handles.h"

namespace blockstate::genomics {
namespace {

std::vector<int64_t> base_tokens(std::string_view bases, LowerCase policy, const BaseOrigin& origin) {
  std::vector<int64_t> tokens(bases.size());
  int64_t worst = 0;
  for (size_t i = 0; i < bases.size(); ++i) {
    tokens[i] = base_token(bases[i], policy);
    worst |= tokens[i];
  }
  if (worst >= 0) {
    return tokens;
  }
  size_t at = 0;
  while (tokens[at] >= 0) {
    ++at;
  }
  fail(origin.where, ", position ", origin.first + static_cast<int64_t>(at) + 1,
       ": wanted a base (A, C, G, T, U or an IUPAC ambiguity code), found ", shown_character(bases[at]));
}

}  // namespace

LowerCase parse_lower_case(std::string_view text) {
  require(text == "upper" || text == "mask", "data.lower_case: wanted \"upper\" or \"mask\", found \"", text, "\"");
  return text == "upper" ? LowerCase::kUpper : LowerCase::kMask;
}

DnaTokenizer::DnaTokenizer(LowerCase policy, int64_t kmer, int64_t stride)
    : policy_(policy), kmer_(kmer), stride_(stride == 0 ? kmer : stride), vocabulary_(kBaseCount) {
  require(kmer >= 1 && kmer <= kLongestKmer, "data.kmer: wanted 1 to ", kLongestKmer, " bases, found ", kmer);
  require(stride >= 0, "data.kmer_stride: wanted 0 (as long as the k-mer) or more, found ", stride);
  if (kmer > 1) {
    vocabulary_ = (int64_t{1} << (2 * kmer)) + 1;
  }
}

int64_t DnaTokenizer::length(int64_t bases) const { return bases < kmer_ ? 0 : (bases - kmer_) / stride_ + 1; }

std::vector<int64_t> DnaTokenizer::encode(std::string_view bases, const BaseOrigin& origin, bool reverse_strand) const {
  std::vector<int64_t> tokens = base_tokens(bases, policy_, origin);
  if (reverse_strand) {
    reverse_complement(tokens);
  }
  if (kmer_ == 1 && stride_ == 1) {
    return tokens;
  }
  const int64_t count = length(static_cast<int64_t>(tokens.size()));
  require(count > 0, origin.where, ": wanted at least the ", kmer_, " bases of one k-mer, found ", tokens.size());
  std::vector<int64_t> ids(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    int64_t id = 0;
    bool known = true;
    for (int64_t j = 0; j < kmer_; ++j) {
      const int64_t base = tokens[static_cast<size_t>(i * stride_ + j)];
      known = known && base != kBaseN;
      id = 4 * id + base;
    }
    const int64_t unknown = kmer_ == 1 ? kBaseN : vocabulary_ - 1;
    ids[static_cast<size_t>(i)] = known ? id : unknown;
  }
  return ids;
}

std::string DnaTokenizer::decode(const std::vector<int64_t>& ids) const {
  if (kmer_ == 1) {
    return base_letters(ids);
  }
  std::string letters(ids.size() * static_cast<size_t>(kmer_), kBaseLetters[kBaseN]);
  for (size_t i = 0; i < ids.size(); ++i) {
    require(ids[i] >= 0 && ids[i] < vocabulary_, "k-mer id: wanted 0 to ", vocabulary_ - 1, ", found ", ids[i]);
    int64_t rest = ids[i];
    for (int64_t j = kmer_ - 1; j >= 0 && ids[i] < vocabulary_ - 1; --j, rest /= 4) {
      letters[i * static_cast<size_t>(kmer_) + static_cast<size_t>(j)] = kBaseLetters[static_cast<size_t>(rest % 4)];
    }
  }
  return letters;
}

std::string base_letters(const std::vector<int64_t>& tokens) {
  std::string letters;
  letters.reserve(tokens.size());
  for (const int64_t token : tokens) {
    require(token >= 0 && token < kBaseCount, "base token: wanted 0 to ", kBaseCount - 1, ", found ", token);
    letters += kBaseLetters[static_cast<size_t>(token)];
  }
  return letters;
}

}  // namespace blockstate::genomics
