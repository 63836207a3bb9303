// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "genomics/fasta_index.h"

namespace blockstate::genomics {

/// Opened FASTA files by path, shared by threads. Of the files that are read through an index the `most_open` used last
/// stay open (the system limits open files); files held in memory stay, so that each is read once.
class FastaCache {
 public:
  explicit FastaCache(FastaIndexOptions options, int64_t most_open = 128);

  /// Opens the file or finds it open. Errors: those of FastaIndex.
  std::shared_ptr<const FastaIndex> get(const std::string& file);
  int64_t open_files() const;

 private:
  struct Opened {
    std::shared_ptr<const FastaIndex> index;
    std::list<std::string>::iterator used;
  };

  FastaIndexOptions options_;
  int64_t most_open_;
  mutable std::mutex mutex_;
  std::unordered_map<std::string, Opened> opened_;
  std::unordered_map<std::string, std::shared_ptr<const FastaIndex>> held_;
  std::list<std::string> used_;  ///< keys of opened_, the latest first
};

}  // namespace blockstate::genomics
