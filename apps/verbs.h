// SPDX-License-Identifier: Apache-2.0
// The verbs of the program, a file each. They return the exit code: 0 only when everything asked for was done. Results
// go to standard output, progress and warnings to standard error; errors are thrown.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace blockstate::apps {

/// Exit code after Ctrl-C, as a shell expects it.
inline constexpr int kInterrupted = 130;

struct RunFileArguments {
  std::string config;                  ///< -c
  std::vector<std::string> overrides;  ///< --set, and the flags that are short for one
};

int run_train(const RunFileArguments& arguments);
int run_compare(const RunFileArguments& arguments);

struct InspectArguments {
  RunFileArguments run;
  std::string model;  ///< a run or checkpoint instead of a run file
  int64_t length = 0;
  int64_t batch = 0;
};
int run_inspect(const InspectArguments& arguments);

struct EvalArguments {
  std::string model;
  std::string data;
  std::string split = "test";
  bool json = false;
  int64_t chunk = 0;
  std::vector<std::string> overrides;
};
int run_eval(const EvalArguments& arguments);

/// Of verbs whose streams can be left and gone on with.
struct StateArguments {
  std::string save;    ///< file to write
  std::string resume;  ///< file to go on from
  bool any() const { return !save.empty() || !resume.empty(); }
};

struct ClassifyArguments {
  std::string model;
  std::vector<std::string> inputs;
  std::string windows;  ///< "LEN/HOP" in samples or bases
  std::string raw_format;
  int64_t raw_rate = 0;
  int64_t chunk = 0;
  StateArguments state;
  std::vector<std::string> overrides;
};
int run_classify(const ClassifyArguments& arguments);

struct ScoreArguments {
  std::string model;
  std::vector<std::string> inputs;
  bool per_position = false;
  bool no_bos = false;
  std::string raw_format;
  int64_t raw_rate = 0;
  int64_t chunk = 0;
  std::string logits;  ///< .npy file to write
  StateArguments state;
  std::vector<std::string> overrides;
};
int run_score(const ScoreArguments& arguments);

struct EmbedArguments {
  std::string model;
  std::vector<std::string> inputs;
  std::string out;               ///< .npy file to write, and .npy.tsv beside it
  std::string pooling = "mean";  ///< or last
  bool per_position = false;
  std::string windows;
  std::string raw_format;
  int64_t raw_rate = 0;
  int64_t chunk = 0;
  StateArguments state;
  std::vector<std::string> overrides;
};
int run_embed(const EmbedArguments& arguments);

struct GenerateArguments {
  std::string model;
  std::string out = "-";                   ///< FASTA, WAV or .npy; -: FASTA on standard output
  std::string prompt;                      ///< file of one record
  std::optional<std::string> prompt_text;  ///< bases
  int64_t length = 0;                      ///< bases, samples or ids of each sample
  int64_t count = 1;
  int64_t batch = 1;                  ///< samples made at once
  std::optional<double> temperature;  ///< these four: else the resumed state's, else the usual ones
  std::optional<int64_t> top_k;
  std::optional<double> top_p;
  std::optional<int64_t> seed;
  int64_t chunk = 0;  ///< of the prompt
  StateArguments state;
  std::vector<std::string> overrides;
};
int run_generate(const GenerateArguments& arguments);

struct BenchArguments {
  std::string what = "all";  ///< ops, models or all
  std::string device = "auto";
  std::string dtype;   ///< empty: bfloat16 on a GPU, float32 on the CPU
  std::string filter;  ///< part of a name or shape
  std::string json;    ///< file to write
  int64_t repetitions = 20;
};
int run_bench(const BenchArguments& arguments);

}  // namespace blockstate::apps
