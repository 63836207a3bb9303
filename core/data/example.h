// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace blockstate::data {

/// One training or inference example from either domain, before batching: L steps of token ids, or of C features.
struct Example {
  std::string name;                      ///< what the user knows it by: a path, a FASTA record, a region
  std::vector<int64_t> tokens;           ///< (L) ids; empty where `frames` is used
  std::vector<float> frames;             ///< (L, C) row-major; empty where `tokens` is used
  int64_t channels = 0;                  ///< C of `frames`
  int64_t label = -1;                    ///< class index; -1 unknown
  std::vector<int64_t> position_labels;  ///< (L) class index a step, -1 ignored; for per_position tasks

  int64_t length() const {
    return tokens.empty() && channels > 0 ? static_cast<int64_t>(frames.size()) / channels
                                          : static_cast<int64_t>(tokens.size());
  }
};

}  // namespace blockstate::data
