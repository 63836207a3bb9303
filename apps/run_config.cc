// SPDX-License-Identifier: Apache-2.0
#include "apps/run_config.h"

#include "core/base/check.h"

namespace blockstate::apps {
namespace {

const config::EnumNames<DataKind> kDataNames = {{"audio", DataKind::kAudio},
                                                {"dna", DataKind::kDna},
                                                {"tokens", DataKind::kTokens},
                                                {"synthetic", DataKind::kSynthetic}};
const config::EnumNames<TaskKind> kTaskNames = {{"classify", TaskKind::kClassify},
                                                {"per_position", TaskKind::kPerPosition},
                                                {"language_model", TaskKind::kLanguageModel}};
const config::EnumNames<model::Recompute> kRecomputeNames = {
    {"none", model::Recompute::kNone}, {"cheap", model::Recompute::kCheap}, {"all", model::Recompute::kAll}};
const config::EnumNames<MatchKind> kMatchNames = {{"none", MatchKind::kNone}, {"parameters", MatchKind::kParameters}};

bool fits(const DataConfig& data) {
  if (data.kind == DataKind::kAudio) {
    return data.input.empty() || data.input == "waveform" || data.input == "mulaw" || data.input == "linear8";
  }
  return data.input.empty() || (data.kind == DataKind::kDna && (data.input == "base" || data.input == "kmer"));
}

}  // namespace

void DataConfig::visit(config::Visitor& v) {
  v.field("kind", kind, "what is read", kDataNames);
  v.field("train", train, "a manifest (.tsv, .csv, .gz of one), a FASTA/FASTQ file, or a .npy file of token ids");
  v.field("valid", valid, "the same for validation; empty: the rows of `train` whose split is valid, or a part of it");
  v.field("test", test, "the same for the final test; empty: the rows of `train` whose split is test, if any");
  v.field("valid_fraction", valid_fraction, "part of `train` held out where nothing else says what to validate on",
          config::at_least(0).below(1));
  v.field("regions", regions, "dna: BED file of regions of the FASTA `train`; column 4 is the label");
  v.field("valid_regions", valid_regions, "dna: the same for `valid`, or for `train` where `valid` is empty");
  v.field("test_regions", test_regions, "dna: the same for `test`, or for `train` where `test` is empty");
  v.field("columns", columns, "names of a manifest's columns, by role: { sequence = \"seq\", label = \"class\" }");
  v.field("header", header, "column names of a manifest that has no header line");
  v.field("separator", separator, "one character between a manifest's fields");
  v.check("separator", separator.size() == 1, "must be one character");
  v.field("slice", slice, "dna: start, end and strand of a manifest apply to its inline sequences too");
  v.field("input", input, "audio: waveform, mulaw or linear8 (default waveform); dna: base or kmer (default base)");
  v.check("input", fits(*this), "must be waveform, mulaw or linear8 for audio, base or kmer for dna");
  v.field("sample_rate", sample_rate, "audio: Hz; files at another rate are resampled", config::at_least(1));
  v.field("length", length, "samples or bases of one example at most; 0: all", config::at_least(0));
  v.field("hop", hop, "dna: bases between windows of a longer sequence; 0: `length`", config::at_least(0));
  v.field("patch", patch, "audio waveform: samples a step (a strided convolution)", config::at_least(1));
  v.field("kmer", kmer, "dna, input = \"kmer\": bases a token", config::at_least(2).at_most(8));
  v.field("lower_case", lower_case, "dna: soft-masked bases are read as upper case, or as N",
          config::one_of({"upper", "mask"}));
  v.field("vocabulary", vocabulary, "tokens: number of ids; 0: the largest in `train` and one more",
          config::at_least(0));
  v.field("synthetic", synthetic, "synthetic: the task", config::one_of({"selective_copying", "induction_heads"}));
  v.field("symbols", symbols, "synthetic: symbols of the alphabet", config::at_least(2));
  v.field("copies", copies, "selective_copying: symbols to remember", config::at_least(1));
  v.field("examples", examples, "synthetic: examples of an epoch", config::at_least(1));
}

void TaskConfig::visit(config::Visitor& v) {
  v.field("kind", kind, "what the model learns to say", kTaskNames);
  v.field("label_smoothing", label_smoothing, "part of each target spread over all classes",
          config::at_least(0).below(1));
  v.field("classes", classes, "class labels in order; empty: the labels of the training data, sorted");
}

void TrainConfig::visit(config::Visitor& v) {
  v.field("steps", steps, "optimiser steps", config::at_least(1));
  v.field("tokens", tokens, "budget in steps of the sequences instead (samples, patches, bases); 0: `steps` holds",
          config::at_least(0));
  v.field("batch", batch, "examples a step", config::at_least(1));
  v.field("chunk", chunk, "exact gradients over chunks of this many steps, memory set by the chunk; 0: in one piece",
          config::at_least(0), {{"auto", kAuto}});
  v.field("truncate", truncate, "no gradient from a chunk to the one before: one pass less, and no longer exact");
  v.check("truncate", !truncate || chunk != 0, "needs train.chunk");
  v.field("carry_on_host", carry_on_host, "the carries at chunk edges wait in host memory");
  v.field("keep", keep, "MiB for outputs of scans and attention, which chunks then need not compute twice",
          config::at_least(0), {{"auto", kAuto}});
  v.field("recompute", recompute,
          "activation checkpointing: what backward computes anew; cheap is all but scans and attention",
          kRecomputeNames);
  v.field("recompute_sublayers", recompute_sublayers, "names in model.blocks that `recompute` is for; empty: all");
  v.field("pack", pack, "short records share rows of this many steps; 0: a row for each", config::at_least(0));
  v.field("eval_every", eval_every, "steps between validations; 0: only at the end", config::at_least(0));
  v.field("save_every", save_every, "steps between checkpoints; 0: only at the end", config::at_least(0));
  v.field("log_every", log_every, "steps between lines of metrics.jsonl", config::at_least(1));
  v.field("eval_batch", eval_batch, "examples at once in validation; 0: as `batch`", config::at_least(0));
  v.field("bucket", bucket, "batches of examples of similar length");
  optimizer.visit(v);
  schedule.visit(v);
  length.visit(v);
}

void RunPlace::visit(config::Visitor& v) {
  v.field("dir", dir, "directory of everything the run writes");
  v.check("dir", !dir.empty(), "must name a directory");
}

void CompareConfig::visit(config::Visitor& v) {
  v.field("match", match, "parameters: widths are scaled until the counts agree within 2 %", kMatchNames);
  v.field("seeds", seeds, "seeds to train each variant with; empty: `seed` alone");
  v.tables("variants", variants, "each variant is a set of overrides: variants.NAME = { model.blocks = [...] }");
}

void RunConfig::visit(config::Visitor& v) {
  v.field("seed", seed, "of initial values, order of examples and dropout", config::at_least(0));
  v.field("device", device, "auto, cpu, cuda or cuda:N");
  v.field("dtype", dtype, "of activations: float32; bfloat16 on CUDA",
          config::one_of({"float32", "float64", "bfloat16"}));
  v.field("threads", threads, "CPU threads; 0: all. Results do not depend on it", config::at_least(0));
  v.section("data", data, "what is read");
  v.section("task", task, "what is learnt");
  v.section("model", model, "the model");
  v.section("train", train, "how it is trained");
  v.section("run", run, "where it is kept");
  v.section("compare", compare, "variants set side by side by `blockstate compare`");
}

RunConfig run_config_from(const config::Value& table) {
  RunConfig run;
  config::read(table, run);
  return run;
}

RunConfig load_run_config(const std::string& file, const std::vector<std::string>& overrides) {
  config::Value table = file.empty() ? config::Value(config::Value::Table{}) : config::parse_toml_file(file);
  for (const std::string& override : overrides) {
    config::apply_override(table, override);
  }
  return run_config_from(table);
}

}  // namespace blockstate::apps
