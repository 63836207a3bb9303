// SPDX-License-Identifier: Apache-2.0
// NumPy .npy files, format 1.0 to 3.0 (numpy.lib.format): integer arrays of token ids in, float arrays out.
#pragma once

#include <string>

#include "core/data/dataset.h"
#include "core/tensor/tensor.h"

namespace blockstate::data {

/// Reads an array of any integer type as int64. Error: not a .npy file, floats, Fortran order with more than one
/// dimension, big-endian, cut short.
Tensor read_npy_integers(const std::string& file);

/// Magic, version 1.0 and header of a float32 or int64 array, filled with blanks to a multiple of 64 bytes, at least
/// `least` of them.
std::string npy_header(const Shape& shape, DType dtype, size_t least = 0);

/// Writes a float32 or int64 tensor; whole or not at all.
void write_npy(const std::string& file, const Tensor& tensor);

/// Rows of an integer array (L) or (B, L) as examples; ids below 0 are padding at a row's end. Longer rows are cut into
/// pieces of `length` where that is not 0.
class NpyTokens : public Dataset {
 public:
  NpyTokens(const std::string& file, int64_t length);
  int64_t size() const override { return static_cast<int64_t>(pieces_.size()); }
  int64_t length(int64_t index) const override { return pieces_[static_cast<size_t>(index)].count; }
  Example get(int64_t index) const override;
  /// Largest id and one more.
  int64_t vocabulary() const { return vocabulary_; }

 private:
  struct Piece {
    int64_t row, begin, count;
  };
  std::string file_;
  Tensor ids_;
  int64_t vocabulary_ = 0;
  std::vector<Piece> pieces_;
};

}  // namespace blockstate::data
