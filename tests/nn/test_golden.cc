// SPDX-License-Identifier: Apache-2.0
// Against numbers that other programs computed (tests/golden/README.md says which, and how they were checked). AdamW,
// clipping and the learning rate have theirs in tests/core/test_optimizer.cc, mu-law in tests/audio.
#include <catch2/catch.hpp>
#include <numbers>

#include "core/autograd/ops.h"
#include "core/model/model.h"
#include "core/nn/hippo.h"
#include "core/train/objective.h"
#include "tests/nn/golden.h"

namespace blockstate {
namespace {

using test::golden;
using test::load_golden;
using test::near;
using train::NamedTensors;

// Sums in another order, over at most a few hundred terms: 1e-16 each, and 37 to 50 recurrent steps.
constexpr double kDouble = 1e-11;
// The same in float32, whose unit is 6e-8.
constexpr double kFloat = 1e-4;

std::map<std::string, std::string> mamba_names() {
  std::map<std::string, std::string> names = {{"embedding.weight", "backbone.embeddings.weight"},
                                              {"norm.weight", "backbone.norm_f.weight"}};
  for (const std::string layer : {"layers.0.", "layers.1."}) {
    for (const std::string part :
         {"norm.weight", "mixer.in_proj.weight", "mixer.conv1d.weight", "mixer.conv1d.bias", "mixer.x_proj.weight",
          "mixer.dt_proj.weight", "mixer.dt_proj.bias", "mixer.A_log", "mixer.D", "mixer.out_proj.weight"}) {
      names[layer + part] = "backbone." + layer + part;
    }
  }
  return names;
}

/// The inputs and next-token targets of ids (B, L): L - 1 steps.
struct NextToken {
  Tensor tokens, targets;
  explicit NextToken(const Tensor& ids)
      : tokens(ids.slice(1, 0, ids.size(1) - 1).packed()), targets(ids.slice(1, 1, ids.size(1)).packed()) {}
};

model::ModelInput input_of(const Tensor& tokens) {
  model::ModelInput input;
  input.tokens = tokens;
  input.sequence = nn::plain_sequence(tokens.size(0), tokens.size(1));
  return input;
}

}  // namespace

TEST_CASE("Mamba gives the logits, loss and gradients of transformers", "[golden]") {
  const DType dtype = GENERATE(DType::kFloat64, DType::kFloat32);
  const double rel = dtype == DType::kFloat64 ? kDouble : kFloat;
  const NamedTensors tensors = golden("mamba_small");
  model::ModelConfig config;
  config.d_model = 32;
  config.blocks = {"mamba * 2"};
  config.sublayers["mamba"] = {"mamba", nn::MambaConfig{.state = 8, .conv = 4, .expand = 2, .dt_rank = 2}};
  const model::ModelShape shape{.vocabulary = 16, .outputs = 16};
  const model::Model model(config, shape, nn::Initialiser(1, dtype));
  const auto names = mamba_names();
  load_golden(model.parameters(), tensors, names);
  CHECK(names.size() == model.parameters().size());

  const Tensor ids = tensors.at("input_ids");
  {
    GradMode off(false);
    CHECK(near("logits", model.forward(input_of(ids)).value(), tensors.at("logits"), rel));
  }
  const NextToken pair(ids);
  const train::LossResult result =
      train::loss_of_logits(model.forward(input_of(pair.tokens)), pair.targets, {}, pair.targets.elements());
  CHECK(result.targets == 72);
  CHECK(result.loss.value().item() == Approx(tensors.at("loss").item()).epsilon(rel));
  backward(result.loss);
  for (const nn::Parameter& parameter : model.parameters()) {
    CHECK(near(parameter.name, parameter.variable.grad().reshape({-1}),
               tensors.at("grad." + names.at(parameter.name)).reshape({-1}), rel));
  }
}

TEST_CASE("attention and gated MLP give the block of PyTorch", "[golden]") {
  const DType dtype = GENERATE(DType::kFloat64, DType::kFloat32);
  const double rel = dtype == DType::kFloat64 ? kDouble : kFloat;
  NamedTensors tensors = golden("attention_small");
  constexpr int64_t D = 24, kHidden = 40;
  // Our projections of q, k, v (and of value and gate) are one matrix.
  const auto join = [&](const std::string& name, const std::vector<std::string>& parts) {
    for (const std::string prefix : {"", "grad."}) {
      std::vector<Variable> pieces;
      for (const std::string& part : parts) {
        pieces.emplace_back(tensors.at(prefix + part));
      }
      tensors[prefix + name] = ops::concat(pieces, 0).value();
    }
  };
  join("qkv", {"q.weight", "k.weight", "v.weight"});
  join("fc1", {"value.weight", "gate.weight"});

  model::ModelConfig config;
  config.d_model = D;
  config.sublayers["attention"] = {"attention", nn::AttentionConfig{.heads = 3, .window = 8}};
  config.sublayers["gated_mlp"] = {"gated_mlp", nn::MlpConfig{.hidden = kHidden}};
  const nn::Initialiser init(1, dtype);
  const auto attention = model::make_sublayer(config, "attention", 1, init);
  const auto mlp = model::make_sublayer(config, "gated_mlp", 1, init);
  const nn::Norm norm1(D, nn::NormKind::kRms, init), norm2(D, nn::NormKind::kRms, init),
      norm3(D, nn::NormKind::kRms, init);
  const std::vector<std::pair<const nn::Module*, std::map<std::string, std::string>>> modules = {
      {attention.get(), {{"self.qkv.weight", "qkv"}, {"out_proj.weight", "o.weight"}}},
      {mlp.get(), {{"fc1.weight", "fc1"}, {"fc2.weight", "down.weight"}}},
      {&norm1, {{"weight", "norm1.weight"}}},
      {&norm2, {{"weight", "norm2.weight"}}},
      {&norm3, {{"weight", "norm3.weight"}}}};
  for (const auto& [module, names] : modules) {
    load_golden(module->parameters(), tensors, names);
  }

  const Variable x(tensors.at("x").to(dtype), true);
  const nn::Sequence sequence = nn::plain_sequence(x.size(0), x.size(1));
  const ops::Normed first = norm1.forward(x);
  const ops::Normed second = norm2.forward(attention->forward(first.y, sequence, {}), first.h);
  const Variable y = norm3.forward(mlp->forward(second.y, sequence, {}), second.h).y;
  CHECK(near("y", y.value(), tensors.at("y"), rel));
  backward({y}, {tensors.at("dy").to(dtype)});
  CHECK(near("dx", x.grad(), tensors.at("grad.x"), rel));
  for (const auto& [module, names] : modules) {
    for (const nn::Parameter& parameter : module->parameters()) {
      const std::string& name = names.at(parameter.name);
      CHECK(near(name, parameter.variable.grad(), tensors.at("grad." + name), rel));
    }
  }
}

TEST_CASE("S4D gives the convolution of PyTorch", "[golden]") {
  const DType dtype = GENERATE(DType::kFloat64, DType::kFloat32);
  const double rel = dtype == DType::kFloat64 ? kDouble : kFloat;
  const NamedTensors tensors = golden("s4d_small");
  std::map<std::string, Variable> in;
  for (const std::string name : {"x", "log_dt", "log_real", "imaginary", "B", "C", "D"}) {
    in[name] = Variable(tensors.at(name).to(dtype), true);
  }
  const ops::Discretized system = ops::s4d_discretize(in["log_dt"], in["log_real"], in["imaginary"], in["B"], in["C"]);
  CHECK(near("a", system.a.value(), tensors.at("a"), rel));
  CHECK(near("c", system.c.value(), tensors.at("c"), rel));
  const Variable y = ops::diagonal_scan(in["x"], system.a, system.c, in["D"], {}, {}, false).y;
  CHECK(near("y", y.value(), tensors.at("y"), rel));
  backward({y}, {tensors.at("dy").to(dtype)});
  for (const auto& [name, leaf] : in) {
    CHECK(near("d" + name, leaf.grad(), tensors.at("grad." + name), rel));
  }
  // The response to an impulse is the kernel.
  const int64_t L = tensors.at("kernel").size(0), D = tensors.at("kernel").size(1);
  Tensor impulse = Tensor::zeros({1, L, D}, DType::kFloat64);
  std::fill_n(impulse.data<double>(), D, 1.0);
  const Variable response =
      ops::diagonal_scan(Variable(impulse.to(dtype)), system.a.detach(), system.c.detach(), {}, {}, {}, false).y;
  CHECK(near("kernel", response.value().reshape({L, D}), tensors.at("kernel"), rel));
}

TEST_CASE("HiPPO-LegS has the eigenvalues of NumPy and the published ones", "[golden]") {
  const NamedTensors tensors = golden("s4d_small");
  for (const int64_t N : {4, 8, 16, 64}) {
    const nn::DiagonalHippo hippo = nn::hippo_legs(N);
    REQUIRE(static_cast<int64_t>(hippo.eigenvalues.size()) == N / 2);
    const std::vector<double> expected = test::doubles(tensors.at(join("legs_", N)));
    for (size_t i = 0; i < hippo.eigenvalues.size(); ++i) {
      CHECK(hippo.eigenvalues[i].real() == -0.5);
      // Both solvers are exact to 1e-16 of the largest eigenvalue.
      CHECK(std::abs(hippo.eigenvalues[i].imag() - expected[2 * i + 1]) <= 1e-14 * expected.back() * 10);
    }
    CHECK(nn::s4d_poles("legs", N) == hippo.eigenvalues);
  }
  // |B| of the fastest mode, computed with NumPy from the matrices as Gu et al. 2022 (arXiv 2206.11893) give them.
  const std::map<int64_t, double> fastest = {{4, 2.658015}, {8, 5.155626}, {16, 10.218278}, {64, 40.751841}};
  for (const auto& [N, size] : fastest) {
    CHECK(std::abs(nn::hippo_legs(N).B.back()) == Approx(size).margin(1e-6));
  }
  CHECK(nn::hippo_legs(2).eigenvalues[0].imag() == Approx(std::sqrt(3.0) / 2).epsilon(1e-14));
}

TEST_CASE("S4D-Inv, S4D-Lin and S4D-Real start at their published poles", "[golden]") {
  const auto inv = nn::s4d_poles("inv", 64), lin = nn::s4d_poles("lin", 64), real = nn::s4d_poles("real", 8);
  const std::map<size_t, double> expected = {
      {0, 1283.425461}, {1, 414.227265}, {2, 240.387626}, {30, 1.001893}, {31, 0.323362}};
  for (const auto& [n, frequency] : expected) {
    CHECK(inv.at(n).real() == -0.5);
    CHECK(inv.at(n).imag() == Approx(frequency).margin(1e-6));
  }
  for (size_t n = 0; n < 32; ++n) {
    CHECK(lin.at(n).real() == -0.5);
    CHECK(lin.at(n).imag() == Approx(std::numbers::pi * static_cast<double>(n)).epsilon(1e-15));
  }
  REQUIRE(real.size() == 4);
  CHECK(real.at(3) == std::complex<double>(-4, 0));
  CHECK_THROWS_AS(nn::s4d_poles("legs", 7), Error);
  CHECK_THROWS_AS(nn::s4d_poles("random", 8), Error);
}

TEST_CASE("T5's buckets are those of transformers", "[golden]") {
  const Tensor bucket = golden("t5_bias").at("bucket");
  int64_t wrong = 0;
  for (int64_t distance = 0; distance < bucket.elements(); ++distance) {
    wrong += nn::t5_bucket(distance) != bucket.data<int64_t>()[distance];
  }
  CHECK(bucket.elements() == 601);
  CHECK(wrong == 0);
  CHECK(nn::t5_bucket(int64_t{1} << 40) == 31);
}

TEST_CASE("cross entropy gives the losses and gradients of PyTorch", "[golden]") {
  const NamedTensors tensors = golden("cross_entropy");
  for (const auto& [name, smoothing] : {std::pair{"0", 0.0}, std::pair{"0.1", 0.1}}) {
    const Variable logits(tensors.at("logits"), true);
    const Variable loss = ops::cross_entropy(logits, tensors.at("targets"), smoothing);
    // Rows near +-700 keep 13 digits of a loss of a few nats.
    CHECK(near("loss", loss.value(), tensors.at(join("loss.", name)), 1e-13));
    backward({loss}, {tensors.at("dloss")});
    CHECK(near("dlogits", logits.grad(), tensors.at(join("dlogits.", name)), 1e-13));
  }
}

}  // namespace blockstate
