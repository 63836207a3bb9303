// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "core/base/dtype.h"

namespace blockstate::data {

/// A .npy file that grows row by row, in constant memory. Each append leaves a valid file: the rows are written first,
/// then the shape in the header, so that an interrupted program leaves what it had.
class NpyRows {
 public:
  /// Replaces what was there. `width` numbers a row, (rows, width); 0: an array (rows). float32 or int64. Error names
  /// the file and what the system said.
  NpyRows(const std::string& file, DType dtype, int64_t width);
  void append(const float* values, int64_t rows);
  void append(const int64_t* values, int64_t rows);
  /// Drops all rows from `rows` on.
  void keep(int64_t rows);
  /// Waits until the file is on the disk. No call may follow.
  void finish();

  int64_t rows() const { return rows_; }

 private:
  void append_bytes(const void* values, int64_t rows, DType dtype);
  void write_header();
  void check(bool good) const;

  std::string file_;
  DType dtype_;
  int64_t width_;
  int64_t rows_ = 0;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> handle_;
};

}  // namespace blockstate::data
