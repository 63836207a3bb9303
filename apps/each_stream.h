// SPDX-License-Identifier: Apache-2.0
// Inputs of the verbs whose streams can be left and gone on with.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "apps/stream_state.h"
#include "apps/verbs.h"

namespace blockstate::apps {

/// What is read, and how.
struct StreamInputs {
  std::vector<std::string> files;
  Windows windows;
  RawFormat raw;
};

/// for_each_piece, with a state: body(stream, state) goes on from `state`, a fresh one for each piece, and leaves in it
/// where the piece ended. With --save-state or --resume-state there must be exactly one piece, and what goes wrong is
/// thrown. Returns the number of reports.
int for_each_stream(const LoadedModel& loaded, const std::string& verb, const StreamInputs& inputs,
                    const StateArguments& files, const std::function<void(InputStream&, StreamState&)>& body);

}  // namespace blockstate::apps
