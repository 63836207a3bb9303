// SPDX-License-Identifier: Apache-2.0
#include "apps/report/write_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "core/base/check.h"

namespace blockstate::apps {
namespace {

bool write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      return false;
    }
    text.remove_prefix(static_cast<size_t>(written));
  }
  return ::fsync(descriptor) == 0;
}

}  // namespace

void write_file(const std::string& path, std::string_view text) {
  const std::string temporary = join(path, ".tmp", static_cast<int64_t>(::getpid()));
  const int descriptor = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  require(descriptor >= 0, path, " cannot be written: ", std::strerror(errno));
  const bool complete = write_all(descriptor, text);
  int reason = complete ? 0 : errno;
  if (::close(descriptor) != 0 && reason == 0) {
    reason = errno;
  }
  if (reason == 0 && std::rename(temporary.c_str(), path.c_str()) != 0) {
    reason = errno;
  }
  if (reason != 0) {
    ::unlink(temporary.c_str());
    fail(path, " cannot be written: ", std::strerror(reason));
  }
}

}  // namespace blockstate::apps
