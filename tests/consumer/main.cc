// SPDX-License-Identifier: Apache-2.0
// Makes a small model, runs a sequence in two chunks through the carry, and takes a gradient.
#include <cmath>
#include <cstdio>

#include "core/autograd/ops.h"
#include "core/model/model.h"

using namespace blockstate;

int main() {
  model::ModelConfig config;
  config.d_model = 8;
  config.blocks = {"mamba gated_mlp"};
  const model::ModelShape shape{model::HeadKind::kLanguageModel, 4, 0, 4, false};
  const model::Model model(config, shape, nn::Initialiser(1));
  const auto input = [](std::vector<int64_t> ids, int64_t offset) {
    const auto length = static_cast<int64_t>(ids.size());
    return model::ModelInput{Tensor::from({1, length}, ids), {}, nn::plain_sequence(1, length, offset)};
  };

  nn::CarryMap carry;
  model.forward(input({0, 1, 2}, 0), &carry);
  const Variable chunk = model.forward(input({3, 2}, 3), &carry);
  const Variable whole = ops::slice(model.forward(input({0, 1, 2, 3, 2}, 0)), 1, 3, 5);
  const Tensor targets = Tensor::from({2}, std::vector<int64_t>{2, 1});
  double losses[2] = {};
  for (int i = 0; i < 2; ++i) {
    const Variable loss = ops::cross_entropy(ops::reshape(i == 0 ? chunk : whole, {2, 4}), targets, 0);
    losses[i] = loss.value().data<float>()[0];
    backward(loss);
  }
  double norm = 0;
  for (const nn::Parameter& parameter : model.parameters()) {
    const Tensor grad = parameter.variable.grad();
    for (int64_t k = 0; grad.defined() && k < grad.elements(); ++k) {
      norm += grad.data<float>()[k] * grad.data<float>()[k];
    }
  }
  std::printf("parameters %lld, loss %.6f in chunks, %.6f whole, gradient %.6f\n",
              static_cast<long long>(model.parameter_count()), losses[0], losses[1], std::sqrt(norm));
  return std::abs(losses[0] - losses[1]) < 1e-5 && norm > 0 ? 0 : 1;
}
