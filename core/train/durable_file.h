// SPDX-License-Identifier: Apache-2.0
// Files that are on the disk when a function returns. Every Error names the path and what the system said.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace blockstate::train {

/// A new file. What was there of that name is replaced.
class DurableFile {
 public:
  explicit DurableFile(const std::filesystem::path& path);
  /// Closes; a file that was not finished stays as far as it was written.
  ~DurableFile();
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  void write(const void* data, int64_t bytes);
  /// fsync and close.
  void finish();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

void write_text(const std::filesystem::path& path, std::string_view text);
std::string read_text(const std::filesystem::path& path);
/// Makes names created or renamed in a directory last.
void sync_directory(const std::filesystem::path& directory);
/// Puts directory `from` in the place of `to`, which may exist; no moment has half of it. What was there of old is
/// removed.
void replace_directory(const std::filesystem::path& from, const std::filesystem::path& to);
/// "PATH: cannot VERB: No space left on device", from errno.
[[noreturn]] void fail_system(const std::filesystem::path& path, std::string_view verb);

}  // namespace blockstate::train
