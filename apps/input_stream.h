// SPDX-License-Identifier: Apache-2.0
// Inputs of `classify`, `score`, `embed` and prompts as they lie, read piece by piece and chunk by chunk.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/data_source.h"
#include "core/model/model.h"

namespace blockstate::apps {

/// Cuts of long inputs, in samples or bases; length 0: every record whole.
struct Windows {
  int64_t length = 0;
  int64_t hop = 0;
};

/// "LENGTH" or "LENGTH/HOP"; empty: none. Error otherwise.
Windows parse_windows(const std::string& text);

/// How "-" (standard input) is read where it is raw PCM; empty format: "-" is a file of a known form.
struct RawFormat {
  std::string format;  ///< "s16le" or "f32le"
  int64_t rate = 0;    ///< Hz
};

/// Where the input of a stream stands that is left and gone on with.
struct StreamPlace {
  std::string start;           ///< Piece::start of the stream's beginning
  int64_t units = 0;           ///< samples, bases or ids read so far, those below included
  std::vector<float> samples;  ///< read, but too few for a step
  std::string bases;           ///< the same of DNA
};

/// A record, or a window of one.
struct Piece {
  std::string name;
  std::string start;  ///< seconds for audio, 0-based for bases
  std::string end;    ///< known once the piece has been read to its end
};

/// Some steps of the current piece.
struct StepRun {
  std::vector<int64_t> tokens;
  std::vector<float> frames;
  int64_t channels = 0;
  int64_t length = 0;
  bool filled = false;  ///< of a stream that is kept (InputStream::keep): one step, its end filled up with zeros
  /// As one row that stands at step `offset` of its record.
  model::ModelInput input(const model::Model& model, int64_t offset) const;
};

class InputStream {
 public:
  virtual ~InputStream() = default;
  /// Goes to the next piece; false at the end. Errors name file and record.
  virtual bool next_piece() = 0;
  /// At most `steps` further steps of the piece; nullopt at its end.
  virtual std::optional<StepRun> read(int64_t steps) = 0;
  virtual const Piece& piece() const = 0;
  /// Whether the pieces after one that could not be read can still be had.
  virtual bool survives_errors() const { return false; }
  /// To be called before the first piece, where a state is saved or resumed: the first piece goes on from `place`, and
  /// what fills no whole step at its end is left in place() (and given as a StepRun that is `filled`).
  virtual void keep(const StreamPlace& place);
  /// After the last step of the piece.
  virtual StreamPlace place() const { return {}; }
};

/// Opens each input and calls body(stream) for each of its pieces. What cannot be read is reported on standard error
/// and the rest goes on. Stops early where stop_requested(). Returns the number of reports.
int for_each_piece(const RunConfig& run, const TaskShape& task, const std::vector<std::string>& files,
                   const Windows& windows, const RawFormat& raw, const std::function<void(InputStream&)>& body);

/// Recordings and FASTA records of any length are read in constant memory, the latter by lines. Manifests (.tsv, .csv)
/// give a piece a row.
std::unique_ptr<InputStream> open_input_stream(const RunConfig& run, const TaskShape& task, const std::string& file,
                                               const Windows& windows, const RawFormat& raw);

}  // namespace blockstate::apps
