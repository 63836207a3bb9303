// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "apps/bench/timing.h"
#include "core/autograd/variable.h"

namespace blockstate::apps {

/// What one pass must do at least: the roofline is the longest of the three times.
struct Work {
  double bytes = 0;         ///< of memory, each input read and each output written once
  double flops = 0;         ///< of matrix products
  double exponentials = 0;  ///< on the special-function unit of a GPU, 16 a clock and multiprocessor
};

/// An op with its inputs in memory.
struct OpRun {
  std::vector<Variable> leaves;
  std::function<std::vector<Variable>()> forward;
  std::vector<Tensor> output_grads;  ///< of the outputs that have one
  Work forward_work, backward_work;
};

struct OpCase {
  std::string op;
  std::string shape;
  std::function<OpRun(const Bench&)> make;
};

/// Ops at the shapes of models on a GPU, or at ones that a CPU does in a blink.
std::vector<OpCase> op_cases(Device device);

/// One row of the table of models.
struct ModelResult {
  double tokens_per_second = 0;
  double seconds = 0;  ///< of a step: of training, of a prompt, of one generated token
  int64_t peak_bytes = 0;
};

struct ModelCase {
  std::string model;
  std::string what;
  std::string shape;
  std::function<ModelResult(const Bench&)> run;
};

std::vector<ModelCase> model_cases(Device device);
/// Training, and a forward pass alone, of one sequence that grows: in one piece, and in chunks.
std::vector<ModelCase> length_cases(Device device);

}  // namespace blockstate::apps
