// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <filesystem>

#include "apps/format.h"
#include "apps/match_width.h"
#include "apps/report/compare_report.h"
#include "apps/session.h"
#include "apps/training.h"
#include "apps/verbs.h"
#include "core/base/check.h"

namespace blockstate::apps {
namespace {

namespace fs = std::filesystem;

struct Variant {
  std::string name;
  RunConfig run;
};

bool good_directory_name(const std::string& name) {
  return !name.empty() &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") ==
             std::string::npos &&
         name[0] != '.';
}

/// Every variant with its overrides applied and, where that is asked for, with its width matched to the first one's
/// parameters.
std::vector<Variant> make_variants(const config::Value& table, const RunConfig& base) {
  require(!base.compare.variants.empty(), "compare.variants is empty: name at least one, such as ",
          "variants.mamba = { model.blocks = [\"(mamba gated_mlp) * 4\"] }");
  std::vector<Variant> variants;
  for (const config::Value::Entry& entry : base.compare.variants) {
    require(good_directory_name(entry.key), "compare.variants: \"", entry.key,
            "\" names a directory; use letters, digits, '_', '-' and '.'");
    config::Value merged = table;
    config::merge(merged, entry.value);
    variants.push_back({entry.key, run_config_from(merged)});
    variants.back().run.compare = {};
  }
  // Every variant's data and model are looked at before the first one is trained.
  int64_t wanted = 0;
  for (Variant& variant : variants) {
    const TrainingData data = open_training_data(variant.run);
    check_files(data);
    const int64_t count = count_parameters(variant.run.model, data.task.shape);
    wanted = wanted == 0 ? count : wanted;
    if (base.compare.match == MatchKind::kParameters) {
      variant.run.model = match_parameters(variant.run.model, data.task.shape, wanted);
    }
  }
  return variants;
}

std::string budget_text(const RunConfig& run) {
  std::string text = run.train.tokens > 0 ? format_count(run.train.tokens) + " sequence steps"
                                          : format_count(run.train.steps) + " steps";
  text += " of " + format_count(run.train.batch) + " examples";
  if (run.compare.match == MatchKind::kParameters) {
    text += ", parameters matched within 2 %";
  }
  return text;
}

std::string title_of(const std::string& config_file) {
  return config_file.empty() ? "comparison" : fs::path(config_file).stem().string();
}

}  // namespace

int run_compare(const RunFileArguments& arguments) {
  config::Value table = arguments.config.empty() ? config::Value() : config::parse_toml_file(arguments.config);
  for (const std::string& override : arguments.overrides) {
    config::apply_override(table, override);
  }
  const RunConfig base = run_config_from(table);
  prepare_process(base);
  const std::vector<Variant> variants = make_variants(table, base);
  const std::vector<int64_t> seeds = base.compare.seeds.empty() ? std::vector<int64_t>{base.seed} : base.compare.seeds;

  Comparison comparison;
  comparison.title = title_of(arguments.config);
  comparison.data = describe(base, open_training_data(base));
  comparison.budget = budget_text(base);
  comparison.settings = config::to_toml(config::write(base));
  StderrSink sink;
  int64_t finished = 0;
  const int64_t total = static_cast<int64_t>(variants.size() * seeds.size());
  for (const Variant& variant : variants) {
    for (const int64_t seed : seeds) {
      RunConfig run = variant.run;
      run.seed = seed;
      run.run.dir = (fs::path(base.run.dir) / variant.name / ("seed-" + std::to_string(seed))).string();
      const std::string label = seeds.size() > 1 ? variant.name + " seed " + std::to_string(seed) : variant.name;
      TrainingOutcome outcome = run_training(run, label, sink);
      if (!outcome.finished) {
        std::fprintf(stderr,
                     "stopped at step %s of %s; %lld of %lld runs are done. The same command goes on from there.\n",
                     format_count(outcome.step).c_str(), label.c_str(), static_cast<long long>(finished),
                     static_cast<long long>(total));
        return kInterrupted;
      }
      ++finished;
      outcome.result.variant = variant.name;
      outcome.result.seed = seed;
      comparison.metric = outcome.judged_on.empty() ? outcome.metric : outcome.judged_on + " " + outcome.metric;
      comparison.higher_is_better = outcome.higher_is_better;
      comparison.runs.push_back(std::move(outcome.result));
    }
  }
  comparison.task = base.task.kind == TaskKind::kClassify        ? "classify"
                    : base.task.kind == TaskKind::kLanguageModel ? "language_model"
                                                                 : "per_position";
  const fs::path directory = base.run.dir;
  write_csv(comparison, (directory / "compare.csv").string());
  write_html(comparison, (directory / "compare.html").string());
  std::fputs(terminal_table(comparison).c_str(), stdout);
  std::printf("\n%s and %s\n", (directory / "compare.html").c_str(), (directory / "compare.csv").c_str());
  return 0;
}

}  // namespace blockstate::apps
