// SPDX-License-Identifier: Apache-2.0
// FASTA files for the tests, built in code.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace blockstate::test {

/// `length` letters of ACGT, the same for the same seed.
std::string random_bases(int64_t length, uint64_t seed);

/// `bases` in lines of `width`, each ended by `line_end`.
std::string wrapped(std::string_view bases, size_t width, std::string_view line_end = "\n");

/// Writes `text` as bgzip does, a block of at most `block` bytes at a time, through htslib.
void write_bgzf(const std::string& file, std::string_view text, size_t block = 1000);

/// Writes `text` as one gzip stream without bgzip's blocks.
void write_gzip(const std::string& file, std::string_view text);

std::string read_bytes(const std::string& file);

/// The text of the blockstate::Error that `body` throws; "no error" if none comes.
std::string error_of(const std::function<void()>& body);

}  // namespace blockstate::test
