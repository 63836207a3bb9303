// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "apps/input_stream.h"

namespace blockstate::apps {

/// A recording, raw PCM on standard input ("-"), or the recordings of a manifest, each a piece or cut into windows.
/// Start and end of a piece are seconds. What is held in memory is one window, or without windows one chunk.
std::unique_ptr<InputStream> open_audio_stream(const RunConfig& run, const std::string& file, const Windows& windows,
                                               const RawFormat& raw);

/// Hz of a recording, or as said of raw PCM on standard input (0: not said). Error where it can be read only once.
int64_t audio_rate(const std::string& file, const RawFormat& raw);

}  // namespace blockstate::apps
