// SPDX-License-Identifier: Apache-2.0
#include "apps/session.h"

#include <csignal>

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "core/tensor/choose_device.h"
#include "core/train/checkpoint.h"

namespace blockstate::apps {
namespace {

std::atomic<bool> stop{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may only touch lock-free atomics");

extern "C" void on_stop_signal(int signal) {
  stop = true;
  std::signal(signal, SIG_DFL);
}

}  // namespace

void prepare_process(const RunConfig& run) {
  const Device device = choose_device(run.device);
  require(run.dtype != "bfloat16" || device.kind == DeviceKind::kCuda,
          "dtype = \"bfloat16\" needs device = \"cuda\"; on the CPU use float32");
  require(run.dtype != "float64" || device.kind == DeviceKind::kCpu,
          "dtype = \"float64\" is for checks on the CPU: set device = \"cpu\", or use float32 or bfloat16");
  if (run.threads > 0) {
    set_thread_count(static_cast<int>(run.threads));
  }
}

std::unique_ptr<model::Model> build_model(const RunConfig& run, const TaskShape& task) {
  const DType activations = parse_dtype(run.dtype);
  const DType parameters = activations == DType::kBFloat16 ? DType::kFloat32 : activations;
  auto model = std::make_unique<model::Model>(
      run.model, task.shape, nn::Initialiser(static_cast<uint64_t>(run.seed), parameters, choose_device(run.device)),
      activations);
  model->set_recompute(run.train.recompute, run.train.recompute_sublayers);
  return model;
}

config::Value checkpoint_config(const RunConfig& run, const TaskShape& task) {
  config::Value table{config::Value::Table{}};
  table.set("run", config::write(run));
  table.set("shape", config::write(task.shape));
  config::Value::Array classes;
  for (const std::string& label : task.classes) {
    classes.emplace_back(label);
  }
  table.set("classes", config::Value(std::move(classes)));
  return table;
}

LoadedModel load_model(const std::string& path, const std::vector<std::string>& overrides) {
  const std::filesystem::path directory = train::find_checkpoint(path);
  const train::Checkpoint checkpoint = train::read_checkpoint(directory, false);
  const std::string file = (directory / "config.json").string();
  const config::Value* run = checkpoint.config.find("run");
  const config::Value* shape = checkpoint.config.find("shape");
  const config::Value* classes = checkpoint.config.find("classes");
  require(run != nullptr && shape != nullptr && classes != nullptr, file,
          ": \"run\", \"shape\" and \"classes\" were wanted; is this a checkpoint of blockstate?");
  LoadedModel loaded;
  loaded.source = directory.string();
  config::Value settings = *run;
  for (const std::string& override : overrides) {
    require(override.rfind("model.", 0) != 0, "--set ", override, ": the model is what the checkpoint holds; only ",
            "data, task and device settings can be changed here");
    config::apply_override(settings, override);
  }
  loaded.run = run_config_from(settings);
  config::read(*shape, loaded.task.shape);
  for (const config::Value& label : classes->array()) {
    loaded.task.classes.push_back(label.text());
  }
  prepare_process(loaded.run);
  loaded.model = build_model(loaded.run, loaded.task);
  train::NamedTensors parameters = checkpoint.model;
  for (auto& [name, tensor] : parameters) {
    if (tensor.dtype() == DType::kFloat32 || tensor.dtype() == DType::kFloat64) {
      tensor = tensor.to(loaded.model->dtype());  // `dtype` may be another one than in training
    }
  }
  train::load_parameters(*loaded.model, parameters, (directory / "model.safetensors").string());
  return loaded;
}

const std::atomic<bool>& stop_requested() { return stop; }

void install_stop_handlers() {
  std::signal(SIGINT, on_stop_signal);
  std::signal(SIGTERM, on_stop_signal);
}

}  // namespace blockstate::apps
