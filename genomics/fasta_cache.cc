// SPDX-License-Identifier: Apache-2.0
#include "genomics/fasta_cache.h"

#include <utility>

#include "core/base/check.h"

namespace blockstate::genomics {

FastaCache::FastaCache(FastaIndexOptions options, int64_t most_open)
    : options_(std::move(options)), most_open_(most_open) {
  require(most_open >= 1, "FASTA cache: wanted at least one open file, found ", most_open);
}

std::shared_ptr<const FastaIndex> FastaCache::get(const std::string& file) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (const auto found = held_.find(file); found != held_.end()) {
    return found->second;
  }
  if (const auto found = opened_.find(file); found != opened_.end()) {
    used_.splice(used_.begin(), used_, found->second.used);
    return found->second.index;
  }
  auto index = std::make_shared<const FastaIndex>(file, options_);
  if (index->in_memory()) {
    held_.emplace(file, index);
    return index;
  }
  if (static_cast<int64_t>(used_.size()) == most_open_) {
    opened_.erase(used_.back());
    used_.pop_back();
  }
  used_.push_front(file);
  opened_.emplace(file, Opened{index, used_.begin()});
  return index;
}

int64_t FastaCache::open_files() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<int64_t>(opened_.size());
}

}  // namespace blockstate::genomics
