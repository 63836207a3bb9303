// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "core/data/dataset.h"

namespace blockstate::data {

/// Some examples of another dataset.
class Subset : public Dataset {
 public:
  Subset(std::shared_ptr<const Dataset> whole, std::vector<int64_t> indices)
      : whole_(std::move(whole)), indices_(std::move(indices)) {}
  int64_t size() const override { return static_cast<int64_t>(indices_.size()); }
  int64_t length(int64_t index) const override { return whole_->length(indices_[static_cast<size_t>(index)]); }
  Example get(int64_t index) const override { return whole_->get(indices_[static_cast<size_t>(index)]); }

 private:
  std::shared_ptr<const Dataset> whole_;
  std::vector<int64_t> indices_;
};

/// Cuts a dataset in two, the second with `fraction` of the examples (at least one of each where there are two), drawn
/// by `seed`.
std::pair<std::shared_ptr<Dataset>, std::shared_ptr<Dataset>> hold_out(std::shared_ptr<const Dataset> whole,
                                                                       double fraction, uint64_t seed);

}  // namespace blockstate::data
