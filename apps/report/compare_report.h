// SPDX-License-Identifier: Apache-2.0
// What `blockstate compare` shows of its runs: a table on the terminal, a CSV file, one page of HTML.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace blockstate::apps {

inline constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

/// One optimiser step, or the mean over the steps since the last point.
struct CurvePoint {
  int64_t step = 0;
  int64_t tokens = 0;  ///< seen so far
  double train_loss = kUnknown;
  double seconds = kUnknown;  ///< since training began; kUnknown where not measured
};

struct ValidationPoint {
  int64_t step = 0;
  int64_t tokens = 0;
  double loss = kUnknown;
  double metric = kUnknown;
  double seconds = kUnknown;
};

/// One variant trained with one seed. Numbers that are not finite (a run that diverged) are shown as "n/a" and left out
/// of means.
struct ComparisonRun {
  std::string variant;
  int64_t seed = 0;
  int64_t parameters = 0;
  std::vector<CurvePoint> curve;            ///< steps rising
  std::vector<ValidationPoint> validation;  ///< steps rising
  double loss = kUnknown;                   ///< final, on the validation data
  double metric = kUnknown;                 ///< final, on the validation data
  double tokens_per_second = kUnknown;
  int64_t peak_memory_bytes = 0;
  double seconds = kUnknown;
};

struct Comparison {
  std::string title;
  std::string task;    ///< "classify"
  std::string metric;  ///< "accuracy"
  bool higher_is_better = true;
  std::string data;                 ///< "612 clips of 5 languages, 8 kHz; 130 held out"
  std::string budget;               ///< "600 steps of 16 examples, parameters matched within 2 %"
  std::string settings;             ///< the resolved run file, TOML
  std::vector<ComparisonRun> runs;  ///< of one variant together or not; variants are shown in order of first appearance
};

/// What came out, in a sentence or two: the best variant, by how much, and whether the seeds leave it in doubt. Empty
/// if no run has a metric.
std::string headline(const Comparison& comparison);

/// Aligned columns, one line a variant, best value of each column marked by '*'; ends in a newline. Lines get as long
/// as the names demand; nothing depends on colour.
std::string terminal_table(const Comparison& comparison);

/// One row a run: variant, seed, parameters, loss, the metric under its name, tokens_per_second, peak_memory_bytes,
/// seconds. RFC 4180 quoting, LF line ends; a number that is not finite is an empty field.
std::string csv_text(const Comparison& comparison);

/// One page that needs nothing else, neither files nor network.
std::string html_text(const Comparison& comparison);

/// Write the file whole or not at all (a temporary file beside it, then a rename). Error names the path and the reason.
void write_csv(const Comparison& comparison, const std::string& path);
void write_html(const Comparison& comparison, const std::string& path);

}  // namespace blockstate::apps
