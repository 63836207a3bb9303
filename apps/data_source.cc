// SPDX-License-Identifier: Apache-2.0
#include "apps/data_source.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "apps/format.h"
#include "audio/audio_dataset.h"
#include "core/base/check.h"
#include "core/data/manifest.h"
#include "core/data/npy.h"
#include "core/data/subset.h"
#include "core/data/synthetic.h"
#include "core/train/objective.h"
#include "genomics/genomics_dataset.h"

namespace blockstate::apps {
namespace {

constexpr int64_t kCodes = 256;
constexpr const char* kSplitNames[] = {"train", "valid", "test"};

using Classes = std::vector<std::string>;
using Datasets = std::shared_ptr<data::Dataset>;

bool ends_with(std::string text, const std::vector<std::string>& endings) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  if (text.size() > 3 && text.substr(text.size() - 3) == ".gz") {
    text.resize(text.size() - 3);
  }
  return std::any_of(endings.begin(), endings.end(), [&](const std::string& ending) {
    return text.size() >= ending.size() && text.compare(text.size() - ending.size(), ending.size(), ending) == 0;
  });
}

bool is_sequence_file(const std::string& file) {
  return ends_with(file, {".fa", ".fasta", ".fna", ".ffn", ".fas", ".fq", ".fastq"});
}

data::ManifestOptions manifest_options(const RunConfig& run) {
  data::ManifestOptions options;
  options.columns = run.data.columns;
  options.header = run.data.header;
  options.separator = run.data.separator[0];
  options.need_label = run.task.kind == TaskKind::kClassify;
  return options;
}

genomics::GenomicsOptions genomics_options(const RunConfig& run) {
  genomics::GenomicsOptions options;
  options.length = run.data.length;
  options.hop = run.data.hop;
  options.first_window_only = run.task.kind == TaskKind::kClassify;
  options.lower_case = genomics::parse_lower_case(run.data.lower_case);
  options.kmer = run.data.input == "kmer" ? run.data.kmer : 1;
  options.slice = run.data.slice;
  options.files.warn = [](const std::string& text) { std::fprintf(stderr, "warning: %s\n", text.c_str()); };
  return options;
}

/// A manifest's rows of one split, where it has such a column; all rows otherwise.
data::Manifest rows_of(data::Manifest manifest, const std::string& split) {
  const bool has_splits =
      std::any_of(manifest.rows.begin(), manifest.rows.end(), [](const auto& row) { return !row.split.empty(); });
  if (has_splits) {
    std::erase_if(manifest.rows, [&](const data::ManifestRow& row) { return row.split != split; });
  }
  return manifest;
}

bool names_split(const data::Manifest& manifest, const std::string& split) {
  return std::any_of(manifest.rows.begin(), manifest.rows.end(), [&](const auto& row) { return row.split == split; });
}

Datasets from_manifest(const RunConfig& run, const data::Manifest& manifest, const Classes& classes) {
  if (run.data.kind == DataKind::kAudio) {
    return std::make_shared<audio::AudioDataset>(audio::audio_items(manifest, classes), audio_options(run));
  }
  return genomics::GenomicsDataset::from_manifest(manifest, classes, genomics_options(run));
}

Datasets synthetic(const RunConfig& run, SplitKind split) {
  data::SyntheticOptions options;
  options.length = run.data.length > 0 ? run.data.length : 256;
  options.symbols = run.data.symbols;
  options.copies = run.data.copies;
  options.examples = split == SplitKind::kTrain ? run.data.examples : std::max<int64_t>(64, run.data.examples / 8);
  options.seed = static_cast<uint64_t>(run.seed) * 3 + static_cast<uint64_t>(split);
  if (run.data.synthetic == "induction_heads") {
    return std::make_shared<data::InductionHeads>(options);
  }
  return std::make_shared<data::SelectiveCopying>(options);
}

const std::string& file_of(const RunConfig& run, SplitKind split) {
  return split == SplitKind::kTrain ? run.data.train : split == SplitKind::kValid ? run.data.valid : run.data.test;
}

const std::string& regions_of(const RunConfig& run, SplitKind split) {
  return split == SplitKind::kTrain   ? run.data.regions
         : split == SplitKind::kValid ? run.data.valid_regions
                                      : run.data.test_regions;
}

/// A file of one split, in whatever form it has. Null where a manifest has no row of that split.
Datasets open_file(const RunConfig& run, const Classes& classes, const std::string& file, SplitKind split) {
  if (run.data.kind == DataKind::kTokens) {
    return std::make_shared<data::NpyTokens>(file, run.data.length);
  }
  if (run.data.kind == DataKind::kDna && !regions_of(run, split).empty()) {
    return genomics::GenomicsDataset::from_regions(file, regions_of(run, split), classes, genomics_options(run));
  }
  if (run.data.kind == DataKind::kDna && is_sequence_file(file)) {
    return genomics::GenomicsDataset::from_fasta(file, genomics_options(run));
  }
  const data::Manifest manifest =
      rows_of(data::read_manifest(file, manifest_options(run)), kSplitNames[static_cast<int>(split)]);
  return manifest.rows.empty() ? nullptr : from_manifest(run, manifest, classes);
}

Classes find_classes(const RunConfig& run) {
  Classes found;
  if (!run.data.regions.empty()) {
    found = genomics::region_labels(genomics::read_bed(run.data.regions));
  } else if (!is_sequence_file(run.data.train)) {
    found = data::manifest_labels(rows_of(data::read_manifest(run.data.train, manifest_options(run)), "train"));
  }
  require(!found.empty(), "task.kind = \"classify\" needs labels: ", run.data.train,
          " has none; give a manifest with a label column, or data.regions with labels in column 4");
  if (!run.task.classes.empty()) {
    require(run.task.classes.size() >= 2, "task.classes names one class only; at least two were wanted");
    for (const std::string& label : run.task.classes) {
      require(std::count(run.task.classes.begin(), run.task.classes.end(), label) == 1, "task.classes names \"", label,
              "\" twice");
      require(std::find(found.begin(), found.end(), label) != found.end(), "class \"", label,
              "\" of task.classes has no example in ", run.data.train);
    }
    return run.task.classes;
  }
  require(found.size() >= 2, "task.kind = \"classify\" needs at least two labels; ", run.data.train, " has only \"",
          found[0], "\"");
  return found;
}

TaskShape find_task(const RunConfig& run) {
  TaskShape task;
  const DataConfig& data = run.data;
  model::ModelShape& shape = task.shape;
  if (data.kind == DataKind::kAudio) {
    data.input.empty() || data.input == "waveform" ? shape.channels = data.patch : shape.vocabulary = kCodes;
  } else if (data.kind == DataKind::kDna) {
    shape.vocabulary =
        genomics::DnaTokenizer(genomics::parse_lower_case(data.lower_case), data.input == "kmer" ? data.kmer : 1)
            .vocabulary();
  } else if (data.kind == DataKind::kTokens) {
    shape.vocabulary = data.vocabulary > 0 ? data.vocabulary : data::NpyTokens(data.train, 0).vocabulary();
  } else {
    shape.vocabulary = data.symbols + (data.synthetic == "induction_heads" ? 1 : 2);
  }
  switch (run.task.kind) {
    case TaskKind::kClassify:
      require(data.kind == DataKind::kAudio || data.kind == DataKind::kDna, "task.kind = \"classify\" needs labelled ",
              "audio or dna; data.kind is ", data.kind == DataKind::kTokens ? "tokens" : "synthetic");
      shape.head = model::HeadKind::kClassify;
      task.classes = find_classes(run);
      shape.outputs = static_cast<int64_t>(task.classes.size());
      break;
    case TaskKind::kLanguageModel:
      require(shape.vocabulary > 0,
              "task.kind = \"language_model\" needs tokens; for audio set data.input = \"mulaw\" ", "or \"linear8\"");
      shape.head = model::HeadKind::kLanguageModel;
      shape.outputs = shape.vocabulary;
      shape.start_token = true;
      break;
    case TaskKind::kPerPosition:
      require(data.kind == DataKind::kSynthetic, "task.kind = \"per_position\" needs a label a step, which only ",
              "data.kind = \"synthetic\" gives so far");
      shape.head = model::HeadKind::kPerPosition;
      shape.outputs = data.symbols;
      break;
  }
  return task;
}

/// Labels are neither needed nor read.
RunConfig without_labels(RunConfig run) {
  run.task.kind = TaskKind::kLanguageModel;
  return run;
}

void check_classes_have_examples(const data::Manifest& manifest, const Classes& classes, const std::string& split) {
  std::set<std::string> seen;
  for (const data::ManifestRow& row : manifest.rows) {
    seen.insert(row.label);
  }
  for (const std::string& label : classes) {
    require(seen.count(label) > 0, "class \"", label, "\" has no example in split ", split, " of ", manifest.file);
  }
}

}  // namespace

audio::AudioOptions audio_options(const RunConfig& run) {
  audio::AudioOptions options;
  options.sample_rate = run.data.sample_rate;
  options.length = run.data.length;
  options.input = audio::parse_audio_input(run.data.input.empty() ? "waveform" : run.data.input);
  options.patch = run.data.patch;
  audio::validate(options);
  return options;
}

bool is_table(const std::string& file) { return ends_with(file, {".tsv", ".csv"}); }

std::shared_ptr<data::Dataset> open_data(const RunConfig& run, const TaskShape& task, const std::string& file,
                                         SplitKind split) {
  if (run.data.kind == DataKind::kSynthetic) {
    return synthetic(run, split);
  }
  // Regions without a file of their own lie in the training FASTA.
  const std::string& own =
      file_of(run, split).empty() && !regions_of(run, split).empty() ? run.data.train : file_of(run, split);
  const std::string& chosen = file.empty() ? own : file;
  // Where no file is named for a split, the rows of the training manifest may name it.
  const bool fallback = chosen.empty();
  if (!fallback) {
    Datasets data = open_file(run, task.classes, chosen, split);
    require(data != nullptr, chosen, " has a split column but no row of split ", kSplitNames[static_cast<int>(split)]);
    return data;
  }
  const bool manifest = run.data.kind != DataKind::kTokens && run.data.regions.empty() &&
                        !is_sequence_file(run.data.train) && !run.data.train.empty();
  if (!manifest) {
    return nullptr;
  }
  const data::Manifest rows = data::read_manifest(run.data.train, manifest_options(run));
  const std::string name = kSplitNames[static_cast<int>(split)];
  return names_split(rows, name) ? from_manifest(run, rows_of(rows, name), task.classes) : nullptr;
}

TrainingData open_training_data(const RunConfig& run) {
  require(
      !run.data.train.empty() || run.data.kind == DataKind::kSynthetic,
      "data.train is not set: name a manifest, a FASTA or a .npy file in the run file, or with --set data.train=FILE");
  TrainingData data;
  data.task = find_task(run);
  data.train = open_data(run, data.task, "", SplitKind::kTrain);
  if (run.task.kind == TaskKind::kClassify && run.data.regions.empty()) {
    const data::Manifest rows = rows_of(data::read_manifest(run.data.train, manifest_options(run)), "train");
    check_classes_have_examples(rows, data.task.classes, "train");
  }
  data.valid = open_data(run, data.task, "", SplitKind::kValid);
  data.test = open_data(run, data.task, "", SplitKind::kTest);
  if (data.valid == nullptr && run.data.valid_fraction > 0 && data.train->size() > 1) {
    // Not the run's seed: every variant and every seed is judged on the same examples.
    std::tie(data.train, data.valid) = data::hold_out(data.train, run.data.valid_fraction, 0);
  }
  return data;
}

std::shared_ptr<data::Dataset> open_input(const RunConfig& run, const std::string& file) {
  if (run.data.kind == DataKind::kTokens) {
    return std::make_shared<data::NpyTokens>(file, 0);
  }
  require(run.data.kind != DataKind::kSynthetic, "a model of a synthetic task has no files to read");
  RunConfig whole = without_labels(run);
  whole.data.length = 0;
  return from_manifest(whole, data::read_manifest(file, manifest_options(whole)), {});
}

std::vector<audio::AudioItem> open_recordings(const RunConfig& run, const std::string& file) {
  return audio::audio_items(data::read_manifest(file, manifest_options(without_labels(run))), {});
}

void check_files(const TrainingData& data) {
  for (const Datasets& set : {data.train, data.valid, data.test}) {
    for (int64_t i = 0; set != nullptr && i < set->size(); ++i) {
      set->length(i);
    }
  }
}

data::BatchOptions batch_options(const TaskShape& task, bool labels) {
  data::BatchOptions options;
  options.targets = train::target_kind(task.shape.head);
  if (!labels && options.targets != data::TargetKind::kNextToken) {
    options.targets = data::TargetKind::kNone;
  }
  options.start_token = task.shape.start_token ? task.shape.vocabulary : -1;
  return options;
}

std::string describe(const RunConfig& run, const TrainingData& data) {
  const char* unit = run.data.kind == DataKind::kAudio ? " clips"
                     : run.data.kind == DataKind::kDna ? " sequences"
                                                       : " examples";
  std::string text = format_count(data.train->size()) + unit;
  if (!data.task.classes.empty()) {
    text += " of " + std::to_string(data.task.classes.size()) + " classes";
  }
  if (data.valid != nullptr) {
    text += "; " + format_count(data.valid->size()) + " for validation";
  }
  if (data.test != nullptr) {
    text += "; " + format_count(data.test->size()) + " for the test";
  }
  return text;
}

}  // namespace blockstate::apps
