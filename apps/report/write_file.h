// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace blockstate::apps {

/// Writes `text` to `path` whole or not at all: to a temporary file beside it, which takes its place when all is on
/// disk. Error names the path and the system's reason.
void write_file(const std::string& path, std::string_view text);

}  // namespace blockstate::apps
