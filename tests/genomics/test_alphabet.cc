// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "genomics/alphabet.h"
#include "genomics/dna_tokenizer.h"
#include "tests/genomics/genomics_files.h"

using namespace blockstate;
using namespace blockstate::genomics;
using Catch::Matchers::Contains;

namespace {

std::vector<int64_t> encode(std::string_view bases, LowerCase policy = LowerCase::kUpper, bool reverse = false) {
  return DnaTokenizer(policy).encode(bases, {"x.fa: record 'r'", 0}, reverse);
}

}  // namespace

static_assert(base_token('A') == kBaseA && base_token('C') == kBaseC && base_token('G') == kBaseG &&
              base_token('T') == kBaseT && base_token('N') == kBaseN);
static_assert(base_token('a') == kBaseA && base_token('a', LowerCase::kMask) == kBaseN);

TEST_CASE("every byte is a base, an ambiguity code or no base") {
  const std::string acgtu = "ACGTUacgtu";
  const std::string ambiguous = "RYSWKMBDHVNryswkmbdhvn";
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    const int64_t upper = base_token(c);
    const int64_t masked = base_token(c, LowerCase::kMask);
    CAPTURE(byte);
    if (acgtu.find(c) != std::string::npos) {
      CHECK(upper == static_cast<int64_t>(std::string("ACGT").find(c == 'U' || c == 'u' ? 'T' : (c & ~0x20))));
      CHECK(masked == (c >= 'a' ? kBaseN : upper));
    } else if (ambiguous.find(c) != std::string::npos) {
      CHECK(upper == kBaseN);
      CHECK(masked == kBaseN);
    } else {
      CHECK(upper == kNoBase);
      CHECK(masked == kNoBase);
    }
  }
}

TEST_CASE("bases become tokens by the lower-case policy") {
  CHECK(encode("ACGTN") == std::vector<int64_t>{0, 1, 2, 3, 4});
  CHECK(encode("acgun") == std::vector<int64_t>{0, 1, 2, 3, 4});
  CHECK(encode("AcGtR", LowerCase::kMask) == std::vector<int64_t>{0, 4, 2, 4, 4});
  CHECK(parse_lower_case("mask") == LowerCase::kMask);
  CHECK_THAT(blockstate::test::error_of([] { parse_lower_case("lower"); }),
             Contains("\"upper\" or \"mask\"") && Contains("\"lower\""));
}

TEST_CASE("the other strand is the reverse complement") {
  CHECK(base_letters(encode("AACGTN", LowerCase::kUpper, true)) == "NACGTT");
  const std::vector<int64_t> tokens = encode(test::random_bases(1001, 3));
  std::vector<int64_t> twice = tokens;
  reverse_complement(twice);
  CHECK(twice != tokens);
  reverse_complement(twice);
  CHECK(twice == tokens);
}

TEST_CASE("a character that is no base is named with its position") {
  const auto message = [](std::string_view bases, int64_t first) {
    return test::error_of([&] { DnaTokenizer().encode(bases, {"x.fa: record 'r'", first}); });
  };
  CHECK(message("ACG1T*", 0) ==
        "x.fa: record 'r', position 4: wanted a base (A, C, G, T, U or an IUPAC ambiguity code), found '1'");
  CHECK_THAT(message("AC*", 1000), Contains("position 1003") && Contains("'*'"));
  CHECK_THAT(message("AC GT", 0), Contains("position 3") && Contains("a blank"));
  CHECK_THAT(message(std::string("A\0C", 3), 0), Contains("position 2") && Contains("byte 0x00"));
  CHECK_THAT(message("MKLV\xff", 0), Contains("position 3") && Contains("'L'"));
  CHECK_THAT(message("A\xff", 0), Contains("byte 0xff"));
}

TEST_CASE("k-mers count in base 4") {
  const DnaTokenizer pairs(LowerCase::kUpper, 2);
  const BaseOrigin origin{"r", 0};
  CHECK(pairs.vocabulary() == 17);
  CHECK(pairs.encode("AACTTNG", origin) == std::vector<int64_t>{0, 7, 16});
  CHECK(pairs.length(7) == 3);
  // The strand is turned before it is cut: CNAAGTT -> CN AA GT.
  CHECK(pairs.encode("AACTTNG", origin, true) == std::vector<int64_t>{16, 0, 11});
  const DnaTokenizer overlapping(LowerCase::kUpper, 3, 1);
  CHECK(overlapping.encode("AACTT", origin) == std::vector<int64_t>{1, 7, 31});
  CHECK(overlapping.length(5) == 3);
  CHECK(overlapping.length(2) == 0);
  CHECK_THAT(test::error_of([&] { overlapping.encode("AC", origin); }), Contains("3 bases") && Contains("found 2"));
  CHECK_THAT(test::error_of([] { DnaTokenizer(LowerCase::kUpper, 13); }), Contains("1 to 12") && Contains("13"));
}

TEST_CASE("letters come back from base tokens only") {
  CHECK(base_letters({0, 1, 2, 3, 4}) == "ACGTN");
  CHECK_THAT(test::error_of([] { base_letters({0, 5}); }), Contains("found 5"));
}

TEST_CASE("k-mers come back as letters") {
  const DnaTokenizer triples(LowerCase::kUpper, 3);
  const std::string bases = "ACGTTTGANAAC";
  const std::string letters = triples.decode(triples.encode(bases, {"r", 0}));
  CHECK(letters == "ACGTTTNNNAAC");  // a k-mer that holds an N is known no more
  CHECK(triples.decode({0, 63}) == "AAATTT");
  CHECK(DnaTokenizer().decode({0, 1, 2, 3, 4}) == "ACGTN");
  CHECK_THAT(test::error_of([&] { triples.decode({65}); }), Contains("0 to 64") && Contains("found 65"));
}
