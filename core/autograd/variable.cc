// SPDX-License-Identifier: Apache-2.0
#include "core/autograd/variable.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <unordered_map>
#include <unordered_set>

#include "core/base/profile.h"

namespace blockstate {
namespace {

thread_local bool recording = true;
using Arrived = std::unordered_map<Node*, std::vector<Tensor>>;
thread_local Arrived* walking = nullptr;  // gradients on their way, while backward() runs
std::atomic<uint64_t> parameter_version{1};

/// Adds a gradient to what has arrived so far. A tensor that someone else may hold is never written to.
void add_grad(Tensor& sum, const Tensor& grad) {
  if (!sum.defined()) {
    sum = grad;
    return;
  }
  if (!sum.unique() || !sum.contiguous()) {
    sum = sum.clone();
  }
  accumulate(sum, grad);
}

/// Nodes from the roots down, each before all nodes that its inputs come from.
std::vector<Node*> topological_order(const std::vector<Variable>& roots) {
  std::vector<Node*> order;
  std::unordered_set<Node*> visited;
  struct Frame {
    Node* node;
    size_t next_input;
  };
  std::vector<Frame> stack;
  const auto enter = [&](const std::shared_ptr<Edge>& edge) {
    if (edge && edge->creator && visited.insert(edge->creator.get()).second) {
      stack.push_back({edge->creator.get(), 0});
    }
  };
  for (const Variable& root : roots) {
    enter(root.edge());
    while (!stack.empty()) {
      Frame& frame = stack.back();
      if (frame.next_input < frame.node->inputs.size()) {
        enter(frame.node->inputs[frame.next_input++]);
      } else {
        order.push_back(frame.node);
        stack.pop_back();
      }
    }
  }
  std::reverse(order.begin(), order.end());
  return order;
}

double bytes_of(const Tensor& tensor) {
  return tensor.defined() ? static_cast<double>(tensor.elements() * dtype_size(tensor.dtype())) : 0;
}

Tensor ones_like(const Tensor& value) {
  Tensor ones = Tensor::empty(value.shape(), value.dtype(), value.device());
  ones.fill(1);
  return ones;
}

/// With BLOCKSTATE_CHECK_FINITE=1 in the environment every result is looked at, so that a number that is not finite is
/// named where it arises rather than where the loss shows it.
void check_finite(const std::string& op, const std::vector<Tensor>& tensors) {
  static const bool wanted = [] {
    const char* value = std::getenv("BLOCKSTATE_CHECK_FINITE");
    return value != nullptr && value[0] == '1';
  }();
  for (size_t i = 0; wanted && i < tensors.size(); ++i) {
    const Tensor& tensor = tensors[i];
    if (!tensor.defined() || dtype_size(tensor.dtype()) == 1 || tensor.dtype() == DType::kInt64) {
      continue;
    }
    const Tensor values = tensor.to(Device{}).to(DType::kFloat64).packed();
    const double* value = values.data<double>();
    for (int64_t at = 0; at < values.elements(); ++at) {
      require(std::isfinite(value[at]), op, ": element ", at, " of result ", i, " of shape ",
              shape_text(tensor.shape()), " is ", value[at]);
    }
  }
}

/// A walk may start another inside it (recompute).
class WalkScope {
 public:
  explicit WalkScope(Arrived* arrived) : previous_(walking) { walking = arrived; }
  ~WalkScope() { walking = previous_; }
  WalkScope(const WalkScope&) = delete;
  WalkScope& operator=(const WalkScope&) = delete;

 private:
  Arrived* previous_;
};

}  // namespace

Tensor pending_grad(const std::shared_ptr<Edge>& edge) {
  if (walking == nullptr || !edge) {
    return {};
  }
  const auto if_free = [](const Tensor& grad) {
    return grad.defined() && grad.unique() && grad.contiguous() ? grad : Tensor();
  };
  if (!edge->creator) {
    return if_free(edge->grad);
  }
  const auto found = walking->find(edge->creator.get());
  if (found == walking->end() || static_cast<size_t>(edge->output) >= found->second.size()) {
    return {};
  }
  return if_free(found->second[static_cast<size_t>(edge->output)]);
}

Node::~Node() {
  std::vector<std::shared_ptr<Edge>> going = std::move(inputs);
  while (!going.empty()) {
    const std::shared_ptr<Edge> edge = std::move(going.back());
    going.pop_back();
    if (edge && edge.use_count() == 1 && edge->creator && edge->creator.use_count() == 1) {
      // Its inputs are taken from it before `edge` frees it.
      std::move(edge->creator->inputs.begin(), edge->creator->inputs.end(), std::back_inserter(going));
      edge->creator->inputs.clear();
    }
  }
}

Variable::Variable(Tensor value, bool requires_grad) : value_(std::move(value)) {
  if (requires_grad) {
    edge_ = std::make_shared<Edge>();
  }
}

const Tensor& Variable::grad() const {
  static const Tensor none;
  return edge_ ? edge_->grad : none;
}

void Variable::clear_grad() {
  if (edge_) {
    edge_->grad = Tensor();
  }
}

Tensor rounded_value(const Variable& variable, DType dtype) {
  const Tensor& value = variable.value();
  const std::shared_ptr<Edge>& edge = variable.edge();
  if (value.dtype() == dtype || !edge || edge->creator) {
    return value.to(dtype);
  }
  const uint64_t version = parameter_version;
  if (edge->rounded_version != version || edge->rounded.dtype() != dtype) {
    edge->rounded = Tensor();  // its memory may serve the new one
    edge->rounded = value.to(dtype);
    edge->rounded_version = version;
  }
  return edge->rounded;
}

void parameters_changed() { ++parameter_version; }

uint64_t parameters_version() { return parameter_version; }

std::vector<Variable> record(const char* name, std::vector<Tensor> outputs, const std::vector<Variable>& inputs,
                             Backward backward) {
  double bytes = 0;
  if (profile::enabled()) {
    for (const Variable& input : inputs) {
      bytes += bytes_of(input.value());
    }
    for (const Tensor& output : outputs) {
      bytes += bytes_of(output);
    }
    profile::mark(name, bytes);
  }
  check_finite(name, outputs);
  const bool wanted = recording && std::any_of(inputs.begin(), inputs.end(),
                                               [](const Variable& input) { return input.requires_grad(); });
  std::vector<Variable> results;
  results.reserve(outputs.size());
  if (!wanted) {
    for (Tensor& output : outputs) {
      results.emplace_back(std::move(output));
    }
    return results;
  }
  auto node = std::make_shared<Node>();
  node->name = name;
  node->backward = std::move(backward);
  for (const Variable& input : inputs) {
    node->inputs.push_back(input.edge());
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    node->output_shapes.push_back(outputs[i].defined() ? outputs[i].shape() : Shape());
    auto edge = std::make_shared<Edge>();
    edge->creator = node;
    edge->output = static_cast<int>(i);
    results.emplace_back(std::move(outputs[i]), std::move(edge));
  }
  return results;
}

Variable record_one(const char* name, Tensor output, const std::vector<Variable>& inputs,
                    std::function<std::vector<Tensor>(const Tensor& grad)> backward) {
  return record(name, {std::move(output)}, inputs,
                [backward = std::move(backward)](const std::vector<Tensor>& grads) { return backward(grads[0]); })[0];
}

void backward(const std::vector<Variable>& roots, const std::vector<Tensor>& grads) {
  require(roots.size() == grads.size(), "backward: ", roots.size(), " roots but ", grads.size(), " gradients");
  GradMode off(false);
  Arrived arrived;
  const WalkScope scope(&arrived);
  const auto deliver = [&](const std::shared_ptr<Edge>& edge, const Tensor& grad) {
    if (!edge || !grad.defined()) {
      return;
    }
    if (!edge->creator) {
      add_grad(edge->grad, grad);
      return;
    }
    auto& outputs = arrived[edge->creator.get()];
    outputs.resize(edge->creator->output_shapes.size());
    add_grad(outputs[edge->output], grad);
  };
  for (size_t i = 0; i < roots.size(); ++i) {
    if (roots[i].requires_grad()) {
      require(!grads[i].defined() || grads[i].shape() == roots[i].shape(), "backward: root ", i, " has shape ",
              shape_text(roots[i].shape()), " but its gradient has shape ", shape_text(grads[i].shape()));
      deliver(roots[i].edge(), grads[i].defined() ? grads[i] : ones_like(roots[i].value()));
    }
  }
  for (Node* node : topological_order(roots)) {
    const auto found = arrived.find(node);
    if (found == arrived.end()) {
      continue;
    }
    const std::vector<Tensor> output_grads = std::move(found->second);
    arrived.erase(found);
    require(node->backward != nullptr, "backward: the graph through ", node->name, " was already walked");
    profile::mark("between ops", 0);
    std::vector<Tensor> input_grads = node->backward(output_grads);
    if (profile::enabled()) {
      double bytes = 0;
      for (const Tensor& grad : output_grads) {
        bytes += bytes_of(grad);
      }
      for (const Tensor& grad : input_grads) {
        bytes += 2 * bytes_of(grad);  // the input is read again, its gradient written
      }
      profile::mark(node->name + " backward", bytes);
    }
    check_finite(node->name + " backward", input_grads);
    for (const std::shared_ptr<Edge>& edge : node->inputs) {
      if (edge && !edge->creator) {
        check_finite(node->name + " backward", {edge->grad});  // may have been added to in place
      }
    }
    node->backward = nullptr;
    require(input_grads.size() == node->inputs.size(), node->name, ": backward gave ", input_grads.size(),
            " gradients for ", node->inputs.size(), " inputs");
    for (size_t i = 0; i < input_grads.size(); ++i) {
      Tensor grad = std::move(input_grads[i]);
      deliver(node->inputs[i], grad);
    }
  }
}

bool grad_enabled() { return recording; }

GradMode::GradMode(bool enabled) : previous_(recording) { recording = enabled; }
GradMode::~GradMode() { recording = previous_; }

}  // namespace blockstate
