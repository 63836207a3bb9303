// SPDX-License-Identifier: Apache-2.0
#include "apps/each_stream.h"

#include <cstdio>
#include <filesystem>

#include "apps/audio_stream.h"
#include "core/base/check.h"

namespace blockstate::apps {
namespace {

/// A state stands between two steps of one record at the model's own rate.
void require_one_stream(const LoadedModel& loaded, const StreamInputs& inputs) {
  require(inputs.files.size() == 1, "--save-state and --resume-state are for one stream; ", inputs.files.size(),
          " inputs were given");
  require(inputs.windows.length == 0, "--windows cuts a record in pieces; a state is that of a whole one: leave out ",
          "--windows, or --save-state and --resume-state");
  const std::string& file = inputs.files.front();
  require(!is_table(file), file, " lists records, each a stream of its own; --save-state and --resume-state want a ",
          "file of one record");
  require_stream(loaded);
  if (loaded.run.data.kind == DataKind::kAudio) {
    const int64_t rate = audio_rate(file, inputs.raw), wanted = loaded.run.data.sample_rate;
    require(rate == wanted || rate == 0, file, ": has ", rate, " Hz, the model ", wanted,
            " Hz; the state of a change of rate ", "cannot be kept, so --save-state and --resume-state want ", wanted,
            " Hz");
  }
}

}  // namespace

int for_each_stream(const LoadedModel& loaded, const std::string& verb, const StreamInputs& inputs,
                    const StateArguments& files, const std::function<void(InputStream&, StreamState&)>& body) {
  if (!files.any()) {
    return for_each_piece(loaded.run, loaded.task, inputs.files, inputs.windows, inputs.raw, [&](InputStream& stream) {
      StreamState state;
      state.place.start = stream.piece().start;
      body(stream, state);
    });
  }
  require_one_stream(loaded, inputs);
  const std::string& file = inputs.files.front();
  StreamState state;
  if (!files.resume.empty()) {
    state = StreamState::read(files.resume, verb, loaded);
  }
  const std::unique_ptr<InputStream> stream =
      open_input_stream(loaded.run, loaded.task, file, inputs.windows, inputs.raw);
  stream->keep(state.place);
  require(stream->next_piece(), file, " holds no record");
  const std::string name = stream->piece().name;
  if (files.resume.empty()) {
    state.place.start = stream->piece().start;
  }
  body(*stream, state);
  const std::string start = state.place.start;
  state.place = stream->place();
  state.place.start = start;
  std::fflush(stdout);
  require(!stream->next_piece(), file, " holds more than the record ", name,
          "; --save-state and --resume-state are for one stream: give a file of one record");
  if (!files.save.empty()) {
    note_growing(*loaded.model, state.position);
    state.write(files.save, verb, loaded);
  }
  return 0;
}

}  // namespace blockstate::apps
