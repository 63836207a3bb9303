// SPDX-License-Identifier: Apache-2.0
#include "tests/genomics/genomics_files.h"

#include <htslib/bgzf.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>
#include <stdexcept>

#include "core/base/check.h"

namespace blockstate::test {
namespace {

void write_through_htslib(const std::string& file, std::string_view text, const char* mode, size_t block) {
  BGZF* handle = bgzf_open(file.c_str(), mode);
  bool good = handle != nullptr;
  for (size_t at = 0; good && at < text.size(); at += block) {
    const std::string_view piece = text.substr(at, block);
    good =
        bgzf_write(handle, piece.data(), piece.size()) == static_cast<ssize_t>(piece.size()) && bgzf_flush(handle) == 0;
  }
  if (!good || bgzf_close(handle) != 0) {
    throw std::runtime_error("cannot write " + file);
  }
}

}  // namespace

std::string random_bases(int64_t length, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string bases(static_cast<size_t>(length), 'N');
  std::generate(bases.begin(), bases.end(), [&] { return "ACGT"[random() % 4]; });
  return bases;
}

std::string wrapped(std::string_view bases, size_t width, std::string_view line_end) {
  std::string text;
  for (size_t at = 0; at < bases.size(); at += width) {
    text.append(bases.substr(at, width)).append(line_end);
  }
  return text;
}

void write_bgzf(const std::string& file, std::string_view text, size_t block) {
  write_through_htslib(file, text, "w", block);
}

void write_gzip(const std::string& file, std::string_view text) {
  write_through_htslib(file, text, "wg", text.size() + 1);
}

std::string read_bytes(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace blockstate::test
