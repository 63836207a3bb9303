// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "apps/format.h"
#include "apps/terminal.h"

namespace blockstate::apps {
namespace {

struct FakeSink final : ProgressSink {
  void write(std::string_view text) override { written += text; }
  bool updates_in_place() const override { return terminal; }
  int64_t columns() const override { return width; }
  double seconds() const override { return now; }
  std::string take() { return std::exchange(written, ""); }

  std::string written;
  bool terminal = true;
  int64_t width = 100;
  double now = 1000;
};

const std::string kErase = "\r\x1b[K";

ProgressReading reading_at(int64_t step) { return {step, 0.4123, "accuracy", 0.934, 12345.0}; }

TEST_CASE("on a terminal one line updates itself", "[cpu]") {
  FakeSink sink;
  {
    Progress progress(sink, {"train", 0, 200});
    sink.now += 10;
    progress.update(reading_at(50));
    CHECK(sink.take() ==
          kErase +
              "train  [####...............]  50/200  loss 0.4123  accuracy 0.9340  12.3k tokens/s  10 s, 30 s left");
    sink.now += 0.05;
    progress.update(reading_at(51));
    CHECK(sink.take().empty());
    sink.now += 0.06;
    progress.update(reading_at(52));
    CHECK(sink.take().find("52/200") != std::string::npos);
    progress.message("saved");
    CHECK(sink.take().rfind(kErase + "saved\n" + kErase + "train", 0) == 0);
    sink.now += 30;
    progress.update(reading_at(200));
    progress.finish();
    const std::string end = sink.take();
    CHECK(end.find("200/200") != std::string::npos);
    CHECK(end.find("left") == std::string::npos);
    CHECK(end.back() == '\n');
    progress.message("done");
    CHECK(sink.take() == "done\n");
  }
  CHECK(sink.take().empty());
}

TEST_CASE("an open line is ended when the job breaks off", "[cpu]") {
  FakeSink sink;
  {
    Progress progress(sink, {"train", 0, 200});
    progress.update(reading_at(1));
    sink.take();
  }
  CHECK(sink.take() == "\n");
}

TEST_CASE("elsewhere plain lines come at intervals", "[cpu]") {
  FakeSink sink;
  sink.terminal = false;
  Progress progress(sink, {"mamba", 100, 200, 0.1, 10});
  for (int64_t step = 101; step <= 200; ++step) {
    sink.now += 0.3;
    progress.update(reading_at(step));
  }
  progress.finish();
  const std::string text = sink.take();
  CHECK(text.find_first_of("\r\x1b") == std::string::npos);
  // 30 s at one line in 10 s (steps of 0.3 s: every 34th), the first step and the last.
  CHECK(std::count(text.begin(), text.end(), '\n') == 4);
  CHECK(text.rfind("mamba  101/200  loss 0.4123  accuracy 0.9340  12.3k tokens/s  0.30 s, 30 s left\n", 0) == 0);
  CHECK(text.find("mamba  135/200") != std::string::npos);
  CHECK(text.find("\nmamba  200/200  loss 0.4123  accuracy 0.9340  12.3k tokens/s  30 s\n") != std::string::npos);
  progress.message("plain");
  CHECK(sink.take() == "plain\n");
}

TEST_CASE("a resumed run reckons with its own speed", "[cpu]") {
  FakeSink sink;
  Progress progress(sink, {"", 900, 1000});
  sink.now += 10;
  progress.update({910, {}, "", {}, {}});
  CHECK_THAT(sink.take(), Catch::EndsWith("910/1000  10 s, 1 min 30 s left"));
  Progress idle(sink, {"", 900, 1000});
  idle.update({900, {}, "", {}, {}});
  CHECK_THAT(sink.take(), Catch::EndsWith("900/1000  0.00 s"));
}

TEST_CASE("an unknown total has neither bar nor end", "[cpu]") {
  CHECK(progress_line({"score"}, {7, 0.5, "", {}, {}}, 3, {}, 100) == "score  step 7  loss 0.5000  3.0 s");
}

TEST_CASE("a line never is wider than the terminal, and drops what matters least", "[cpu]") {
  const ProgressOptions options{"音声", 0, 200};
  int64_t longest = 0;
  for (int64_t columns = 0; columns <= 140; ++columns) {
    const std::string line = progress_line(options, reading_at(50), 10, 30.0, columns);
    INFO(columns << ": " << line);
    CHECK(display_width(line) <= columns);
    CHECK((line.find("50/200") != std::string::npos) == (columns >= 6));
    longest = std::max(longest, display_width(line));
  }
  // Everything, with the widest bar.
  CHECK(longest == display_width("音声    50/200  loss 0.4123  accuracy 0.9340  12.3k tokens/s  10 s, 30 s left") + 30);
  CHECK(progress_line(options, reading_at(50), 10, 30.0, 40) == "50/200  loss 0.4123  10 s, 30 s left");
  FakeSink sink;
  sink.width = 0;
  Progress progress(sink, options);
  progress.update(reading_at(50));
  CHECK(sink.take() == kErase);
}

TEST_CASE("the bar is empty at the start, full at the end, and never beyond", "[cpu]") {
  const auto bar = [](int64_t step) { return progress_line({"", 0, 10}, {step, {}, "", {}, {}}, 0, {}, 30); };
  CHECK(bar(0) == "[..............]  0/10  0.00 s");
  CHECK(bar(9) == "[############..]  9/10  0.00 s");
  CHECK(bar(10) == "[#############]  10/10  0.00 s");
  CHECK(bar(12) == "[#############]  12/10  0.00 s");
}

}  // namespace
}  // namespace blockstate::apps
