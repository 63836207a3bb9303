// SPDX-License-Identifier: Apache-2.0
#include "core/autograd/recompute.h"

#include <limits>
#include <memory>

#include "core/autograd/kept.h"

namespace blockstate {

NamedVariables recompute(const Segment& segment, const NamedVariables& inputs, bool keep_costly) {
  if (!grad_enabled()) {
    return segment(inputs);
  }
  NamedVariables outputs;
  const auto kept = std::make_shared<Kept>();
  KeepRoom room{.bytes = keep_costly ? std::numeric_limits<int64_t>::max() : 0};
  {
    GradMode off(false);
    const LeaveScope leaving(*kept, room);
    outputs = segment(inputs);
  }
  std::vector<Variable> edges;
  NamedVariables saved;
  for (const auto& [name, input] : inputs) {
    edges.push_back(input);
    saved.emplace_back(name, Variable(input.value(), input.requires_grad()));
  }
  // The parameters inside want gradients even where no input does: this leaf keeps the node in the graph.
  edges.push_back(Variable(Tensor::empty({0}, DType::kFloat32), true));

  std::vector<Tensor> values;
  for (const auto& [name, output] : outputs) {
    values.push_back(output.value());
  }
  std::vector<Variable> results =
      record("recompute", values, edges, [segment, saved, kept](const std::vector<Tensor>& grads) {
        GradMode on(true);
        // Fresh leaves: `saved` must not collect gradients of an earlier walk.
        NamedVariables leaves;
        for (const auto& [name, input] : saved) {
          leaves.emplace_back(name, Variable(input.value(), input.requires_grad()));
        }
        const NamedVariables rebuilt = [&] {
          const TakeScope taking(*kept);
          return segment(leaves);
        }();
        std::vector<Variable> roots;
        std::vector<Tensor> root_grads;
        for (size_t i = 0; i < rebuilt.size(); ++i) {
          if (grads[i].defined()) {
            roots.push_back(rebuilt[i].second);
            root_grads.push_back(grads[i]);
          }
        }
        backward(roots, root_grads);
        std::vector<Tensor> input_grads;
        for (const auto& [name, leaf] : leaves) {
          input_grads.push_back(leaf.grad());
        }
        input_grads.emplace_back();
        return input_grads;
      });
  NamedVariables named;
  for (size_t i = 0; i < results.size(); ++i) {
    named.emplace_back(outputs[i].first, results[i]);
  }
  return named;
}

}  // namespace blockstate
