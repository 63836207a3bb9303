// SPDX-License-Identifier: Apache-2.0
// Letters of a nucleic acid as token ids.
//
//   A 0 · C 1 · G 2 · T 3 · N 4
//
// U is read as T. The ambiguity codes of the IUPAC (R Y S W K M B D H V N) all become N. Lower case, by which genome
// browsers mark repeats ("soft-masked"), is read as upper case; with LowerCase::kMask it becomes N. Every other
// character (digits, '*', '-', blanks inside a line, letters of proteins) is a mistake and never a token.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace blockstate::genomics {

/// What lower-case letters mean: `data.lower_case = "upper" | "mask"`.
enum class LowerCase { kUpper, kMask };

inline constexpr int64_t kBaseA = 0;
inline constexpr int64_t kBaseC = 1;
inline constexpr int64_t kBaseG = 2;
inline constexpr int64_t kBaseT = 3;
inline constexpr int64_t kBaseN = 4;
inline constexpr int64_t kBaseCount = 5;
inline constexpr int8_t kNoBase = -1;  ///< the character is no letter of a nucleic acid

inline constexpr std::string_view kBaseLetters = "ACGTN";

namespace detail {
using BaseTable = std::array<int8_t, 256>;

constexpr BaseTable make_base_table(LowerCase policy) {
  constexpr std::string_view kCodes = "ACGTURYSWKMBDHVN";
  constexpr std::string_view kReadAs = "ACGTTNNNNNNNNNNN";
  BaseTable table{};
  table.fill(kNoBase);
  for (size_t i = 0; i < kCodes.size(); ++i) {
    const auto upper = static_cast<unsigned char>(kCodes[i]);
    const auto token = static_cast<int8_t>(kBaseLetters.find(kReadAs[i]));
    table[upper] = token;
    table[upper + ('a' - 'A')] = policy == LowerCase::kUpper ? token : static_cast<int8_t>(kBaseN);
  }
  return table;
}

inline constexpr BaseTable kReadLower = make_base_table(LowerCase::kUpper);
inline constexpr BaseTable kMaskLower = make_base_table(LowerCase::kMask);
inline constexpr std::array<int64_t, kBaseCount> kComplement = {kBaseT, kBaseG, kBaseC, kBaseA, kBaseN};
}  // namespace detail

/// Token of a letter, or kNoBase.
constexpr int8_t base_token(char letter, LowerCase policy = LowerCase::kUpper) {
  const auto& table = policy == LowerCase::kUpper ? detail::kReadLower : detail::kMaskLower;
  return table[static_cast<unsigned char>(letter)];
}

/// The base that pairs with `token` (0 <= token < kBaseCount); N pairs with N.
constexpr int64_t complement(int64_t token) { return detail::kComplement[static_cast<size_t>(token)]; }

/// The other strand of base tokens, read in its own direction; an involution.
inline void reverse_complement(std::vector<int64_t>& tokens) {
  std::reverse(tokens.begin(), tokens.end());
  for (int64_t& token : tokens) {
    token = complement(token);
  }
}

}  // namespace blockstate::genomics
