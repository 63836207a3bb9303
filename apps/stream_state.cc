// SPDX-License-Identifier: Apache-2.0
#include "apps/stream_state.h"

#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "apps/format.h"
#include "core/base/check.h"
#include "core/base/random.h"
#include "core/config/schema.h"
#include "core/train/checkpoint.h"

namespace blockstate::apps {
namespace {

constexpr const char* kFormat = "blockstate stream state";
constexpr int64_t kVersion = 1;
constexpr const char* kCarry = "carry.";
constexpr const char* kSums = "sums.";
constexpr const char* kSamples = "place.samples";
constexpr const char* kVerbPrefix = "verb.";

/// As a state's file has it: float32, or float64 in checks; on the CPU.
Tensor on_disk(const Tensor& tensor) {
  const Tensor here = tensor.to(Device{});
  return (here.dtype() == DType::kBFloat16 ? here.to(DType::kFloat32) : here).packed();
}

uint64_t mix_bytes(uint64_t key, const void* data, int64_t bytes) {
  const auto* from = static_cast<const char*>(data);
  key = mix_key(key, static_cast<uint64_t>(bytes));
  for (int64_t at = 0; at < bytes; at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, from + at, static_cast<size_t>(std::min<int64_t>(8, bytes - at)));
    key = mix_key(key, word);
  }
  return key;
}

uint64_t mix_text(uint64_t key, const std::string& text) {
  return mix_bytes(key, text.data(), static_cast<int64_t>(text.size()));
}

uint64_t mix_tensors(uint64_t key, const train::NamedTensors& tensors) {
  for (const auto& [name, tensor] : tensors) {
    const Tensor here = on_disk(tensor);
    key = mix_text(key, name + shape_text(here.shape()));
    key = mix_bytes(key, here.bytes(), here.elements() * dtype_size(here.dtype()));
  }
  return key;
}

std::string hexadecimal(uint64_t key) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(key));
  return text;
}

/// Name and type of every tensor of the model's carry, from one step. `features`: without that of a classifier's
/// pooling.
std::map<std::string, DType> carry_types(const LoadedModel& loaded, bool features) {
  GradMode off(false);
  const model::Model& model = *loaded.model;
  model::ModelInput input;
  if (loaded.task.shape.vocabulary > 0) {
    input.tokens = Tensor::zeros({1, 1}, DType::kInt64, model.device());
  } else {
    input.frames = Tensor::zeros({1, 1, loaded.task.shape.channels}, model.dtype(), model.device());
  }
  input.sequence = nn::plain_sequence(1, 1, 0, model.device());
  nn::CarryMap carry;
  features ? static_cast<void>(model.features(input, &carry)) : model.run(input, &carry);
  std::map<std::string, DType> types;
  for (const auto& [name, value] : carry) {
    types[name] = value.dtype();
  }
  return types;
}

template <class Number>
Number parse(const std::string& text, const std::string& key, const std::string& file) {
  Number value{};
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(problem == std::errc() && end == text.data() + text.size(), file, ": its \"", key, "\" is \"", text,
          "\", a number was wanted; save the state again");
  return value;
}

std::string starting_with(const std::string& name, const std::string& prefix) {
  return name.rfind(prefix, 0) == 0 ? name.substr(prefix.size()) : "";
}

}  // namespace

void StreamState::set(const std::string& key, double value) { facts_[key] = config::format_double(value); }

int64_t StreamState::integer(const std::string& key, int64_t otherwise) const {
  return has(key) ? parse<int64_t>(facts_.at(key), key, file_) : otherwise;
}

double StreamState::number(const std::string& key, double otherwise) const {
  return has(key) ? parse<double>(facts_.at(key), key, file_) : otherwise;
}

std::string StreamState::text(const std::string& key, const std::string& otherwise) const {
  return has(key) ? facts_.at(key) : otherwise;
}

void StreamState::write(const std::string& file, const std::string& verb, const LoadedModel& loaded) const {
  train::NamedTensors tensors;
  for (const auto& [name, value] : carry) {
    tensors[kCarry + name] = on_disk(value.value());
  }
  for (const auto& [name, tensor] : sums) {
    tensors[kSums + name] = on_disk(tensor);
  }
  if (!place.samples.empty()) {
    tensors[kSamples] = Tensor::from({static_cast<int64_t>(place.samples.size())}, place.samples);
  }
  train::TextMap metadata = {{"format", kFormat},
                             {"version", std::to_string(kVersion)},
                             {"verb", verb},
                             {"model", model_fingerprint(loaded)},
                             {"position", std::to_string(position)},
                             {"place.start", place.start},
                             {"place.units", std::to_string(place.units)},
                             {"place.bases", place.bases},
                             {"content", hexadecimal(mix_tensors(0, tensors))}};
  for (const auto& [key, value] : facts_) {
    metadata[kVerbPrefix + key] = value;
  }
  const std::string part = file + ".part";
  try {
    train::write_safetensors(part, tensors, metadata);
    std::filesystem::rename(part, file);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(part, ignored);
    throw;
  }
}

StreamState StreamState::read(const std::string& file, const std::string& verb, const LoadedModel& loaded) {
  train::TextMap metadata;
  train::NamedTensors tensors;
  try {
    const train::SafetensorsFile input(file);
    metadata = input.metadata();
    tensors = input.read_all();
  } catch (const Error& problem) {
    fail(problem.what(), "; --resume-state wants a whole file that --save-state wrote");
  }
  const auto said = [&](const std::string& key) {
    const auto found = metadata.find(key);
    return found == metadata.end() ? "" : found->second;
  };
  require(said("format") == kFormat, file, ": is no stream's state; --resume-state wants a file that --save-state ",
          "wrote");
  require(said("version") == std::to_string(kVersion), file, ": is of state format ", said("version"),
          ", this program reads format ", kVersion, "; save the state again with this program");
  require(said("verb") == verb, file, ": is a state of `", said("verb"), "`, which `", verb,
          "` cannot go on from; give it to blockstate ", said("verb"), ", or one that ", verb, " --save-state wrote");
  require(said("content") == hexadecimal(mix_tensors(0, tensors)), file,
          ": its tensors are damaged (their check sum differs); save the state again");
  const std::string own = model_fingerprint(loaded);
  require(said("model") == own, file, ": is a state of another model (fingerprint ", said("model"), ", that of ",
          loaded.source, " is ", own, "); give the checkpoint that it was saved with");

  StreamState state;
  state.file_ = file;
  state.position = parse<int64_t>(said("position"), "position", file);
  state.place.start = said("place.start");
  state.place.units = parse<int64_t>(said("place.units"), "place.units", file);
  state.place.bases = said("place.bases");
  std::map<std::string, DType> types = carry_types(loaded, verb == "embed");
  for (const auto& [name, tensor] : tensors) {
    if (const std::string carried = starting_with(name, kCarry); types.count(carried) > 0) {
      state.carry[carried] = Variable(tensor.to(loaded.model->device()).to(types.at(carried)));
      types.erase(carried);
    } else if (const std::string sum = starting_with(name, kSums); !sum.empty()) {
      state.sums[sum] = tensor;
    } else if (name == kSamples) {
      const Tensor samples = tensor.to(DType::kFloat32).packed();
      state.place.samples.assign(samples.data<float>(), samples.data<float>() + samples.elements());
    } else {
      fail(file, ": the tensor \"", name, "\" is none of this model's carry; save the state again");
    }
  }
  require(types.empty() || state.position == 0, file, ": the tensor \"", kCarry,
          types.empty() ? "" : types.begin()->first, "\" is missing; save the state again");
  for (const auto& [key, value] : metadata) {
    if (const std::string own_key = starting_with(key, kVerbPrefix); !own_key.empty()) {
      state.facts_[own_key] = value;
    }
  }
  return state;
}

std::string model_fingerprint(const LoadedModel& loaded) {
  const DataConfig& data = loaded.run.data;
  config::Value settings;
  settings.set("model", config::write(loaded.run.model));
  settings.set("shape", config::write(loaded.task.shape));
  // What a step is made of.
  settings.set("kind", config::Value(static_cast<int64_t>(data.kind)));
  settings.set("input", config::Value(data.input));
  settings.set("sample_rate", config::Value(data.kind == DataKind::kAudio ? data.sample_rate : 0));
  settings.set("kmer", config::Value(data.input == "kmer" ? data.kmer : 1));
  settings.set("lower_case", config::Value(data.lower_case));
  train::NamedTensors parameters = train::parameter_tensors(*loaded.model);
  for (auto& [name, tensor] : parameters) {
    tensor = tensor.to(Device{}).to(DType::kFloat32);  // one fingerprint for every device and type
  }
  return hexadecimal(mix_tensors(mix_text(0, config::to_json_line(settings)), parameters));
}

void note_growing(const model::Model& model, int64_t steps) {
  static bool said = false;
  const std::vector<std::string> growing = model.growing_sublayers();
  if (growing.empty() || said) {
    return;
  }
  said = true;
  std::string names;
  for (const std::string& name : growing) {
    names += (names.empty() ? "" : ", ") + name;
  }
  std::fflush(stdout);
  std::fprintf(stderr,
               "note: %s: keys and values of all steps are kept, so memory grows with the stream: %s at %s steps\n",
               names.c_str(), format_bytes(model.carry_bytes(steps)).c_str(), format_count(steps).c_str());
}

void require_stream(const LoadedModel& loaded) {
  const std::vector<std::string> whole = loaded.model->whole_sublayers();
  require(whole.empty(), loaded.source, ": ", whole.empty() ? "" : whole.front(),
          " needs the whole sequence at once, so this model can neither generate nor leave and resume a stream");
}

}  // namespace blockstate::apps
