// SPDX-License-Identifier: Apache-2.0
// Owners of htslib's objects, which stay incomplete types here: only .cc files of this folder include htslib.
#pragma once

#include <memory>
#include <string>
#include <string_view>

struct BGZF;
struct faidx_t;

namespace blockstate::genomics {

struct BgzfClose {
  void operator()(BGZF* handle) const;
};
struct FaidxDestroy {
  void operator()(faidx_t* handle) const;
};
struct HtsFree {
  void operator()(char* text) const;
};

using BgzfPtr = std::unique_ptr<BGZF, BgzfClose>;
using FaidxPtr = std::unique_ptr<faidx_t, FaidxDestroy>;
using HtsText = std::unique_ptr<char, HtsFree>;  ///< from malloc

/// How a file is packed: as it is, by gzip (readable from its start only), or by bgzip (readable anywhere).
enum class Packing { kPlain, kGzip, kBgzf };

/// Opens a file for reading, whatever its packing; "-" is standard input. Errors name the file: none there, a
/// directory, empty, not readable. Silences htslib's own log, whose lines would double our errors.
BgzfPtr open_bgzf(const std::string& file);
Packing packing(const BgzfPtr& handle);

/// What the file's first bytes say it is, in htslib's words ("BAM version 1 compressed sequence data").
std::string describe_format(const std::string& file);
/// Error if the first bytes are those of a format that holds no plain FASTA or FASTQ (SAM, BAM, CRAM, VCF, ...).
void require_sequence_text(const std::string& file);

/// A character for a message: 'x', or its code where it cannot be printed.
std::string shown_character(char c);
/// Text from a file for a message: 'text', cut where it is long, with '?' for what cannot be printed.
std::string shown_text(std::string_view text);

}  // namespace blockstate::genomics
