// SPDX-License-Identifier: Apache-2.0
// The safetensors format, version 0.x (github.com/huggingface/safetensors): 8 bytes little-endian header length, a JSON
// header {name: {dtype, shape, data_offsets}}, then the tensors' elements, little-endian and row-major.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "core/train/named_tensors.h"

namespace blockstate::train {

using TextMap = std::map<std::string, std::string>;

/// Writes the file and waits until it is on the disk (fsync). The same tensors give the same bytes. Error names the
/// file and what the system said.
void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors, const TextMap& metadata = {});

/// An open file whose header has been read and found sound: every tensor lies inside the file, its size fits its shape
/// and type, tensors neither overlap nor leave gaps. Error on opening otherwise; it names file and tensor.
class SafetensorsFile {
 public:
  struct Entry {
    std::string dtype;  ///< as the file spells it: "F32"
    Shape shape;
    int64_t begin = 0;  ///< byte of the file
    int64_t bytes = 0;
  };

  explicit SafetensorsFile(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::map<std::string, Entry>& entries() const { return entries_; }
  const TextMap& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return path_; }
  /// Reads one tensor. Error if there is none of this name (with the nearest one), or its type is not F64, F32, BF16,
  /// I64, I32 or U8.
  Tensor read(const std::string& name) const;
  NamedTensors read_all() const;

 private:
  void read_at(void* to, int64_t offset, int64_t bytes, const std::string& what) const;
  void parse_header(const std::string& header, int64_t data_begin, int64_t file_size);

  std::filesystem::path path_;
  int descriptor_ = -1;
  std::map<std::string, Entry> entries_;
  TextMap metadata_;
};

}  // namespace blockstate::train
