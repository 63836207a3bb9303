// SPDX-License-Identifier: Apache-2.0
#include "apps/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include "apps/format.h"
#include "core/base/check.h"

namespace blockstate::apps {
namespace {

constexpr std::string_view kGap = "  ";
constexpr std::string_view kEraseLine = "\r\x1b[K";
constexpr int64_t kNarrowestBar = 8;
constexpr int64_t kWidestBar = 30;
constexpr int64_t kNoLimit = INT64_MAX / 2;

bool is_terminal() {
  const char* kind = std::getenv("TERM");
  return isatty(STDERR_FILENO) == 1 && kind != nullptr && std::string_view(kind) != "dumb";
}

std::string step_text(const ProgressOptions& options, const ProgressReading& reading) {
  return options.total > 0 ? join(reading.step, "/", options.total) : join("step ", reading.step);
}

std::string time_text(double elapsed, std::optional<double> remaining) {
  return remaining ? join(format_duration(elapsed), ", ", format_duration(*remaining), " left")
                   : format_duration(elapsed);
}

std::string bar_text(const ProgressOptions& options, const ProgressReading& reading, int64_t width) {
  const double share = std::clamp(static_cast<double>(reading.step) / static_cast<double>(options.total), 0.0, 1.0);
  const int64_t cells = width - 2;
  const auto full = static_cast<int64_t>(std::floor(share * static_cast<double>(cells)));
  return join("[", std::string(static_cast<size_t>(full), '#'), std::string(static_cast<size_t>(cells - full), '.'),
              "]");
}

}  // namespace

StderrSink::StderrSink() : terminal_(is_terminal()) {}

void StderrSink::write(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

int64_t StderrSink::columns() const {
  winsize size{};
  // Some terminals (serial lines, ssh without a size) say 0.
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

double StderrSink::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string progress_line(const ProgressOptions& options, const ProgressReading& reading, double elapsed,
                          std::optional<double> remaining, int64_t columns) {
  struct Part {
    int priority;  // 0 is dropped last
    std::string text;
  };
  std::vector<Part> parts;  // in the order of the line
  parts.push_back({5, options.label});
  parts.push_back({0, step_text(options, reading)});
  parts.push_back({2, reading.loss ? join("loss ", format_significant(*reading.loss, 4)) : ""});
  parts.push_back({3, reading.metric ? join(reading.metric_name, " ", format_significant(*reading.metric, 4)) : ""});
  parts.push_back({4, reading.tokens_per_second ? join(format_short(*reading.tokens_per_second), " tokens/s") : ""});
  parts.push_back({1, time_text(elapsed, remaining)});
  const auto gap = static_cast<int64_t>(kGap.size());
  int64_t used = -gap;
  std::array<bool, 6> kept{};
  for (int priority = 0; priority < 6; ++priority) {
    const auto part = std::find_if(parts.begin(), parts.end(), [&](const Part& p) { return p.priority == priority; });
    const int64_t width = display_width(part->text);
    if (width > 0 && used + gap + width <= columns) {
      kept[static_cast<size_t>(priority)] = true;
      used += gap + width;
    }
  }
  const int64_t bar = std::min(kWidestBar, columns - used - gap);
  std::string line;
  for (const Part& part : parts) {
    if (!kept[static_cast<size_t>(part.priority)]) {
      continue;
    }
    if (part.priority == 0 && options.total > 0 && bar >= kNarrowestBar && columns != kNoLimit) {
      line += join(line.empty() ? "" : kGap, bar_text(options, reading, bar));
    }
    line += join(line.empty() ? "" : kGap, part.text);
  }
  return clip(line, columns);
}

Progress::Progress(ProgressSink& sink, ProgressOptions options)
    : sink_(sink), options_(std::move(options)), start_(sink.seconds()) {
  last_.step = options_.first_step;
}

Progress::~Progress() {
  if (line_open_) {
    sink_.write("\n");
  }
}

void Progress::update(const ProgressReading& reading) {
  last_ = reading;
  const double now = sink_.seconds();
  const double wait = sink_.updates_in_place() ? options_.redraw_seconds : options_.line_seconds;
  if (!shown_at_ || now - *shown_at_ >= wait) {
    show(now);
  }
}

void Progress::message(std::string_view text) {
  erase();
  sink_.write(join(text, "\n"));
  if (sink_.updates_in_place() && shown_at_) {
    show(sink_.seconds());
  }
}

void Progress::finish() {
  if (shown_step_ != last_.step || sink_.updates_in_place()) {
    show(sink_.seconds());
  }
  if (line_open_) {
    sink_.write("\n");
    line_open_ = false;
  }
  shown_at_.reset();
}

void Progress::show(double now) {
  const double elapsed = now - start_;
  if (sink_.updates_in_place()) {
    // The last column stays free: a character there makes some terminals wrap.
    const int64_t columns = std::max<int64_t>(1, sink_.columns() - 1);
    sink_.write(join(kEraseLine, progress_line(options_, last_, elapsed, remaining(now), columns)));
    line_open_ = true;
  } else {
    sink_.write(join(progress_line(options_, last_, elapsed, remaining(now), kNoLimit), "\n"));
  }
  shown_at_ = now;
  shown_step_ = last_.step;
}

void Progress::erase() {
  if (line_open_) {
    sink_.write(kEraseLine);
    line_open_ = false;
  }
}

std::optional<double> Progress::remaining(double now) const {
  const int64_t done = last_.step - options_.first_step;
  if (options_.total <= 0 || done <= 0 || last_.step >= options_.total) {
    return std::nullopt;
  }
  return (now - start_) / static_cast<double>(done) * static_cast<double>(options_.total - last_.step);
}

}  // namespace blockstate::apps
