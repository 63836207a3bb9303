// SPDX-License-Identifier: Apache-2.0
#include "genomics/block_index.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <vector>

namespace blockstate::genomics {
namespace {

constexpr uint64_t kBlocksChecked = 4096;
constexpr size_t kHeaderBytes = 18;  // of a block as bgzip writes it: gzip's header with one extra field, "BC"

struct Block {
  uint64_t packed = 0;    ///< byte of the file where it begins
  uint64_t unpacked = 0;  ///< byte of the text where it begins
};

uint64_t little_endian(const unsigned char* bytes, int count) {
  uint64_t value = 0;
  for (int i = count - 1; i >= 0; --i) {
    value = value << 8 | bytes[i];
  }
  return value;
}

bool read_at(std::ifstream& stream, uint64_t at, unsigned char* bytes, size_t count) {
  stream.clear();
  stream.seekg(static_cast<std::streamoff>(at));
  stream.read(reinterpret_cast<char*>(bytes), static_cast<std::streamsize>(count));
  return stream.good();
}

uint64_t size_of(std::ifstream& stream) {
  stream.clear();
  stream.seekg(0, std::ios::end);
  return static_cast<uint64_t>(std::max<std::streamoff>(0, stream.tellg()));
}

/// The file: a count, then for every block but the first, which begins at 0, both places.
bool read_index(const std::string& file, std::vector<Block>& blocks) {
  std::ifstream stream(file, std::ios::binary);
  const uint64_t bytes = stream ? size_of(stream) : 0;
  unsigned char numbers[16];
  if (bytes < 8 || (bytes - 8) % 16 != 0 || !read_at(stream, 0, numbers, 8) ||
      little_endian(numbers, 8) != (bytes - 8) / 16) {
    return false;
  }
  blocks.assign(1, {});
  for (uint64_t i = 0; i < (bytes - 8) / 16; ++i) {
    stream.read(reinterpret_cast<char*>(numbers), sizeof numbers);
    blocks.push_back({little_endian(numbers, 8), little_endian(numbers + 8, 8)});
  }
  return stream.good();
}

/// Bytes of the file that the block at `at` takes by its own header; 0 if no block begins there.
uint64_t packed_size(std::ifstream& stream, uint64_t at) {
  unsigned char header[kHeaderBytes];
  if (!read_at(stream, at, header, sizeof header)) {
    return 0;
  }
  const bool bgzip = header[0] == 0x1f && header[1] == 0x8b && header[12] == 'B' && header[13] == 'C';
  return bgzip ? little_endian(header + 16, 2) + 1 : 0;
}

/// The block at `block` is as long, packed and unpacked, as it is to `next`.
bool block_fits(std::ifstream& stream, const Block& block, const Block& next) {
  unsigned char unpacked[4];
  return packed_size(stream, block.packed) == next.packed - block.packed &&
         read_at(stream, next.packed - 4, unpacked, sizeof unpacked) &&
         little_endian(unpacked, 4) == next.unpacked - block.unpacked;
}

}  // namespace

std::string block_index_problem(const std::string& packed, const std::string& index) {
  std::vector<Block> blocks;
  if (!read_index(index, blocks)) {
    return "is no block index";
  }
  std::ifstream stream(packed, std::ios::binary);
  const uint64_t pairs = blocks.size() - 1;
  const uint64_t step = std::max<uint64_t>(1, pairs / kBlocksChecked);
  for (uint64_t i = 0; i < pairs; ++i) {
    const bool checked = i % step == 0 || i + 1 == pairs;
    const bool ordered = blocks[i + 1].packed > blocks[i].packed && blocks[i + 1].unpacked >= blocks[i].unpacked;
    if (!ordered || (checked && !block_fits(stream, blocks[i], blocks[i + 1]))) {
      return "puts a block where the FASTA does not have it";
    }
  }
  // Behind the block named last there is nothing but the empty block that marks the end.
  constexpr uint64_t kEndMarkBytes = 28;
  const uint64_t last = blocks.back().packed;
  const uint64_t bytes = size_of(stream);
  const uint64_t left = bytes - std::min(bytes, last);
  return left <= kEndMarkBytes + packed_size(stream, last) ? "" : "ends before the FASTA does";
}

}  // namespace blockstate::genomics
