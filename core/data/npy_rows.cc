// SPDX-License-Identifier: Apache-2.0
#include "core/data/npy_rows.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/base/check.h"
#include "core/data/npy.h"

namespace blockstate::data {
namespace {

constexpr int64_t kHeaderBytes = 128;  // room for any shape of two 64-bit sizes

}  // namespace

NpyRows::NpyRows(const std::string& file, DType dtype, int64_t width)
    : file_(file), dtype_(dtype), width_(width), handle_(std::fopen(file.c_str(), "wb"), std::fclose) {
  check(handle_ != nullptr);
  write_header();
}

void NpyRows::append(const float* values, int64_t rows) { append_bytes(values, rows, DType::kFloat32); }
void NpyRows::append(const int64_t* values, int64_t rows) { append_bytes(values, rows, DType::kInt64); }

void NpyRows::append_bytes(const void* values, int64_t rows, DType dtype) {
  require(dtype == dtype_, file_, " holds ", dtype_name(dtype_), ", not ", dtype_name(dtype));
  const auto row = static_cast<size_t>(std::max<int64_t>(1, width_) * dtype_size(dtype));
  check(std::fseek(handle_.get(), kHeaderBytes + rows_ * static_cast<int64_t>(row), SEEK_SET) == 0);
  check(std::fwrite(values, row, static_cast<size_t>(rows), handle_.get()) == static_cast<size_t>(rows));
  check(std::fflush(handle_.get()) == 0);  // the rows before the shape that promises them
  rows_ += rows;
  write_header();
}

void NpyRows::keep(int64_t rows) {
  if (rows < rows_) {
    rows_ = rows;
    write_header();
    const int64_t bytes = kHeaderBytes + rows_ * std::max<int64_t>(1, width_) * dtype_size(dtype_);
    check(::ftruncate(::fileno(handle_.get()), bytes) == 0);
  }
}

void NpyRows::write_header() {
  const std::string header =
      npy_header(width_ > 0 ? Shape{rows_, width_} : Shape{rows_}, dtype_, static_cast<size_t>(kHeaderBytes));
  check(std::fseek(handle_.get(), 0, SEEK_SET) == 0);
  check(std::fwrite(header.data(), 1, header.size(), handle_.get()) == header.size());
  check(std::fflush(handle_.get()) == 0);
}

void NpyRows::finish() {
  check(::fsync(::fileno(handle_.get())) == 0);
  check(std::fclose(handle_.release()) == 0);
}

void NpyRows::check(bool good) const {
  if (!good) {
    fail(file_, ": cannot write: ", std::strerror(errno));
  }
}

}  // namespace blockstate::data
