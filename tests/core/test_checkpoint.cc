// SPDX-License-Identifier: Apache-2.0
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "core/base/check.h"
#include "core/train/checkpoint.h"
#include "tests/support/file_limit.h"
#include "tests/support/fill.h"
#include "tests/support/temp_dir.h"

namespace blockstate::train {
namespace {

namespace fs = std::filesystem;
using test::TempDir;

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

Checkpoint checkpoint_of(int64_t step, int64_t elements = 20) {
  Checkpoint checkpoint;
  checkpoint.config.set("d_model", config::Value(8));
  checkpoint.model["weight"] =
      Tensor::from<float>({elements}, test::random_normal<float>(static_cast<uint64_t>(step), elements));
  checkpoint.optimizer["m.weight"] = Tensor::zeros({elements}, DType::kFloat32);
  checkpoint.optimizer["step"] = Tensor::from<int64_t>({1}, {step});
  checkpoint.state.step = step;
  checkpoint.state.loader_position = 3 * step;
  checkpoint.state.seed = -4;
  checkpoint.state.tokens_seen = 100 * step;
  return checkpoint;
}

/// Whether what lies there is what checkpoint_of(step) makes.
bool sound(const CheckpointPlace& place, int64_t elements) {
  const Checkpoint found = read_checkpoint(place.directory);
  const Checkpoint wanted = checkpoint_of(place.step, elements);
  const Tensor& weight = found.model.at("weight");
  return found.state.step == place.step && weight.shape() == wanted.model.at("weight").shape() &&
         std::memcmp(weight.bytes(), wanted.model.at("weight").bytes(), static_cast<size_t>(4 * elements)) == 0 &&
         *found.optimizer.at("step").data<int64_t>() == place.step;
}

std::vector<int64_t> steps(const CheckpointStore& store) {
  std::vector<int64_t> found;
  for (const CheckpointPlace& place : store.list()) {
    found.push_back(place.step);
  }
  return found;
}

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

class Small : public nn::Module {
 public:
  Small() {
    weight = add_parameter("weight", Tensor::from<float>({2, 2}, {1, 2, 3, 4}));
    bias = add_parameter("bias", Tensor::from<float>({2}, {5, 6}), nn::no_decay());
  }
  Variable weight;
  Variable bias;
};

TEST_CASE("a checkpoint comes back as it was saved", "[cpu]") {
  const TempDir run;
  const CheckpointStore store(run.path());
  CHECK_FALSE(store.latest());
  CHECK_FALSE(store.best());
  store.prepare();
  Checkpoint checkpoint = checkpoint_of(7);
  checkpoint.state.metric = 0.1;
  checkpoint.state.best_metric = 0.3;
  checkpoint.state.best_step = 7;
  store.save(checkpoint);
  REQUIRE(store.latest());
  CHECK(store.latest()->directory == run.path() / "checkpoints" / "7");
  CHECK(names_in(store.latest()->directory) ==
        std::vector<std::string>{"config.json", "model.safetensors", "optimizer.safetensors", "state.json"});
  CHECK(names_in(store.directory()) == std::vector<std::string>{"7"});
  const Checkpoint found = read_checkpoint(store.latest()->directory);
  CHECK(found.config == checkpoint.config);
  CHECK(sound(*store.latest(), 20));
  CHECK(found.state.loader_position == 21);
  CHECK(found.state.seed == -4);
  CHECK(found.state.tokens_seen == 700);
  CHECK(found.state.metric == 0.1);
  CHECK(found.state.best_metric == 0.3);
  CHECK(found.state.best_step == 7);
  CHECK(read_checkpoint(store.latest()->directory, false).optimizer.empty());
}

TEST_CASE("a checkpoint of the same step takes the old one's place", "[cpu]") {
  const TempDir run;
  const CheckpointStore store(run.path());
  Checkpoint checkpoint = checkpoint_of(7);
  checkpoint.state.tokens_seen = 1;
  checkpoint.state.metric = std::numeric_limits<double>::quiet_NaN();  // JSON has none: left out
  store.save(checkpoint);
  CHECK_FALSE(read_state(store.directory() / "7").metric);
  store.save(checkpoint_of(7));
  CHECK(read_state(store.directory() / "7").tokens_seen == 700);
  CHECK(names_in(store.directory()) == std::vector<std::string>{"7"});
}

TEST_CASE("the last two checkpoints and the best are kept", "[cpu]") {
  const TempDir run;
  const CheckpointStore store(run.path());
  for (const int64_t step : {5, 10, 15, 20, 100}) {
    Checkpoint checkpoint = checkpoint_of(step);
    if (step >= 10) {
      checkpoint.state.best_step = 10;
      checkpoint.state.best_metric = 1;
    }
    store.save(checkpoint);
    CHECK(store.latest()->step == step);
    CHECK(store.best()->step == (step >= 10 ? 10 : step));
  }
  CHECK(steps(store) == std::vector<int64_t>{10, 20, 100});
  CHECK(names_in(store.directory()) == std::vector<std::string>{"10", "100", "20"});
  fs::remove_all(store.directory() / "10");
  CHECK_THAT(error_of([&] { store.best(); }), Catch::Contains("names step 10 as the best, but there is no checkpoint"));
}

TEST_CASE("what an interrupted run left is passed over and removed", "[cpu]") {
  const TempDir run;
  const CheckpointStore store(run.path());
  store.save(checkpoint_of(5));
  const std::string left = std::string("checkpoints/") + kTemporaryPrefix + "6";
  run.write(left + "/model.safetensors", "half a fi");
  run.write("checkpoints/notes/a.txt", "of the user");
  run.write("checkpoints/007/a.txt", "no step's name");
  CHECK(steps(store) == std::vector<int64_t>{5});
  store.save(checkpoint_of(6));  // even without prepare
  CHECK(sound(*store.latest(), 20));
  run.write(left + "/model.safetensors", "half a fi");
  store.prepare();
  CHECK(names_in(store.directory()) == std::vector<std::string>{"007", "5", "6", "notes"});
}

TEST_CASE("killed at any moment, a run's checkpoints are whole", "[cpu]") {
  const TempDir run;
  const int64_t elements = 20000;
  const CheckpointStore store(run.path());
  int64_t begun = 0;
  // 25 moments, then longer ones where a slow disk has not let a single checkpoint through yet.
  for (int round = 0; round < 25 || (begun == 0 && round < 100); ++round) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      // Neither a test's report nor its exit may come from the child.
      try {
        for (int64_t step = begun + 1;; ++step) {
          store.save(checkpoint_of(step, elements));
        }
      } catch (...) {
        _exit(1);
      }
    }
    const int64_t longer = round < 25 ? 0 : 50000 * (round - 24);
    std::this_thread::sleep_for(std::chrono::microseconds(3000 + 1700 * round + longer));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    REQUIRE(WIFSIGNALED(status));
    for (const CheckpointPlace& place : store.list()) {
      CHECK(sound(place, elements));
    }
    const std::optional<CheckpointPlace> latest = store.latest();
    CHECK((latest ? latest->step : 0) >= begun);
    begun = latest ? latest->step : 0;
  }
  CHECK(begun > 0);
  store.prepare();
  CHECK(names_in(store.directory()).size() == store.list().size());
}

TEST_CASE("a full disk leaves the checkpoints that were there", "[cpu]") {
  const TempDir run;
  const CheckpointStore store(run.path());
  store.save(checkpoint_of(5));
  store.save(checkpoint_of(6));
  {
    const test::FileLimit limit(64 * 1024);
    for (const int64_t step : {6, 7}) {
      const fs::path file = store.directory() / (kTemporaryPrefix + std::to_string(step)) / "model.safetensors";
      CHECK(error_of([&] { store.save(checkpoint_of(step, 100000)); }) ==
            file.string() + ": cannot write: File too large");
    }
  }
  CHECK(names_in(store.directory()) == std::vector<std::string>{"5", "6"});
  for (const CheckpointPlace& place : store.list()) {
    CHECK(sound(place, 20));
  }
}

TEST_CASE("a damaged checkpoint is named, not passed over", "[cpu]") {
  const TempDir run;
  const CheckpointStore store(run.path());
  for (const char* name : {"config.json", "model.safetensors", "optimizer.safetensors", "state.json"}) {
    store.save(checkpoint_of(5));
    store.save(checkpoint_of(6));
    const fs::path file = store.directory() / "6" / name;
    fs::resize_file(file, fs::file_size(file) - 3);
    REQUIRE(store.latest()->step == 6);
    CHECK(error_of([&] { read_checkpoint(store.latest()->directory); }).rfind(file.string() + ": ", 0) == 0);
    fs::remove(file);
    CHECK(error_of([&] { read_checkpoint(store.latest()->directory); }) ==
          file.string() + ": cannot read: No such file or directory");
  }
  store.save(checkpoint_of(6));
  run.write("checkpoints/6/state.json", "{\"format\": 2, \"step\": 6}");
  CHECK(error_of([&] { read_state(store.directory() / "6"); }) ==
        (store.directory() / "6" / "state.json").string() + ": is of checkpoint format 2, this program reads format 1");
}

TEST_CASE("parameters are loaded by name, all or none", "[cpu]") {
  Small source;
  NamedTensors tensors = parameter_tensors(source);
  REQUIRE(tensors.size() == 2);
  Small target;
  target.weight.value().data<float>()[3] = -1;
  load_parameters(target, tensors, "model.safetensors");
  CHECK(target.weight.value().data<float>()[3] == 4);
  target.weight.value().data<float>()[3] = -1;
  tensors.erase("bias");
  tensors["biass"] = Tensor::zeros({2}, DType::kFloat32);
  CHECK(error_of([&] { load_parameters(target, tensors, "a/model.safetensors"); }) ==
        "a/model.safetensors: does not fit the model: \"bias\" is missing, wanted float32 (2); \"biass\", float32 (2), "
        "is none of its tensors");
  tensors = {{"bias", Tensor::zeros({2}, DType::kFloat64)}, {"weight", Tensor::zeros({4}, DType::kFloat32)}};
  CHECK(error_of([&] { load_parameters(target, tensors, "m"); }) ==
        "m: does not fit the model: \"bias\" is float64 (2), wanted float32 (2); \"weight\" is float32 (4), wanted "
        "float32 (2, 2)");
  CHECK(target.weight.value().data<float>()[3] == -1);
}

TEST_CASE("a path means a checkpoint or a run", "[cpu]") {
  const TempDir run;
  const CheckpointStore store(run.path());
  CHECK(error_of([&] { find_checkpoint(run.path() / "absent"); }) ==
        run.file("absent") + ": no such file or directory, wanted a checkpoint or a run's directory");
  CHECK(
      error_of([&] { find_checkpoint(run.path()); }) ==
      run.path().string() +
          ": is neither a checkpoint (it holds no model.safetensors) nor a run's directory (it holds no checkpoints)");
  store.prepare();
  CHECK(error_of([&] { find_checkpoint(run.path()); }) == store.directory().string() + ": holds no checkpoint yet");
  store.save(checkpoint_of(1));
  Checkpoint second = checkpoint_of(2);
  second.state.best_step = 1;
  store.save(second);
  CHECK(find_checkpoint(run.path()) == store.directory() / "1");
  CHECK(find_checkpoint(run.path(), true) == store.directory() / "2");
  CHECK(find_checkpoint(store.directory() / "2") == store.directory() / "2");
}

TEST_CASE("a checkpoint can be exported without optimiser and under any name", "[cpu]") {
  const TempDir folder;
  Checkpoint checkpoint = checkpoint_of(3);
  checkpoint.optimizer.clear();
  write_checkpoint(folder.path() / "deep/er/model/", checkpoint);
  CHECK(read_checkpoint(folder.path() / "deep/er/model", false).state.step == 3);
  CHECK(names_in(folder.path() / "deep/er") == std::vector<std::string>{"model"});
  CHECK_THAT(error_of([&] { read_checkpoint(folder.path() / "deep/er/model"); }),
             Catch::EndsWith("optimizer.safetensors: cannot read: No such file or directory"));
  folder.write("file", "");
  CHECK_THAT(error_of([&] { write_checkpoint(folder.path() / "file/x", checkpoint); }),
             Catch::StartsWith(folder.file("file") + ": cannot make this directory: "));
}

}  // namespace
}  // namespace blockstate::train
