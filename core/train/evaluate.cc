// SPDX-License-Identifier: Apache-2.0
#include "core/train/evaluate.h"

#include <algorithm>

#include "core/train/metrics.h"

namespace blockstate::train {

std::string primary_metric(model::HeadKind head) {
  return head == model::HeadKind::kLanguageModel ? "bits_per_symbol" : "accuracy";
}

bool higher_is_better(model::HeadKind head) { return head != model::HeadKind::kLanguageModel; }

void for_logits(const model::Model& model, const model::ModelInput& input, int64_t chunk,
                const std::function<void(const Tensor& logits, int64_t begin, int64_t end)>& use) {
  GradMode off(false);
  const int64_t L = input.sequence.length();
  if (chunk <= 0 || chunk >= L) {
    use(model.forward(input).value(), 0, L);
    return;
  }
  const bool per_step = model.shape().head != model::HeadKind::kClassify;
  nn::CarryMap carry;
  for (int64_t begin = 0; begin < L; begin += chunk) {
    const int64_t end = std::min(L, begin + chunk);
    const Tensor logits = model.forward(slice_steps(model, input, begin, end), &carry).value();
    if (per_step || end == L) {
      use(logits, begin, end);
    }
  }
}

namespace {

/// Logits as the metrics read them: float32 or float64, on the CPU.
Tensor on_host(const Tensor& logits) {
  return (logits.dtype() == DType::kBFloat16 ? logits.to(DType::kFloat32) : logits).to(Device{});
}

}  // namespace

Evaluation evaluate(const model::Model& model, data::Loader& loader, const Objective& objective, int64_t chunk) {
  GradMode off(false);
  const model::HeadKind head = model.shape().head;
  ClassificationMetrics classes(model.shape().outputs);
  LanguageModelMetrics language;
  double loss_sum = 0;
  int64_t targets = 0;
  while (std::optional<data::Batch> batch = loader.next()) {
    const model::ModelInput input = model_input(model, *batch, false, 0, chunk);
    for_logits(model, input, chunk, [&](const Tensor& logits, int64_t begin, int64_t end) {
      const Tensor wanted =
          head == model::HeadKind::kClassify ? batch->targets : batch->targets.slice(1, begin, end).packed();
      const LossResult result = loss_of_logits(Variable(logits), wanted, objective, 1);
      const double loss = result.loss.value().item();
      loss_sum += loss;
      targets += result.targets;
      if (head == model::HeadKind::kLanguageModel) {
        language.add(loss, result.targets);
      } else {
        classes.add(on_host(logits), wanted);
      }
    });
  }
  Evaluation evaluation;
  evaluation.targets = targets;
  evaluation.loss = targets > 0 ? loss_sum / static_cast<double>(targets) : 0;
  evaluation.metric = primary_metric(head);
  evaluation.higher_is_better = higher_is_better(head);
  if (head == model::HeadKind::kLanguageModel) {
    evaluation.value = language.bits().value_or(0);
    evaluation.details = language.to_value();
  } else {
    evaluation.value = classes.accuracy().value_or(0);
    evaluation.details = classes.to_value();
  }
  evaluation.details.set("loss", config::Value(evaluation.loss));
  return evaluation;
}

}  // namespace blockstate::train
