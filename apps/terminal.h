// SPDX-License-Identifier: Apache-2.0
// How far a long job is: one line that updates itself on a terminal, plain lines now and then elsewhere. Everything
// goes to standard error, so that results on standard output stay clean.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace blockstate::apps {

/// Where progress is shown and what time it is; tests bring their own.
class ProgressSink {
 public:
  virtual ~ProgressSink() = default;
  virtual void write(std::string_view text) = 0;
  /// True for a terminal that understands carriage return and "erase to end of line".
  virtual bool updates_in_place() const = 0;
  /// Width of the terminal now; asked before each line is drawn, because windows are resized.
  virtual int64_t columns() const = 0;
  /// Of a clock that never goes back.
  virtual double seconds() const = 0;
};

/// Standard error. TERM=dumb, or anything that is no terminal, gets plain lines.
class StderrSink final : public ProgressSink {
 public:
  StderrSink();
  void write(std::string_view text) override;
  bool updates_in_place() const override { return terminal_; }
  int64_t columns() const override;
  double seconds() const override;

 private:
  bool terminal_;
};

struct ProgressOptions {
  std::string label;            ///< "train", or a variant's name; may be empty
  int64_t first_step = 0;       ///< steps already done when this run began (a resumed run); not counted for the speed
  int64_t total = 0;            ///< 0: not known, then neither bar nor remaining time
  double redraw_seconds = 0.1;  ///< least time between two drawings on a terminal
  double line_seconds = 10;     ///< least time between two plain lines
};

struct ProgressReading {
  int64_t step = 0;  ///< steps done
  std::optional<double> loss;
  std::string metric_name;
  std::optional<double> metric;
  std::optional<double> tokens_per_second;
};

class Progress {
 public:
  Progress(ProgressSink& sink, ProgressOptions options);
  /// Ends an unfinished line, so that what follows (an error, say) begins on a fresh one.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// To be called after every step; cheap when it is not yet time to show anything.
  void update(const ProgressReading& reading);
  /// A line of its own, such as a result of validation; the updating line moves below it.
  void message(std::string_view text);
  /// Shows the last reading and ends the line.
  void finish();

 private:
  void show(double now);
  void erase();
  /// Seconds until `total` at the mean speed so far; none before the first step is done.
  std::optional<double> remaining(double now) const;

  ProgressSink& sink_;
  ProgressOptions options_;
  ProgressReading last_;
  double start_;
  std::optional<double> shown_at_;
  int64_t shown_step_ = -1;
  bool line_open_ = false;
};

/// One line of at most `columns` columns; what matters least goes first where room is short: bar, label, speed, metric,
/// loss, time. The step is always there, if it fits at all.
std::string progress_line(const ProgressOptions& options, const ProgressReading& reading, double elapsed,
                          std::optional<double> remaining, int64_t columns);

}  // namespace blockstate::apps
