// SPDX-License-Identifier: Apache-2.0
#include "apps/run_log.h"

#include "core/base/check.h"

namespace blockstate::apps {
namespace {

using config::Value;

double number(const Value& line, const char* key) {
  const Value* found = line.find(key);
  return found == nullptr || !(found->is(Value::Kind::kNumber) || found->is(Value::Kind::kInteger)) ? kUnknown
                                                                                                    : found->number();
}

int64_t integer(const Value& line, const char* key) {
  const Value* found = line.find(key);
  return found != nullptr && found->is(Value::Kind::kInteger) ? found->integer() : 0;
}

/// Calls visit(text, value) for each whole line; a line cut short by a crash ends the file.
template <class Visit>
void each_line(const std::filesystem::path& path, const Visit& visit) {
  std::ifstream in(path);
  std::string text;
  while (std::getline(in, text) && !in.eof()) {
    visit(text, config::parse_json(text, path.string()));
  }
}

Value base_line(const train::StepEvent& event, double seconds) {
  Value line{Value::Table{}};
  line.set("step", Value(event.step));
  line.set("tokens", Value(event.tokens));
  line.set("seconds", Value(seconds));
  return line;
}

}  // namespace

RunLog::RunLog(const std::filesystem::path& run_directory, int64_t resumed_from)
    : path_(run_directory / "metrics.jsonl") {
  std::string kept;
  each_line(path_, [&](const std::string& text, const Value& line) {
    if (integer(line, "step") <= resumed_from) {
      kept += text + "\n";
      earlier_seconds_ = number(line, "seconds");
    }
  });
  const std::filesystem::path part = path_.string() + ".part";
  {
    std::ofstream out(part, std::ios::binary);
    out << kept;
    out.close();
    require(out.good(), part.string(), " could not be written; is the disk full?");
  }
  std::filesystem::rename(part, path_);
  out_.open(path_, std::ios::app);
}

void RunLog::write(const Value& line) {
  out_ << config::to_json_line(line) << "\n" << std::flush;
  require(out_.good(), path_.string(), " could not be written; is the disk full?");
}

void RunLog::add(const train::StepEvent& event, double mean_loss) {
  Value line = base_line(event, earlier_seconds_ + event.seconds);
  line.set("loss", Value(mean_loss));
  line.set("lr", Value(event.lr));
  line.set("grad_norm", Value(event.grad_norm));
  line.set("tokens_per_second", Value(event.tokens_per_second));
  write(line);
}

void RunLog::add(const train::StepEvent& event, const train::Evaluation& evaluation) {
  Value line = base_line(event, earlier_seconds_ + event.seconds);
  Value valid = evaluation.details;
  valid.set("metric", Value(evaluation.value));
  line.set("valid", valid);
  write(line);
}

void RunLog::read_curves(const std::filesystem::path& run_directory, ComparisonRun& run) {
  each_line(run_directory / "metrics.jsonl", [&](const std::string&, const Value& line) {
    if (const Value* valid = line.find("valid")) {
      run.validation.push_back({integer(line, "step"), integer(line, "tokens"), number(*valid, "loss"),
                                number(*valid, "metric"), number(line, "seconds")});
    } else {
      run.curve.push_back(
          {integer(line, "step"), integer(line, "tokens"), number(line, "loss"), number(line, "seconds")});
    }
  });
}

}  // namespace blockstate::apps
