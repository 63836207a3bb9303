// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <cstdio>
#include <new>

#include "apps/run_config.h"
#include "apps/session.h"
#include "apps/verbs.h"

namespace {

using namespace blockstate;
using namespace blockstate::apps;

/// -c, --set and the flags that are short for a --set.
void add_run_file(CLI::App& verb, RunFileArguments& arguments) {
  verb.add_option("-c,--config", arguments.config, "run file (TOML)");
  verb.add_option("--set", arguments.overrides, "override a key: --set train.steps=500")->allow_extra_args(false);
  const auto shortcut = [&](const char* flag, const char* key, const char* help) {
    verb.add_option_function<std::string>(
        flag,
        [&arguments, key](const std::string& value) { arguments.overrides.push_back(std::string(key) + "=" + value); },
        help);
  };
  shortcut("--device", "device", "auto, cpu, cuda or cuda:N");
  shortcut("--dtype", "dtype", "float32 or bfloat16");
  shortcut("--seed", "seed", "seed of everything random");
  shortcut("--threads", "threads", "CPU threads; 0: all");
}

void add_overrides(CLI::App& verb, std::vector<std::string>& overrides) {
  verb.add_option("--set", overrides, "override a data or task key of the run")->allow_extra_args(false);
}

/// --device and --dtype of verbs that take a trained model: it may run elsewhere than it was trained.
void add_device(CLI::App& verb, std::vector<std::string>& overrides) {
  for (const char* key : {"device", "dtype"}) {
    verb.add_option_function<std::string>(
        std::string("--") + key,
        [&overrides, key](const std::string& value) { overrides.push_back(std::string(key) + "=" + value); },
        std::string(key) == "device" ? "auto, cpu, cuda or cuda:N; default: the run's" : "float32 or bfloat16");
  }
  add_overrides(verb, overrides);
}

/// Of inputs that may be raw PCM.
template <class Arguments>
void add_raw(CLI::App& verb, Arguments& arguments) {
  verb.add_option("--raw-format", arguments.raw_format, "of -: s16le or f32le");
  verb.add_option("--raw-rate", arguments.raw_rate, "of -: Hz")->check(CLI::PositiveNumber);
}

void add_chunk(CLI::App& verb, int64_t& chunk, const char* help = "steps at once; changes memory, not the result") {
  verb.add_option("--chunk", chunk, help)->check(CLI::PositiveNumber);
}

void add_state(CLI::App& verb, StateArguments& state, const char* what) {
  verb.add_option("--save-state", state.save, std::string("write where the stream stands at the end, for ") + what);
  verb.add_option("--resume-state", state.resume, "go on from such a file, on any device");
}

void add_generate(CLI::App& verb, GenerateArguments& arguments) {
  verb.add_option("model", arguments.model, "a run's or checkpoint's directory")->required();
  verb.add_option("-o,--out", arguments.out, "FASTA, WAV or .npy by what the model reads; -: FASTA on standard output");
  verb.add_option("--length", arguments.length, "bases, samples or ids of each sample")
      ->required()
      ->check(CLI::PositiveNumber);
  verb.add_option("--prompt", arguments.prompt, "FASTA, WAV, ..., .npy of one record that the samples go on from");
  verb.add_option("--prompt-text", arguments.prompt_text, "bases that the samples go on from");
  verb.add_option("--count", arguments.count, "samples; WAV and .npy get a file each, OUT-1, OUT-2, ...")
      ->check(CLI::PositiveNumber);
  verb.add_option("--batch", arguments.batch, "samples made at once: faster on a GPU; may change a last bit")
      ->check(CLI::PositiveNumber);
  verb.add_option("--temperature", arguments.temperature,
                  "1: as the model says; lower: safer; 0: always the likeliest");
  verb.add_option("--top-k", arguments.top_k, "draw from the K likeliest only; 0, or more than there are: from all");
  verb.add_option("--top-p", arguments.top_p, "draw from the likeliest that together reach this probability");
  verb.add_option("--seed", arguments.seed, "the same seed gives the same samples; default: 1, or the state's");
  add_chunk(verb, arguments.chunk, "steps of the prompt at once; changes memory, not the result");
  add_state(verb, arguments.state, "one sample");
  add_device(verb, arguments.overrides);
}

void add_embed(CLI::App& verb, EmbedArguments& arguments) {
  verb.add_option("model", arguments.model, "a run's or checkpoint's directory")->required();
  verb.add_option("inputs", arguments.inputs, "WAV, FLAC, FASTA, FASTQ, ..., .npy of token ids, a manifest, or -")
      ->required();
  verb.add_option("-o,--out", arguments.out, ".npy file of rows (rows, d_model); names go beside it, FILE.npy.tsv")
      ->required();
  verb.add_option("--pooling", arguments.pooling, "the one row of a record: mean of its steps, or last")
      ->check(CLI::IsMember({"mean", "last"}));
  verb.add_flag("--per-position", arguments.per_position, "a row a step instead of a row a record");
  verb.add_option("--windows", arguments.windows, "cut inputs: LENGTH/HOP in samples or bases");
  add_chunk(verb, arguments.chunk);
  add_raw(verb, arguments);
  add_state(verb, arguments.state, "one input of one record");
  add_device(verb, arguments.overrides);
}

int run_program(int argc, char** argv) {
  CLI::App app("blockstate: long-context sequence models on raw audio and DNA", "blockstate");
  app.require_subcommand(1);
  app.set_version_flag("--version", BLOCKSTATE_VERSION);
  app.set_help_all_flag("--help-all", "help of all verbs");

  RunFileArguments run_file;
  bool help_config = false;
  CLI::App* train = app.add_subcommand("train", "train from a run file; the same command again resumes");
  add_run_file(*train, run_file);
  train->add_flag("--help-config", help_config, "print every key of a run file with its default");
  CLI::App* compare =
      app.add_subcommand("compare", "train variants on the same data and budget, and set them side by side");
  add_run_file(*compare, run_file);

  InspectArguments inspect;
  CLI::App* inspect_verb = app.add_subcommand("inspect", "names, shapes, parameter count and memory plan of a model");
  add_run_file(*inspect_verb, inspect.run);
  inspect_verb->add_option("model", inspect.model, "a run's or checkpoint's directory instead of a run file");
  inspect_verb->add_option("--length", inspect.length, "steps to plan for")->check(CLI::PositiveNumber);
  inspect_verb->add_option("--batch", inspect.batch, "examples to plan for")->check(CLI::PositiveNumber);

  EvalArguments eval;
  CLI::App* eval_verb = app.add_subcommand("eval", "metrics of a checkpoint on a data set");
  eval_verb->add_option("model", eval.model, "a run's or checkpoint's directory")->required();
  eval_verb->add_option("--data", eval.data, "data set; default: the run's own");
  eval_verb->add_option("--split", eval.split, "train, valid or test");
  add_chunk(*eval_verb, eval.chunk);
  eval_verb->add_flag("--json", eval.json, "one JSON object");
  add_device(*eval_verb, eval.overrides);

  ClassifyArguments classify;
  CLI::App* classify_verb = app.add_subcommand("classify", "labels and probabilities of files, as TSV");
  classify_verb->add_option("model", classify.model, "a run's or checkpoint's directory")->required();
  classify_verb->add_option("inputs", classify.inputs, "WAV, FLAC, FASTA, FASTQ, ..., a manifest, or - ")->required();
  classify_verb->add_option("--windows", classify.windows, "cut inputs: LENGTH/HOP in samples or bases");
  add_chunk(*classify_verb, classify.chunk);
  add_raw(*classify_verb, classify);
  add_state(*classify_verb, classify.state, "one input of one record");
  add_device(*classify_verb, classify.overrides);

  ScoreArguments score;
  CLI::App* score_verb = app.add_subcommand("score", "log-likelihood of records under a language model, as TSV");
  score_verb->add_option("model", score.model, "a run's or checkpoint's directory")->required();
  score_verb->add_option("inputs", score.inputs, "FASTA, FASTQ, WAV, .npy of token ids, or a manifest")->required();
  score_verb->add_flag("--per-position", score.per_position, "one line a symbol");
  score_verb->add_flag("--no-bos", score.no_bos, "feed no start token: the first symbol is not scored");
  add_chunk(*score_verb, score.chunk);
  add_raw(*score_verb, score);
  add_state(*score_verb, score.state, "one input of one record");
  score_verb->add_option("--logits", score.logits, "write logits (B, L, V) to this .npy file");
  add_device(*score_verb, score.overrides);

  GenerateArguments generate;
  CLI::App* generate_verb = app.add_subcommand("generate", "samples of a language model, as FASTA, WAV or .npy");
  add_generate(*generate_verb, generate);
  EmbedArguments embed;
  CLI::App* embed_verb = app.add_subcommand("embed", "features of records or of their steps, as .npy");
  add_embed(*embed_verb, embed);

  BenchArguments bench;
  CLI::App* bench_verb = app.add_subcommand("bench", "time ops and models against what the device can do at most");
  bench_verb
      ->add_option("what", bench.what, "ops, models, lengths (speed and memory against length) or all: ops and models")
      ->check(CLI::IsMember({"ops", "models", "lengths", "all"}));
  bench_verb->add_option("--device", bench.device, "auto, cpu, cuda or cuda:N");
  bench_verb->add_option("--dtype", bench.dtype, "float32 or bfloat16; default: bfloat16 on a GPU")
      ->check(CLI::IsMember({"float32", "bfloat16"}));
  bench_verb->add_option("--filter", bench.filter, "only those with this in their name or shape");
  bench_verb->add_option("--repetitions", bench.repetitions, "of an op; the median is shown")
      ->check(CLI::PositiveNumber);
  bench_verb->add_option("--json", bench.json, "write the table to this file too");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& problem) {
    return app.exit(problem) == 0 ? 0 : 2;
  }
  if (help_config) {
    std::fputs(config::help<RunConfig>().c_str(), stdout);
    return 0;
  }
  install_stop_handlers();
  if (train->parsed()) {
    return run_train(run_file);
  }
  if (compare->parsed()) {
    return run_compare(run_file);
  }
  if (inspect_verb->parsed()) {
    return run_inspect(inspect);
  }
  if (eval_verb->parsed()) {
    return run_eval(eval);
  }
  if (bench_verb->parsed()) {
    return run_bench(bench);
  }
  if (generate_verb->parsed()) {
    return run_generate(generate);
  }
  if (embed_verb->parsed()) {
    return run_embed(embed);
  }
  return classify_verb->parsed() ? run_classify(classify) : run_score(score);
}

}  // namespace

int main(int argc, char** argv) {
  int code = 1;
  try {
    code = run_program(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "error: out of memory; lower train.batch, data.length or model.d_model\n");
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "error: %s\n", problem.what());
  }
  if ((std::fflush(stdout) != 0 || std::ferror(stdout) != 0) && code == 0) {
    std::fprintf(stderr, "error: standard output could not be written; is the disk full?\n");
    code = 1;
  }
  return code;
}
