// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "core/train/optimizer.h"
#include "core/train/schedule.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"

namespace blockstate::train {
namespace {

using test::compare;
using test::random_normal;
using test::same_bits;

/// A module of the given parameters.
class Parameters : public nn::Module {
 public:
  Variable add(const std::string& name, const Tensor& value, nn::ParameterOptions options = {}) {
    return add_parameter(name, value, options);
  }
};

template <class T>
std::vector<T> values(const Tensor& tensor) {
  return std::vector<T>(tensor.data<T>(), tensor.data<T>() + tensor.elements());
}

void set_grad(const Variable& variable, const Tensor& gradient) { variable.edge()->grad = gradient; }

SafetensorsFile golden() { return SafetensorsFile(std::string(BLOCKSTATE_TEST_DATA) + "/golden/adamw.safetensors"); }

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("AdamW takes the steps of torch.optim.AdamW", "[cpu]") {
  const SafetensorsFile& file = golden();
  Parameters module;
  const Variable decayed = module.add("decayed", file.read("decayed.0"));
  const Variable plain = module.add("plain", file.read("plain.0"), nn::no_decay());
  AdamW optimizer(module, {.lr = 0.01, .weight_decay = 0.1, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .clip = 0});
  const Tensor rates = file.read("learning_rate");
  // Ten roundings a step in either program, five steps.
  const test::Tolerance tolerance{.rel = 1e-13, .abs = 1e-15};
  for (int t = 1; t <= 5; ++t) {
    const std::string step = std::to_string(t);
    set_grad(decayed, file.read("decayed.grad." + step));
    set_grad(plain, file.read("plain.grad." + step));
    const StepReport report = optimizer.step(rates.data<double>()[t] / 0.01);
    CHECK_FALSE(report.skipped);
    CHECK(report.lr == Approx(rates.data<double>()[t]));
    CHECK(compare("decayed." + step, values<double>(decayed.value()), values<double>(file.read("decayed." + step)),
                  tolerance));
    CHECK(
        compare("plain." + step, values<double>(plain.value()), values<double>(file.read("plain." + step)), tolerance));
  }
  CHECK(optimizer.steps() == 5);
}

TEST_CASE("AdamW clips the global norm as torch does", "[cpu]") {
  const SafetensorsFile& file = golden();
  Parameters module;
  const Variable decayed = module.add("decayed", file.read("decayed.0"));
  const Variable plain = module.add("plain", file.read("plain.0"));
  AdamW optimizer(module, {.beta1 = 0, .clip = 1});
  set_grad(decayed, file.read("decayed.grad.5"));
  set_grad(plain, file.read("plain.grad.5"));
  const double norm = file.read("clip.norm").item();
  CHECK(optimizer.step(1).grad_norm == Approx(norm).epsilon(1e-14));
  // With beta1 = 0 the mean is the clipped gradient. torch divides by norm + 1e-6.
  const test::Tolerance tolerance{.rel = 1.1e-6 / norm, .abs = 0};
  const NamedTensors state = optimizer.state();
  CHECK(
      compare("decayed", values<double>(state.at("m.decayed")), values<double>(file.read("clip.decayed")), tolerance));
  CHECK(compare("plain", values<double>(state.at("m.plain")), values<double>(file.read("clip.plain")), tolerance));
  AdamW wide(module, {.beta1 = 0, .clip = 2 * norm});
  wide.step(1);
  CHECK(same_bits("unclipped", values<double>(wide.state().at("m.plain")), values<double>(file.read("plain.grad.5"))));
}

TEST_CASE("AdamW: gradient_scale counts before the norm", "[cpu]") {
  Parameters module;
  const Variable x = module.add("x", Tensor::from<double>({2}, {0, 0}));
  set_grad(x, Tensor::from<double>({2}, {3, -4}));
  AdamW optimizer(module, {.beta1 = 0, .clip = 100});
  CHECK(optimizer.step(1, 0.5).grad_norm == Approx(2.5));
  CHECK(values<double>(optimizer.state().at("m.x")) == std::vector<double>{1.5, -2});
}

TEST_CASE("AdamW: a parameter's own largest learning rate scales with the schedule", "[cpu]") {
  Parameters module;
  const Variable free = module.add("free", Tensor::from<double>({1}, {0}), {.decay = false, .max_lr = 0.5});
  const Variable capped = module.add("capped", Tensor::from<double>({1}, {0}), {.decay = false, .max_lr = 1e-3});
  AdamW optimizer(module, {.lr = 0.1, .clip = 0});
  set_grad(free, Tensor::from<double>({1}, {1}));
  set_grad(capped, Tensor::from<double>({1}, {1}));
  const StepReport report = optimizer.step(0.5);
  CHECK(report.lr == Approx(0.05));
  // The first step of AdamW is the learning rate times the gradient's sign, but for epsilon.
  CHECK(free.value().item() == Approx(-0.05).epsilon(1e-7));
  CHECK(capped.value().item() == Approx(-0.0005).epsilon(1e-7));
}

TEST_CASE("AdamW: a gradient that never arrived is zero", "[cpu]") {
  Parameters module;
  Variable x = module.add("x", Tensor::from<float>({2}, {1, -2}));
  AdamW optimizer(module, {.lr = 0.1, .weight_decay = 0.5, .clip = 1});
  CHECK(optimizer.step(1).grad_norm == 0);
  CHECK(x.value().data<float>()[0] == Approx(0.95));
  set_grad(x, Tensor::from<float>({2}, {1, 1}));
  optimizer.step(1);
  const float mean = optimizer.state().at("m.x").data<float>()[0];
  optimizer.clear_gradients();
  CHECK_FALSE(x.grad().defined());
  optimizer.step(1);
  CHECK(optimizer.state().at("m.x").data<float>()[0] == Approx(0.9 * mean));
}

TEST_CASE("AdamW skips a step whose gradients are not finite", "[cpu]") {
  const double bad = GENERATE(std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN());
  Parameters module;
  const Variable x = module.add("x", Tensor::from<float>({2}, {1, -2}));
  const Variable y = module.add("y", Tensor::from<float>({1}, {3}));
  AdamW optimizer(module, {});
  set_grad(x, Tensor::from<float>({2}, {1, 1}));
  set_grad(y, Tensor::from<float>({1}, {2}));
  optimizer.step(1);
  const auto before = values<float>(x.value());
  const auto mean = values<float>(optimizer.state().at("m.x"));
  set_grad(y, Tensor::from<float>({1}, {static_cast<float>(bad)}));
  const StepReport report = optimizer.step(1);
  CHECK(report.skipped);
  CHECK_FALSE(std::isfinite(report.grad_norm));
  CHECK(optimizer.steps() == 1);
  CHECK(same_bits("x", values<float>(x.value()), before));
  CHECK(same_bits("m.x", values<float>(optimizer.state().at("m.x")), mean));
  set_grad(y, Tensor::from<float>({1}, {2}));
  CHECK_FALSE(optimizer.step(1).skipped);
}

TEST_CASE("AdamW goes on bitwise from its saved state", "[cpu]") {
  const int64_t count = 1001;
  const auto gradient = [&](int step) {
    return Tensor::from<float>({7, 143}, random_normal<float>(static_cast<uint64_t>(step), count));
  };
  const auto train = [&](AdamW& optimizer, const Variable& x, int begin, int end) {
    for (int step = begin; step < end; ++step) {
      set_grad(x, gradient(step));
      optimizer.step(1.0 / (step + 1));
    }
  };
  const std::vector<float> start = random_normal<float>(99, count);
  Parameters whole;
  const Variable x = whole.add("x", Tensor::from<float>({7, 143}, start));
  AdamW one(whole, {});
  train(one, x, 0, 5);
  NamedTensors saved;
  for (const auto& [name, tensor] : one.state()) {
    saved[name] = tensor.clone();
  }
  Parameters resumed;
  const Variable y = resumed.add("x", x.value().clone());
  train(one, x, 5, 10);
  AdamW two(resumed, {});
  two.load_state(saved, "optimizer.safetensors");
  CHECK(two.steps() == 5);
  train(two, y, 5, 10);
  CHECK(same_bits("x", values<float>(y.value()), values<float>(x.value())));
  // Without the state the comparison fails.
  Parameters fresh;
  const Variable z = fresh.add("x", Tensor::from<float>({7, 143}, start));
  AdamW three(fresh, {});
  train(three, z, 5, 10);
  CHECK_FALSE(same_bits("x", values<float>(z.value()), values<float>(x.value())));
}

TEST_CASE("AdamW: a state that does not fit is listed", "[cpu]") {
  Parameters module;
  module.add("x", Tensor::from<float>({2}, {1, -2}));
  AdamW optimizer(module, {});
  const NamedTensors wrong = {{"m.x", Tensor::zeros({3}, DType::kFloat32)},
                              {"v.y", Tensor::zeros({1}, DType::kFloat32)},
                              {"step", Tensor::from<int64_t>({1}, {4})}};
  CHECK(error_of([&] { optimizer.load_state(wrong, "o.safetensors"); }) ==
        "o.safetensors: does not fit the optimiser: \"m.x\" is float32 (3), wanted float32 (2); \"v.x\" is missing, "
        "wanted float32 (2); \"v.y\", float32 (1), is none of its tensors");
  CHECK(optimizer.steps() == 0);
}

TEST_CASE("the cosine is transformers' get_cosine_schedule_with_warmup behind the warm-up", "[cpu]") {
  const SafetensorsFile& file = golden();
  const Tensor rates = file.read("learning_rate");
  const ScheduleConfig config{.warmup = 4, .schedule = ScheduleKind::kCosine, .lr_final = 0};
  for (int64_t step = 4; step <= 20; ++step) {
    CHECK(0.01 * schedule_factor(config, step, 20) == Approx(rates.data<double>()[step]).margin(1e-17));
  }
  for (int64_t step = 0; step < 4; ++step) {
    CHECK(schedule_factor(config, step, 20) == Approx(static_cast<double>(step + 1) / 5));
  }
}

TEST_CASE("schedules at their edges", "[cpu]") {
  const ScheduleConfig constant{.warmup = 2, .schedule = ScheduleKind::kConstant, .lr_final = 0};
  CHECK(schedule_factor(constant, 0, 10) == Approx(1.0 / 3));
  CHECK(schedule_factor(constant, 2, 10) == 1);
  CHECK(schedule_factor(constant, 9, 10) == 1);
  const ScheduleConfig cosine{.warmup = 0, .schedule = ScheduleKind::kCosine, .lr_final = 0.1};
  CHECK(schedule_factor(cosine, 0, 10) == 1);
  CHECK(schedule_factor(cosine, 5, 10) == Approx(0.55));
  CHECK(schedule_factor(cosine, 10, 10) == Approx(0.1));
  CHECK(schedule_factor(cosine, 1000, 10) == Approx(0.1));
  CHECK(schedule_factor(cosine, 0, 1) == 1);
  const ScheduleConfig all_warmup{.warmup = 10, .schedule = ScheduleKind::kCosine, .lr_final = 0};
  CHECK(schedule_factor(all_warmup, 9, 10) == Approx(10.0 / 11));
  CHECK(schedule_factor(all_warmup, 10, 10) == 1);
}

}  // namespace
}  // namespace blockstate::train
