// SPDX-License-Identifier: Apache-2.0
#include "core/train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "core/base/check.h"
#include "core/tensor/place.h"
#include "kernels/adamw.h"

namespace blockstate::train {

void OptimizerConfig::visit(config::Visitor& v) {
  v.field("lr", lr, "base learning rate", config::above(0));
  v.field("weight_decay", weight_decay, "decoupled, of matrices; biases, norms and state matrices have none",
          config::at_least(0));
  v.field("beta1", beta1, "decay of the mean of gradients", config::at_least(0).below(1));
  v.field("beta2", beta2, "decay of the mean of squared gradients", config::at_least(0).below(1));
  v.field("epsilon", epsilon, "added to the root of the mean square", config::above(0));
  v.field("clip", clip, "largest norm of all gradients together; 0: no limit", config::at_least(0));
}

AdamW::AdamW(const nn::Module& module, const OptimizerConfig& config) : config_(config) {
  for (const nn::Parameter& parameter : module.parameters()) {
    const Tensor& value = parameter.variable.value();
    require(value.dtype() == DType::kFloat32 || value.dtype() == DType::kFloat64, "the parameter \"", parameter.name,
            "\" is of type ", dtype_name(value.dtype()), ", wanted float32 or float64");
    require(value.contiguous(), "the parameter \"", parameter.name, "\" does not lie in one piece");
    slots_.push_back({parameter, Tensor::zeros(value.shape(), value.dtype(), value.device()),
                      Tensor::zeros(value.shape(), value.dtype(), value.device())});
  }
}

template <class T>
double AdamW::squared_norm(const std::vector<Tensor>& gradients) const {
  std::vector<kernels::NormTensor<T>> list;
  for (const Tensor& gradient : gradients) {
    if (gradient.dtype() == kDTypeOf<T>) {
      list.push_back({gradient.data<T>(), gradient.elements()});
    }
  }
  return kernels::cpu::squared_norm<T>(list.data(), static_cast<int64_t>(list.size()));
}

template <class T>
std::vector<kernels::AdamWTensor<T>> AdamW::tensors(const std::vector<Tensor>& gradients, double factor) const {
  std::vector<kernels::AdamWTensor<T>> list;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    const Tensor& value = slot.parameter.variable.value();
    if (value.dtype() != kDTypeOf<T>) {
      continue;
    }
    const nn::ParameterOptions& options = slot.parameter.options;
    list.push_back({.parameter = value.data<T>(),
                    .m = slot.m.data<T>(),
                    .v = slot.v.data<T>(),
                    .gradient = gradients[i].data<T>(),
                    .count = value.elements(),
                    .learning_rate = std::min(options.max_lr.value_or(config_.lr), config_.lr) * factor,
                    .weight_decay = options.decay ? config_.weight_decay : 0});
  }
  return list;
}

kernels::AdamWOptions AdamW::options(double gradient_scale) const {
  return {.beta1 = config_.beta1,
          .beta2 = config_.beta2,
          .epsilon = config_.epsilon,
          .gradient_scale = gradient_scale,
          .step = steps_};
}

#if defined(BLOCKSTATE_WITH_CUDA)
/// Norm, clipping and skipping are decided on the device: nothing is waited for here.
void AdamW::start_on_gpu(const std::vector<Tensor>& gradients, double factor, double gradient_scale) {
  const Device device = slots_.front().m.device();
  const kernels::cuda::Exec exec = kernels::cuda::exec(device.index);
  const std::vector<kernels::AdamWTensor<float>> list = tensors<float>(gradients, factor);
  const kernels::AdamWReport before{0, steps_};
  gpu_report_ = Tensor::empty({static_cast<int64_t>(sizeof(before))}, DType::kUInt8, device);
  kernels::cuda::copy_to_device(exec, gpu_report_.bytes(), &before, sizeof(before));
  kernels::cuda::adamw_step<float>(exec, list.data(), static_cast<int64_t>(list.size()), options(gradient_scale),
                                   config_.clip, reinterpret_cast<kernels::AdamWReport*>(gpu_report_.bytes()));
}
#endif

StepReport AdamW::step(double factor, double gradient_scale) {
  start_step(factor, gradient_scale);
  return finish_step();
}

StepReport AdamW::finish_step() {
#if defined(BLOCKSTATE_WITH_CUDA)
  if (gpu_report_.defined()) {
    kernels::AdamWReport report{};
    kernels::cuda::copy_to_host(kernels::cuda::exec(gpu_report_.device().index), &report, gpu_report_.bytes(),
                                sizeof(report));
    report_.grad_norm = std::sqrt(report.squared_norm);
    report_.skipped = !std::isfinite(report_.grad_norm);
    steps_ = report.step;
    gpu_report_ = Tensor();
  }
#endif
  return report_;
}

void AdamW::start_step(double factor, double gradient_scale) {
  parameters_changed();
  report_ = {};
  report_.lr = config_.lr * factor;
  std::vector<Tensor> gradients;
  for (const Slot& slot : slots_) {
    const Tensor& gradient = slot.parameter.variable.grad();
    gradients.push_back(gradient.defined() ? gradient.packed()
                                           : Tensor::zeros(slot.m.shape(), slot.m.dtype(), slot.m.device()));
    require(gradients.back().shape() == slot.m.shape() && gradients.back().dtype() == slot.m.dtype(),
            "the gradient of \"", slot.parameter.name, "\" is ", dtype_name(gradients.back().dtype()), " ",
            shape_text(gradients.back().shape()), ", the parameter ", dtype_name(slot.m.dtype()), " ",
            shape_text(slot.m.shape()));
  }
#if defined(BLOCKSTATE_WITH_CUDA)
  if (!slots_.empty() && slots_.front().m.device().kind == DeviceKind::kCuda) {
    start_on_gpu(gradients, factor, gradient_scale);
    return;
  }
#endif
  const double squares = squared_norm<float>(gradients) + squared_norm<double>(gradients);
  report_.grad_norm = std::sqrt(squares) * std::abs(gradient_scale);
  report_.skipped = !std::isfinite(report_.grad_norm);
  if (report_.skipped) {
    return;
  }
  ++steps_;
  const bool clipped = config_.clip > 0 && report_.grad_norm > config_.clip;
  const double scale = clipped ? gradient_scale * config_.clip / report_.grad_norm : gradient_scale;
  const auto singles = tensors<float>(gradients, factor);
  kernels::cpu::adamw<float>(singles.data(), static_cast<int64_t>(singles.size()), options(scale));
  const auto doubles = tensors<double>(gradients, factor);
  kernels::cpu::adamw<double>(doubles.data(), static_cast<int64_t>(doubles.size()), options(scale));
}

void AdamW::clear_gradients() {
  for (Slot& slot : slots_) {
    slot.parameter.variable.clear_grad();
  }
}

NamedTensors AdamW::state() const {
  NamedTensors tensors;
  for (const Slot& slot : slots_) {
    tensors["m." + slot.parameter.name] = slot.m;
    tensors["v." + slot.parameter.name] = slot.v;
  }
  tensors["step"] = Tensor::from<int64_t>({1}, {steps_});
  return tensors;
}

void AdamW::load_state(const NamedTensors& from, const std::string& file) {
  const NamedTensors places = state();
  copy_tensors(places, from, file, "the optimiser");
  steps_ = *places.at("step").data<int64_t>();
}

}  // namespace blockstate::train
