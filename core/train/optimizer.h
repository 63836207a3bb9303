// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/config/visitor.h"
#include "core/nn/module.h"
#include "core/train/safetensors.h"
#include "kernels/adamw.h"

namespace blockstate::train {

/// Keys of [train] in a run file.
struct OptimizerConfig {
  double lr = 1e-3;
  double weight_decay = 0.1;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double clip = 1.0;

  void visit(config::Visitor& v);
};

struct StepReport {
  double grad_norm = 0;  ///< global, before clipping, after `gradient_scale`
  double lr = 0;         ///< base learning rate of this step
  bool skipped = false;  ///< the norm was not finite: neither parameters nor state were touched
};

/// AdamW over a module's parameters (kernels/adamw.h). A parameter's learning rate is min(its max_lr, lr) * factor, its
/// weight decay 0 where its options say so.
class AdamW {
 public:
  AdamW(const nn::Module& module, const OptimizerConfig& config);

  /// One step with the collected gradients times `gradient_scale` (1 / batches summed up). `factor` is the schedule's.
  /// A parameter no gradient reached has gradient zero. Gradients are left as they are.
  StepReport step(double factor, double gradient_scale = 1);
  /// The same in two parts: the step is given to the device, and later waited for. Between them steps() is the old
  /// number.
  void start_step(double factor, double gradient_scale = 1);
  StepReport finish_step();
  void clear_gradients();

  /// Steps taken; those skipped do not count.
  int64_t steps() const { return steps_; }
  /// "m.NAME", "v.NAME" (the parameter's shape) and "step" (1) int64. They share memory with the optimiser.
  NamedTensors state() const;
  /// Error if a tensor is missing, unexpected or of another shape or type; it lists them and names `file`. Nothing is
  /// changed then.
  void load_state(const NamedTensors& state, const std::string& file);

  const OptimizerConfig& config() const { return config_; }

 private:
  struct Slot {
    nn::Parameter parameter;
    Tensor m;
    Tensor v;
  };
  template <class T>
  double squared_norm(const std::vector<Tensor>& gradients) const;
  template <class T>
  std::vector<kernels::AdamWTensor<T>> tensors(const std::vector<Tensor>& gradients, double factor) const;
  kernels::AdamWOptions options(double gradient_scale) const;
  void start_on_gpu(const std::vector<Tensor>& gradients, double factor, double gradient_scale);

  OptimizerConfig config_;
  std::vector<Slot> slots_;
  int64_t steps_ = 0;
  StepReport report_;  // of the step begun
  Tensor gpu_report_;  // a kernels::AdamWReport; defined while a GPU works on it
};

}  // namespace blockstate::train
