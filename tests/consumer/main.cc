// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "core/autograd/ops.h"
#include "core/model/model.h"

/// Makes a model, runs two chunks through one carry, sends the gradient back through both.
int main() {
  using namespace blockstate;
  model::ModelConfig config;
  config.d_model = 16;
  config.blocks = {"mamba gated_mlp"};
  const model::ModelShape shape{.head = model::HeadKind::kLanguageModel, .vocabulary = 5, .outputs = 5};
  const model::Model model(config, shape, nn::Initialiser(1));

  nn::CarryMap carry;
  Variable logits;
  for (const int64_t offset : {0, 4}) {
    model::ModelInput input;
    input.tokens = Tensor::from({1, 4}, std::vector<int64_t>{0, 1, 2, 3});
    input.sequence = nn::plain_sequence(1, 4, offset);
    logits = model.forward(input, &carry);
  }
  const Tensor targets = Tensor::from({4}, std::vector<int64_t>{1, 2, 3, 0});
  backward(ops::weighted_sum(ops::cross_entropy(ops::reshape(logits, {4, 5}), targets, 0), {}));
  for (const nn::Parameter& parameter : model.parameters()) {
    if (!parameter.variable.grad().defined()) {
      std::printf("%s got no gradient\n", parameter.name.c_str());
      return 1;
    }
  }
  std::printf("%lld parameters, %zu tensors carried\n", static_cast<long long>(model.parameter_count()), carry.size());
}
