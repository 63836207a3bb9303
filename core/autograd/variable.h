// SPDX-License-Identifier: Apache-2.0
// Tape autograd. An op returns new Variables that remember how to send gradients back; backward() walks them once.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/tensor/tensor.h"

namespace blockstate {

struct Node;

/// Where a gradient arrives: either an output of a node, or a leaf that collects it. A node holds its inputs' edges,
/// never their values, so the memory kept for backward is exactly what each op saves on purpose.
struct Edge {
  std::shared_ptr<Node> creator;  ///< null: a leaf
  int output = 0;
  Tensor grad;     ///< leaves only; gradients of several backward calls add up
  Tensor rounded;  ///< leaves only: see rounded_value
  uint64_t rounded_version = 0;
};

/// A tensor in the graph. Copies share value and gradient.
class Variable {
 public:
  Variable() = default;  ///< undefined: stands for "absent"
  /// A leaf. With `requires_grad` it collects a gradient.
  explicit Variable(Tensor value, bool requires_grad = false);
  Variable(Tensor value, std::shared_ptr<Edge> edge) : value_(std::move(value)), edge_(std::move(edge)) {}

  bool defined() const { return value_.defined(); }
  const Tensor& value() const { return value_; }
  const Shape& shape() const { return value_.shape(); }
  int64_t size(int dimension) const { return value_.size(dimension); }
  DType dtype() const { return value_.dtype(); }

  bool requires_grad() const { return edge_ != nullptr; }
  const std::shared_ptr<Edge>& edge() const { return edge_; }
  /// Gradient collected by a leaf; undefined before any arrived.
  const Tensor& grad() const;
  void clear_grad();
  /// The same value cut off from the graph: gradients stop here.
  Variable detach() const { return Variable(value_); }

 private:
  Tensor value_;
  std::shared_ptr<Edge> edge_;
};

/// The value in another type, as products of a bfloat16 model want their weights. That of a leaf is kept until
/// parameters change, so that chunks of a step, and steps of generation, do not round the same weights again.
Tensor rounded_value(const Variable& variable, DType dtype);
/// To be called by whoever writes into the values of leaves: optimisers and readers of checkpoints.
void parameters_changed();
/// Grows with every call of parameters_changed(): what was derived from parameters at an older version is stale.
uint64_t parameters_version();

/// Gradients of a node's outputs (undefined where none arrived) -> gradients of its inputs (undefined: none).
using Backward = std::function<std::vector<Tensor>(const std::vector<Tensor>& output_grads)>;

struct Node {
  Node() = default;
  /// Frees what only this node kept alive one node after the other: a chain may be longer than the stack is deep.
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  std::string name;
  std::vector<std::shared_ptr<Edge>> inputs;  ///< null where no gradient is wanted
  std::vector<Shape> output_shapes;
  Backward backward;
};

/// Makes an op's outputs Variables. Where gradients are off, or no input wants one, they are plain values and
/// `backward` is dropped at once with all it saved.
std::vector<Variable> record(const char* name, std::vector<Tensor> outputs, const std::vector<Variable>& inputs,
                             Backward backward);
/// The same for an op with one output.
Variable record_one(const char* name, Tensor output, const std::vector<Variable>& inputs,
                    std::function<std::vector<Tensor>(const Tensor& grad)> backward);

/// Sends `grads[i]` back from `roots[i]` and adds to the gradients of all leaves. Roots without a graph are skipped; an
/// undefined grad means ones. Each node's saved tensors are freed as soon as it has run, so a graph can be walked once.
void backward(const std::vector<Variable>& roots, const std::vector<Tensor>& grads);
inline void backward(const Variable& root) { backward({root}, {Tensor()}); }

/// Inside a backward function: the gradient that has arrived so far where `edge` leads, if it may be added to in place;
/// else undefined. A function that adds its own gradient to it returns none for that input: a pass over memory saved,
/// and for parameters, whose gradients chunks add up, two launches for each.
Tensor pending_grad(const std::shared_ptr<Edge>& edge);

/// Whether ops record, in this thread.
bool grad_enabled();

/// Turns recording off (or on) for a scope.
class GradMode {
 public:
  explicit GradMode(bool enabled);
  ~GradMode();
  GradMode(const GradMode&) = delete;
  GradMode& operator=(const GradMode&) = delete;

 private:
  bool previous_;
};

}  // namespace blockstate
