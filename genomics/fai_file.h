// SPDX-License-Identifier: Apache-2.0
// The index that `samtools faidx` writes beside a FASTA: name, length, offset, bases and bytes of a line, by tabs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "genomics/fasta_reader.h"

namespace blockstate::genomics {

struct FaiEntry {
  std::string name;
  int64_t length = 0;  ///< bases
  RecordLayout layout;
};

/// Reads a .fai. Error names file and line if it cannot be one.
std::vector<FaiEntry> read_fai(const std::string& file);

/// Writes a .fai. Error if the file cannot be written.
void write_fai(const std::string& file, const std::vector<FaiEntry>& entries);

/// Why `index` (and `block_index`, for a bgzip file) cannot be the index of `fasta` as it lies now; empty if nothing
/// speaks against it. Compares the times of the files, and for up to 32 records spread over the file whether their
/// header stands before the place the index names and a line ends behind it.
std::string mismatch(const std::string& fasta, Packing packing, const std::string& index,
                     const std::string& block_index, const std::vector<FaiEntry>& entries);

}  // namespace blockstate::genomics
