// SPDX-License-Identifier: Apache-2.0
// Training on a GPU: the loss curve of the CPU, the bits of not having stopped, and checkpoints that change devices.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>

#include "core/train/recorded_gradients.h"
#include "core/train/trainer.h"
#include "kernels/cuda_exec.h"
#include "tests/support/fill.h"
#include "tests/support/temp_dir.h"
#include "tests/train/different.h"

namespace blockstate {
namespace {

constexpr Device kGpu{DeviceKind::kCuda, 0};
constexpr int64_t kSteps = 50, kVocabulary = 6;

/// Records whose next symbol follows from the one before but for some noise: there is something to learn. `even`: of
/// one length, so that all steps have the same shape.
class Records : public data::Dataset {
 public:
  explicit Records(bool even) : even_(even) {}
  int64_t size() const override { return 64; }
  int64_t length(int64_t index) const override { return even_ ? 97 : 90 + index % 30; }
  data::Example get(int64_t index) const override {
    data::Example example;
    example.name = join("record ", index);
    const std::vector<int64_t> noise = test::random_ids(static_cast<uint64_t>(index), length(index), 0, 10);
    int64_t symbol = index % kVocabulary;
    for (const int64_t draw : noise) {
      symbol = draw == 0 ? (symbol * 5 + 2) % kVocabulary : (symbol + 1) % kVocabulary;
      example.tokens.push_back(symbol);
    }
    return example;
  }

 private:
  bool even_;
};

model::ModelConfig mixed_config() {
  model::ModelConfig config;
  config.d_model = 32;
  config.blocks = {"mamba block_state gated_mlp attention"};
  config.dropout = 0.1;
  config.sublayers["attention"] = {"attention", nn::AttentionConfig{.heads = 2, .window = 24}};
  config.sublayers["block_state"] = {"block_state", nn::BlockStateConfig{.window = 16, .states = 2, .heads = 2}};
  return config;
}

struct Report {
  std::vector<double> losses;
  train::NamedTensors parameters, optimizer;
  int64_t replayed = 0;
};

/// Of different lengths and with dropout, or of one length without, and then recorded or not.
enum class Steps : uint8_t { kVaried, kEven, kRecorded };

/// One process: resumed from the store if there is something, trained until `stop_at` steps are done.
Report train_once(const std::filesystem::path& run, Device device, DType activations, int64_t stop_at,
                  Steps steps = Steps::kVaried) {
  model::ModelConfig config = mixed_config();
  config.dropout = steps == Steps::kVaried ? config.dropout : 0;
  const model::Model model(config, {.vocabulary = kVocabulary, .outputs = kVocabulary},
                           nn::Initialiser(5, DType::kFloat32, device), activations);
  data::Loader loader(std::make_shared<Records>(steps != Steps::kVaried),
                      {.batch_size = 8, .seed = 11, .batch = {.targets = data::TargetKind::kNextToken}});
  const train::CheckpointStore store(run);
  store.prepare();
  Report report;
  std::atomic<bool> stop = false;
  train::TrainerObserver observer;
  observer.on_step = [&](const train::StepEvent& event) {
    report.losses.push_back(event.loss);
    stop = event.step >= stop_at;
  };
  train::TrainerOptions options;
  options.optimizer.lr = 3e-3;
  options.schedule.warmup = 5;
  options.steps = kSteps;
  options.seed = 5;
  options.record = steps == Steps::kRecorded;
  train::Trainer trainer(model, {}, options, loader, {}, store, config::Value(config::Value::Table()), observer);
  trainer.resume();
  report.replayed = trainer.run(stop).replayed;
  const train::Checkpoint checkpoint = train::read_checkpoint(store.latest()->directory);
  report.parameters = checkpoint.model;
  report.optimizer = checkpoint.optimizer;
  return report;
}

/// What a run of steps by hand leaves: parameters, losses, and logits of a forward pass between steps.
struct StepsByHand {
  std::vector<Tensor> parameters, logits;
  std::vector<double> losses;
  int64_t replayed = 0;
};

data::Batch random_batch(int64_t rows, int64_t length, uint64_t seed, data::TargetKind targets) {
  std::vector<data::Example> examples(static_cast<size_t>(rows));
  for (size_t i = 0; i < examples.size(); ++i) {
    examples[i].name = "random";
    examples[i].tokens = test::random_ids(seed * 100 + i, length, 0, kVocabulary);
    examples[i].label = static_cast<int64_t>(seed + i) % kVocabulary;
  }
  return data::collate(examples, {.targets = targets});
}

/// Steps of two shapes in turn.
StepsByHand steps_by_hand(const std::string& blocks, DType activations, model::HeadKind head, bool record,
                          model::Recompute recompute = model::Recompute::kNone) {
  model::ModelConfig config = mixed_config();
  config.dropout = 0;
  config.blocks = {blocks};
  config.sublayers["attention"] = {"attention", nn::AttentionConfig{.heads = 2, .position = nn::PositionKind::kT5}};
  config.sublayers["sh"] = {
      "block_state",
      nn::BlockStateConfig{.variant = nn::BlockStateVariant::kSingleHead, .ssm = "mamba", .window = 16, .heads = 2}};
  model::Model model(config, {.head = head, .vocabulary = kVocabulary, .outputs = kVocabulary},
                     nn::Initialiser(5, DType::kFloat32, kGpu), activations);
  model.set_recompute(recompute);
  train::AdamW optimizer(model, {.lr = 1e-2});
  train::RecordedGradients gradients(model, {.label_smoothing = 0.1}, record);
  StepsByHand found;
  for (int64_t step = 0; step < 12; ++step) {
    const data::Batch batch = random_batch(step % 2 == 0 ? 4 : 3, step % 2 == 0 ? 65 : 98, static_cast<uint64_t>(step),
                                           train::target_kind(head));
    optimizer.clear_gradients();
    const train::PendingLoss loss = gradients(batch, train::model_input(model, batch, true, 0), {});
    optimizer.step(1);
    found.losses.push_back(loss.wait());
    if (step % 3 == 0) {  // leaves rounded parameters behind
      GradMode off(false);
      found.logits.push_back(model.forward(train::model_input(model, batch, false, 0)).value().to(Device{}));
    }
  }
  for (const nn::Parameter& parameter : model.parameters()) {
    found.parameters.push_back(parameter.variable.value().to(Device{}));
  }
  found.replayed = gradients.replayed();
  return found;
}

bool same_bits(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Tensor& left, const Tensor& right) {
    return left.shape() == right.shape() && left.dtype() == right.dtype() &&
           std::memcmp(left.bytes(), right.bytes(), static_cast<size_t>(left.elements() * dtype_size(left.dtype()))) ==
               0;
  });
}

}  // namespace

TEST_CASE("training on a GPU follows the loss curve of the CPU", "[cuda][training]") {
  const test::TempDir folder;
  const Report cpu = train_once(folder.path() / "cpu", {}, DType::kFloat32, kSteps);
  const Report gpu = train_once(folder.path() / "gpu", kGpu, DType::kFloat32, kSteps);
  const Report rounded = train_once(folder.path() / "rounded", kGpu, DType::kBFloat16, kSteps);
  REQUIRE(gpu.losses.size() == kSteps);
  CHECK(cpu.losses.back() < 0.8 * cpu.losses.front());
  for (size_t i = 0; i < gpu.losses.size(); ++i) {
    INFO("step " << i + 1);
    CHECK(gpu.losses[i] == Approx(cpu.losses[i]).epsilon(1e-3));
    CHECK(rounded.losses[i] == Approx(cpu.losses[i]).epsilon(0.05));
  }
}

TEST_CASE("stopping and going on gives the bits of not stopping on a GPU", "[cuda][training]") {
  const DType activations = GENERATE(DType::kFloat32, DType::kBFloat16);
  const test::TempDir folder;
  const Report whole = train_once(folder.path() / "whole", kGpu, activations, kSteps);
  train_once(folder.path() / "parts", kGpu, activations, 7);
  train_once(folder.path() / "parts", kGpu, activations, 31);
  const Report last = train_once(folder.path() / "parts", kGpu, activations, kSteps);
  CHECK(test::different(last.parameters, whole.parameters) == 0);
  CHECK(test::different(last.optimizer, whole.optimizer) == 0);
  CHECK(std::equal(last.losses.rbegin(), last.losses.rend(), whole.losses.rbegin()));
}

TEST_CASE("a checkpoint of one device is continued on the other", "[cuda][training]") {
  const test::TempDir folder;
  const Report whole = train_once(folder.path() / "cpu", {}, DType::kFloat32, kSteps);
  train_once(folder.path() / "there", {}, DType::kFloat32, 20);
  train_once(folder.path() / "there", kGpu, DType::kFloat32, 40);
  const Report back = train_once(folder.path() / "there", {}, DType::kFloat32, kSteps);
  REQUIRE(back.losses.size() == 10);
  for (size_t i = 0; i < back.losses.size(); ++i) {
    CHECK(back.losses[i] == Approx(whole.losses[40 + i]).epsilon(1e-3));
  }
}

TEST_CASE("steps that are recorded and replayed give the bits of steps that are not", "[cuda][training]") {
  for (const std::string blocks : {"mamba block_state gated_mlp", "attention s4d sh mlp"}) {
    for (const DType activations : {DType::kFloat32, DType::kBFloat16}) {
      CAPTURE(blocks, static_cast<int>(activations));
      const auto head = model::HeadKind::kLanguageModel;
      const StepsByHand plain = steps_by_hand(blocks, activations, head, false);
      CHECK(plain.replayed == 0);
      for (const auto what : {model::Recompute::kNone, model::Recompute::kCheap, model::Recompute::kAll}) {
        CAPTURE(static_cast<int>(what));
        const StepsByHand recorded = steps_by_hand(blocks, activations, head, true, what);
        CHECK(recorded.replayed == 8);  // of each shape the third step and those after it
        CHECK(recorded.losses == plain.losses);
        CHECK(same_bits(recorded.logits, plain.logits));
        CHECK(same_bits(recorded.parameters, plain.parameters));
        CHECK_FALSE(same_bits(recorded.logits, std::vector<Tensor>(plain.logits.rbegin(), plain.logits.rend())));
      }
    }
  }
}

TEST_CASE("a step that needs the host is not recorded, and its bits are the same", "[cuda][training]") {
  const auto head = model::HeadKind::kClassify;
  const StepsByHand plain = steps_by_hand("mamba", DType::kBFloat16, head, false);
  const StepsByHand tried = steps_by_hand("mamba", DType::kBFloat16, head, true);
  CHECK(tried.replayed == 0);
  CHECK(tried.losses == plain.losses);
  CHECK(same_bits(tried.parameters, plain.parameters));
}

TEST_CASE("a recording that waits for the device or copies from the host is an error", "[cuda]") {
  const kernels::cuda::Exec exec = kernels::cuda::exec(0);
  const Tensor here = Tensor::zeros({4}, DType::kFloat32);
  Tensor there = Tensor::zeros({4}, DType::kFloat32, kGpu);
  CHECK_THROWS_WITH(kernels::cuda::StreamGraph(exec).record([&] { there.copy_from(here); }), Catch::Contains("host"));
  CHECK_THROWS_WITH(kernels::cuda::StreamGraph(exec).record([&] { there.slice(0, 0, 1).item(); }),
                    Catch::Contains("recorded"));
  CHECK_THROWS_WITH(kernels::cuda::StreamGraph(exec).record([&] { kernels::cuda::synchronize(exec); }),
                    Catch::Contains("waited"));
  Tensor result;
  {
    kernels::cuda::StreamGraph graph(exec);
    const int64_t before = memory_statistics(kGpu).in_use;
    graph.record([&] { result = there.clone().clone(); });
    CHECK(memory_statistics(kGpu).in_use > before);
    there.fill(3);
    graph.launch();
    CHECK(result.slice(0, 3, 4).item() == 3);
  }
  const int64_t held = memory_statistics(kGpu).in_use;
  result = Tensor();
  kernels::cuda::synchronize(exec);
  CHECK(memory_statistics(kGpu).in_use < held);
}

TEST_CASE("training whose steps are recorded can be stopped and gone on with", "[cuda][training]") {
  const test::TempDir folder;
  const Report plain = train_once(folder.path() / "plain", kGpu, DType::kBFloat16, kSteps, Steps::kEven);
  const Report whole = train_once(folder.path() / "whole", kGpu, DType::kBFloat16, kSteps, Steps::kRecorded);
  train_once(folder.path() / "parts", kGpu, DType::kBFloat16, 17, Steps::kRecorded);
  const Report last = train_once(folder.path() / "parts", kGpu, DType::kBFloat16, kSteps, Steps::kRecorded);
  CHECK(test::different(whole.parameters, plain.parameters) == 0);
  CHECK(test::different(last.parameters, plain.parameters) == 0);
  CHECK(test::different(last.optimizer, plain.optimizer) == 0);
  CHECK(whole.losses == plain.losses);
  CHECK(plain.replayed == 0);
  CHECK(whole.replayed > 0);
  CHECK(last.replayed > 0);
}

}  // namespace blockstate
