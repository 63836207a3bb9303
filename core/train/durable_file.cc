// SPDX-License-Identifier: Apache-2.0
#include "core/train/durable_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

#include "core/base/check.h"

namespace blockstate::train {

void fail_system(const std::filesystem::path& path, std::string_view verb) {
  const int error = errno;
  fail(path.string(), ": cannot ", verb, ": ", std::strerror(error));
}

DurableFile::DurableFile(const std::filesystem::path& path) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) {
    fail_system(path_, "write");
  }
}

DurableFile::~DurableFile() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
  }
}

void DurableFile::write(const void* data, int64_t bytes) {
  constexpr int64_t kMost = int64_t{1} << 30;  // Linux writes less than 2 GiB a call
  const auto* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(descriptor_, from, static_cast<size_t>(std::min(bytes, kMost)));
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written < 0) {
      fail_system(path_, "write");
    }
    from += written;
    bytes -= written;
  }
}

void DurableFile::finish() {
  if (::fsync(descriptor_) != 0) {
    fail_system(path_, "write");
  }
  const int descriptor = descriptor_;
  descriptor_ = -1;
  // Some file systems tell only here that they are full.
  if (::close(descriptor) != 0) {
    fail_system(path_, "write");
  }
}

void write_text(const std::filesystem::path& path, std::string_view text) {
  DurableFile file(path);
  file.write(text.data(), static_cast<int64_t>(text.size()));
  file.finish();
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path)) {
    errno = std::filesystem::is_directory(path) ? EISDIR : errno;
    fail_system(path, "read");
  }
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void sync_directory(const std::filesystem::path& directory) {
  const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) {
    fail_system(directory, "open");
  }
  const int failed = ::fsync(descriptor);
  const int error = errno;
  ::close(descriptor);
  // Some network file systems cannot sync a directory; they say so with EINVAL.
  if (failed != 0 && error != EINVAL) {
    errno = error;
    fail_system(directory, "sync");
  }
}

void replace_directory(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) {
    return;
  }
  if (errno != ENOTEMPTY && errno != EEXIST) {
    fail_system(to, "write");
  }
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) != 0) {
    fail_system(to, "replace");
  }
  std::filesystem::remove_all(from);
}

}  // namespace blockstate::train
