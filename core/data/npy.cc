// SPDX-License-Identifier: Apache-2.0
#include "core/data/npy.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace blockstate::data {
namespace {

constexpr char kMagic[] = "\x93NUMPY";
constexpr size_t kMagicSize = 6;

/// Text of a Python literal after `'key':` in the header, up to the next ',' outside parentheses.
std::string header_field(const std::string& header, const std::string& key, const std::string& file) {
  const size_t at = header.find("'" + key + "':");
  require(at != std::string::npos, file, ": the .npy header has no \"", key, "\"");
  size_t begin = at + key.size() + 3;
  size_t end = begin;
  for (int depth = 0; end < header.size() && (depth > 0 || (header[end] != ',' && header[end] != '}')); ++end) {
    depth += header[end] == '(' ? 1 : header[end] == ')' ? -1 : 0;
  }
  while (begin < end && header[begin] == ' ') {
    ++begin;
  }
  return header.substr(begin, end - begin);
}

Shape parse_shape(const std::string& text, const std::string& file) {
  Shape shape;
  int64_t size = -1;
  for (const char c : text) {
    if (c >= '0' && c <= '9') {
      size = std::max<int64_t>(size, 0) * 10 + (c - '0');
      require(size < (int64_t{1} << 48), file, ": the .npy header's shape ", text, " is too large");
    } else if (size >= 0) {
      shape.push_back(size);
      size = -1;
    }
  }
  return shape;
}

template <class Stored>
void widen(const std::string& bytes, Tensor& ids) {
  for (int64_t i = 0; i < ids.elements(); ++i) {
    Stored value;
    std::memcpy(&value, bytes.data() + static_cast<size_t>(i) * sizeof value, sizeof value);
    ids.data<int64_t>()[i] = static_cast<int64_t>(value);
  }
}

}  // namespace

Tensor read_npy_integers(const std::string& file) {
  require(!std::filesystem::is_directory(file), file, " is a directory; a .npy file was wanted");
  std::ifstream in(file, std::ios::binary);
  require(in.good(), file, ": no such file, or it cannot be read");
  const std::string all((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  require(all.size() >= 10 && all.compare(0, kMagicSize, kMagic, kMagicSize) == 0, file, " is not a .npy file");
  const size_t width = all[6] == 1 ? 2 : 4;
  size_t header_size = 0;
  for (size_t i = 0; i < width && 8 + i < all.size(); ++i) {
    header_size |= static_cast<size_t>(static_cast<unsigned char>(all[8 + i])) << (8 * i);
  }
  const size_t begin = 8 + width + header_size;
  require(begin <= all.size(), file, ": the .npy header is cut short");
  const std::string header = all.substr(8 + width, header_size);
  const std::string type = header_field(header, "descr", file);
  const Shape shape = parse_shape(header_field(header, "shape", file), file);
  require(header_field(header, "fortran_order", file) == "False" || shape.size() < 2, file,
          ": Fortran order is not read; save the array in C order");
  require(shape.size() == 1 || shape.size() == 2, file, ": token ids of shape (L) or (B, L) were wanted, found shape ",
          shape_text(shape));
  const std::string kind = type.size() >= 4 ? type.substr(type.size() - 3, 2) : "";
  require((kind[0] == 'i' || kind[0] == 'u' || kind[0] == 'b') && type.find('>') == std::string::npos, file,
          ": little-endian integers were wanted, found type ", type);
  const int64_t item = kind[1] - '0';
  Tensor ids = Tensor::empty(shape, DType::kInt64);
  const int64_t wanted = ids.elements() * item, found = static_cast<int64_t>(all.size() - begin);
  require(found >= wanted, file, " is cut short: its header promises ", wanted, " bytes of ids, the file holds ",
          found);
  const std::string bytes = all.substr(begin, static_cast<size_t>(wanted));
  const bool has_sign = kind[0] == 'i';
  switch (item) {
    case 1:
      has_sign ? widen<int8_t>(bytes, ids) : widen<uint8_t>(bytes, ids);
      break;
    case 2:
      has_sign ? widen<int16_t>(bytes, ids) : widen<uint16_t>(bytes, ids);
      break;
    case 4:
      has_sign ? widen<int32_t>(bytes, ids) : widen<uint32_t>(bytes, ids);
      break;
    case 8:
      widen<int64_t>(bytes, ids);
      break;
    default:
      fail(file, ": integers of ", item, " bytes are not read");
  }
  return ids;
}

std::string npy_header(const Shape& shape, DType dtype, size_t least) {
  require(dtype == DType::kFloat32 || dtype == DType::kInt64, "a .npy file of ", dtype_name(dtype), " is not written");
  std::string sizes;
  for (const int64_t size : shape) {
    sizes += std::to_string(size) + ",";
  }
  const std::string text = join("{'descr': '", dtype == DType::kFloat32 ? "<f4" : "<i8",
                                "', 'fortran_order': False, 'shape': (", sizes, "), }");
  constexpr size_t kBefore = kMagicSize + 4;  // version and length of the text
  const size_t size = std::max(least, (kBefore + text.size() + 1 + 63) / 64 * 64);
  const size_t length = size - kBefore;
  std::string header(kMagic, kMagicSize);
  header += {1, 0, static_cast<char>(length & 255), static_cast<char>(length >> 8)};
  header += text;
  header.resize(size - 1, ' ');
  return header + '\n';
}

void write_npy(const std::string& file, const Tensor& tensor) {
  const std::string header = npy_header(tensor.shape(), tensor.dtype());
  const std::string part = file + ".part";
  {
    std::ofstream out(part, std::ios::binary);
    require(out.good(), part, " cannot be written");
    const Tensor packed = tensor.packed();
    out << header;
    out.write(reinterpret_cast<const char*>(packed.bytes()), packed.elements() * dtype_size(packed.dtype()));
    out.close();
    if (!out.good()) {
      std::remove(part.c_str());
      fail(file, " could not be written whole; is the disk full?");
    }
  }
  std::filesystem::rename(part, file);
}

NpyTokens::NpyTokens(const std::string& file, int64_t length) : file_(file), ids_(read_npy_integers(file)) {
  if (ids_.rank() == 1) {
    ids_ = ids_.reshape({1, -1});
  }
  for (int64_t row = 0; row < ids_.size(0); ++row) {
    const int64_t* ids = ids_.data<int64_t>() + row * ids_.size(1);
    int64_t count = ids_.size(1);
    while (count > 0 && ids[count - 1] < 0) {
      --count;
    }
    for (int64_t i = 0; i < count; ++i) {
      require(ids[i] >= 0, file, ": row ", row, " has id ", ids[i], " at ", i,
              "; ids below 0 may only stand at a row's end, as padding");
      vocabulary_ = std::max(vocabulary_, ids[i] + 1);
    }
    const int64_t piece = length > 0 ? length : std::max<int64_t>(1, count);
    for (int64_t begin = 0; begin < count; begin += piece) {
      pieces_.push_back({row, begin, std::min(piece, count - begin)});
    }
  }
  require(!pieces_.empty(), file, " holds no token ids");
}

Example NpyTokens::get(int64_t index) const {
  const Piece& piece = pieces_[static_cast<size_t>(index)];
  const int64_t* ids = ids_.data<int64_t>() + piece.row * ids_.size(1) + piece.begin;
  Example example;
  example.name = join(file_, ":", piece.row, piece.begin > 0 ? join(":", piece.begin) : "");
  example.tokens.assign(ids, ids + piece.count);
  return example;
}

}  // namespace blockstate::data
