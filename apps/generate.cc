// SPDX-License-Identifier: Apache-2.0
// Samples of a language model, made step by step through the carry: memory does not grow with their length. A token is
// a function of the model, the prompt, the seed, the number of its sample and its position, whatever else is made.
#include <cstdio>

#include "apps/format.h"
#include "apps/sample_output.h"
#include "apps/stream_state.h"
#include "apps/terminal.h"
#include "apps/verbs.h"
#include "core/base/check.h"
#include "core/model/generator.h"
#include "core/model/sampler.h"
#include "genomics/dna_tokenizer.h"

namespace blockstate::apps {
namespace {

constexpr int64_t kDefaultChunk = 65536;

/// What is fed before the first token that is made. The last of it waits, as the last token made does in a state.
class Prompt {
 public:
  explicit Prompt(const model::Model& model) : generator_(model, 1) {}

  void feed(const std::vector<int64_t>& tokens) {
    std::vector<int64_t> now = waiting_;
    now.insert(now.end(), tokens.begin(), tokens.end());
    if (now.empty()) {
      return;
    }
    waiting_ = {now.back()};
    now.pop_back();
    if (!now.empty()) {
      generator_.prompt(Tensor::from({1, static_cast<int64_t>(now.size())}, now));
    }
  }
  void leave_in(StreamState& state) const {
    require(!waiting_.empty(), "this model knows no start token, so it needs a prompt: give --prompt or --prompt-text");
    state.carry = generator_.carry();
    state.position = generator_.position();
    state.set("next", waiting_.front());
  }

 private:
  model::Generator generator_;
  std::vector<int64_t> waiting_;
};

void warn_of_rest(int64_t bases, int64_t kmer) {
  if (bases > 0) {
    std::fprintf(stderr, "warning: the last %lld bases of the prompt fill no k-mer of %lld and are left out\n",
                 static_cast<long long>(bases), static_cast<long long>(kmer));
  }
}

void feed_text(const LoadedModel& loaded, const std::string& text, Prompt& prompt) {
  require(loaded.run.data.kind == DataKind::kDna, "--prompt-text is for models of DNA; give --prompt FILE");
  require(!text.empty(), "--prompt-text is empty; leave it out to begin from nothing");
  const int64_t kmer = symbols_per_token(loaded.run);
  const genomics::DnaTokenizer tokenizer(genomics::parse_lower_case(loaded.run.data.lower_case), kmer);
  prompt.feed(tokenizer.encode(text, {"--prompt-text", 0}));
  warn_of_rest(static_cast<int64_t>(text.size()) % kmer, kmer);
}

void feed_file(const LoadedModel& loaded, const std::string& file, int64_t chunk, Prompt& prompt) {
  const std::unique_ptr<InputStream> stream = open_input_stream(loaded.run, loaded.task, file, {}, {});
  require(stream->next_piece(), "--prompt ", file, " holds no record");
  int64_t steps = 0;
  while (const std::optional<StepRun> run = stream->read(chunk)) {
    prompt.feed(run->tokens);
    steps += run->length;
  }
  const std::string name = stream->piece().name;
  const int64_t kmer = symbols_per_token(loaded.run);
  require(steps > 0, "--prompt ", file, ": the record ", name, " is shorter than one step of the model",
          kmer > 1 ? join(", a k-mer of ", kmer, " bases") : "");
  if (kmer > 1) {
    warn_of_rest(std::stoll(stream->piece().end) - steps * kmer, kmer);
  }
  require(!stream->next_piece(), "--prompt ", file, " holds more than the record ", name,
          "; a prompt is one: give a file of one record");
}

/// Where all samples begin: the start token and the prompt, or a state.
StreamState beginning(const GenerateArguments& arguments, const LoadedModel& loaded) {
  const bool prompted = !arguments.prompt.empty() || arguments.prompt_text;
  if (!arguments.state.resume.empty()) {
    require(!prompted, "--resume-state goes on with a stream, whose prompt has been fed: leave out ",
            arguments.prompt_text ? "--prompt-text" : "--prompt");
    return StreamState::read(arguments.state.resume, "generate", loaded);
  }
  require(arguments.prompt.empty() || !arguments.prompt_text, "--prompt and --prompt-text are two prompts; give one");
  Prompt prompt(*loaded.model);
  if (loaded.task.shape.start_token) {
    prompt.feed({loaded.task.shape.vocabulary});
  }
  if (arguments.prompt_text) {
    feed_text(loaded, *arguments.prompt_text, prompt);
  } else if (prompted) {
    feed_file(loaded, arguments.prompt, arguments.chunk > 0 ? arguments.chunk : kDefaultChunk, prompt);
  }
  StreamState state;
  prompt.leave_in(state);
  return state;
}

/// The command line's settings, else those of the stream, else the usual ones.
model::Sampling sampling_of(const GenerateArguments& arguments, const StreamState& state) {
  model::Sampling sampling;
  sampling.temperature = arguments.temperature.value_or(state.number("temperature", sampling.temperature));
  sampling.top_k = arguments.top_k.value_or(state.integer("top_k", sampling.top_k));
  sampling.top_p = arguments.top_p.value_or(state.number("top_p", sampling.top_p));
  sampling.seed = static_cast<uint64_t>(arguments.seed.value_or(state.integer("seed", 1)));
  return sampling;
}

/// Makes `rows` samples at once from number `first` on; true if all of their tokens were made.
class Maker {
 public:
  Maker(const LoadedModel& loaded, const model::Sampling& sampling, const StreamState& start, SampleOutput& output,
        Progress& progress)
      : loaded_(loaded), sampler_(sampling), start_(start), output_(output), progress_(progress) {}

  /// Leaves in `end`, if there is one, where the first of the samples stopped.
  bool make(int64_t first, int64_t rows, int64_t tokens, StreamState* end) {
    model::Generator generator(*loaded_.model, rows);
    generator.restore(start_.carry, start_.position);
    std::vector<int64_t> next(static_cast<size_t>(rows), start_.integer("next", -1));
    const int64_t number = start_.integer("sample", 0) + first;
    output_.begin(number, rows);
    int64_t made = 0;
    for (; made < tokens && !stop_requested(); ++made) {
      const Tensor logits = generator.step(next).to(Device{}).to(DType::kFloat32).packed();
      const auto width = static_cast<size_t>(logits.size(1));
      for (int64_t row = 0; row < rows; ++row) {
        const std::span<const float> values(logits.data<float>() + static_cast<size_t>(row) * width, width);
        const int64_t token = sampler_.draw(values, number + row, generator.position());
        next[static_cast<size_t>(row)] = token;
        output_.add(row, token);
      }
      done_ += rows;
      report();
    }
    output_.end();
    if (end != nullptr) {
      end->carry = generator.carry();
      end->position = generator.position();
      end->set("next", next.front());
      end->set("sample", number);
      end->set("temperature", sampler_.sampling().temperature);
      end->set("top_k", sampler_.sampling().top_k);
      end->set("top_p", sampler_.sampling().top_p);
      end->set("seed", static_cast<int64_t>(sampler_.sampling().seed));
    }
    return made == tokens;
  }

 private:
  void report() {
    ProgressReading reading;
    reading.step = done_;
    progress_.update(reading);
  }

  const LoadedModel& loaded_;
  model::Sampler sampler_;
  const StreamState& start_;
  SampleOutput& output_;
  Progress& progress_;
  int64_t done_ = 0;
};

}  // namespace

int run_generate(const GenerateArguments& arguments) {
  const LoadedModel loaded = load_model(arguments.model, arguments.overrides);
  require(loaded.task.shape.head == model::HeadKind::kLanguageModel, arguments.model,
          " is no language model and cannot generate; one trained with task.kind = \"language_model\" was wanted");
  require_stream(loaded);
  require(arguments.state.save.empty() || arguments.count == 1,
          "--save-state is for one stream; leave out --count, or --save-state");
  const int64_t per_token = symbols_per_token(loaded.run);
  require(arguments.length % per_token == 0, "--length ", arguments.length, ": this model makes k-mers of ", per_token,
          " bases; a multiple of ", per_token, " was wanted");
  const int64_t tokens = arguments.length / per_token;
  GradMode off(false);
  const StreamState start = beginning(arguments, loaded);
  const model::Sampling sampling = sampling_of(arguments, start);
  const std::string note = join("seed=", sampling.seed, " temperature=", config::format_double(sampling.temperature));
  note_growing(*loaded.model, start.position + tokens);
  StderrSink sink;
  ProgressOptions shown;
  shown.label = "generate";
  shown.total = tokens * arguments.count;
  Progress progress(sink, shown);
  const model::Sampler checked(sampling);  // a mistake in the settings, before a file is opened
  const std::unique_ptr<SampleOutput> output =
      open_sample_output(loaded.run, {arguments.out, arguments.count, tokens, note});
  Maker maker(loaded, sampling, start, *output, progress);
  StreamState end;
  bool whole = true;
  for (int64_t first = 0; first < arguments.count && whole; first += arguments.batch) {
    const int64_t rows = std::min(arguments.batch, arguments.count - first);
    whole = maker.make(first, rows, tokens, arguments.state.save.empty() ? nullptr : &end);
  }
  progress.finish();
  if (!arguments.state.save.empty()) {
    end.write(arguments.state.save, "generate", loaded);
  }
  return whole ? 0 : kInterrupted;
}

}  // namespace blockstate::apps
