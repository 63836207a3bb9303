// SPDX-License-Identifier: Apache-2.0
// Where generated tokens go, as they are made and in constant memory: FASTA, WAV or .npy, by what the model reads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "apps/run_config.h"

namespace blockstate::apps {

/// A file that is valid whenever the program ends.
class SampleOutput {
 public:
  virtual ~SampleOutput() = default;
  /// Samples first ... first + rows - 1 are made at once from here on.
  virtual void begin(int64_t first, int64_t rows) = 0;
  /// The next token of one of them.
  virtual void add(int64_t row, int64_t token) = 0;
  /// Everything of these samples is written.
  virtual void end() = 0;
};

struct SampleFiles {
  std::string out;      ///< "-": FASTA on standard output
  int64_t samples = 1;  ///< in all: WAV and .npy get a file each, numbered before the ending where there are several
  int64_t length = 0;   ///< tokens of each
  std::string note;     ///< for FASTA headers
};

/// Symbols a token stands for: k bases of a k-mer, else 1.
int64_t symbols_per_token(const RunConfig& run);
/// Error where the ending is none that fits, before anything is written.
std::unique_ptr<SampleOutput> open_sample_output(const RunConfig& run, const SampleFiles& files);

}  // namespace blockstate::apps
