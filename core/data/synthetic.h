// SPDX-License-Identifier: Apache-2.0
// The two synthetic tasks that tell selective from time-invariant models. Gu & Dao 2023 (arXiv 2312.00752), 4.1;
// Labels stand at single positions, so the task kind is per_position.
#pragma once

#include "core/data/dataset.h"

namespace blockstate::data {

struct SyntheticOptions {
  int64_t length = 256;  ///< L, steps in which the data lies
  int64_t symbols = 8;   ///< size of the alphabet
  int64_t copies = 4;    ///< selective copying: symbols to remember
  int64_t examples = 1024;
  uint64_t seed = 0;  ///< examples are a function of seed and index
};

/// Selective copying: `copies` symbols at random places among L steps of noise (id `symbols`), then `copies` steps of a
/// marker (id `symbols` + 1) at which they are asked for in order. Vocabulary symbols + 2.
class SelectiveCopying : public Dataset {
 public:
  explicit SelectiveCopying(const SyntheticOptions& options);
  int64_t size() const override { return options_.examples; }
  int64_t length(int64_t) const override { return options_.length + options_.copies; }
  Example get(int64_t index) const override;
  int64_t vocabulary() const { return options_.symbols + 2; }

 private:
  SyntheticOptions options_;
};

/// Induction heads: random symbols; a special id `symbols` stands once in the sequence and again at its end, where the
/// symbol that followed it is asked for. Vocabulary symbols + 1.
class InductionHeads : public Dataset {
 public:
  explicit InductionHeads(const SyntheticOptions& options);
  int64_t size() const override { return options_.examples; }
  int64_t length(int64_t) const override { return options_.length; }
  Example get(int64_t index) const override;
  int64_t vocabulary() const { return options_.symbols + 1; }

 private:
  SyntheticOptions options_;
};

}  // namespace blockstate::data
