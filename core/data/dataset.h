// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/data/example.h"

namespace blockstate::data {

/// A fixed list of examples with random access. `get` may be called from several threads at once and always returns
/// the same example for the same index.
class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  /// Steps of example `index`, as cheaply as possible (for length bucketing); may be an upper bound.
  virtual int64_t length(int64_t index) const = 0;
  /// Reads example `index`. Error names file and record.
  virtual Example get(int64_t index) const = 0;
};

}  // namespace blockstate::data
