// SPDX-License-Identifier: Apache-2.0
// How `blockstate bench` measures: warm-up apart, caches flushed between repetitions, medians, in the device's own
// time.
#pragma once

#include <cstdint>
#include <functional>

#include "core/autograd/variable.h"
#include "core/base/device.h"
#include "core/base/dtype.h"
#include "core/tensor/tensor.h"

namespace blockstate::apps {

/// Best rates of the device, measured by the same means, so that every figure has its ceiling beside it.
struct Ceilings {
  double copy = 0;     ///< bytes per second, read and written
  double product = 0;  ///< floating-point operations per second of a large matrix product
};

class Bench {
 public:
  Bench(Device device, DType dtype, int64_t repetitions);
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  Device device() const { return device_; }
  DType dtype() const { return dtype_; }
  const Ceilings& ceilings() const { return ceilings_; }
  /// Median seconds of `run`. `prepare` (may be empty) is called before each repetition and is not measured.
  double median(const std::function<void()>& prepare, const std::function<void()>& run) const;
  /// Median seconds of `run` by the host's clock, the device's work included: for what a host paces, such as steps of
  /// training.
  double median_wall(const std::function<void()>& run, int64_t repetitions) const;

 private:
  void flush() const;
  Ceilings measure_ceilings() const;

  Device device_;
  DType dtype_;
  int64_t repetitions_;
  Variable larger_than_cache_;  ///< four times: reading it pushes everything else out
  Ceilings ceilings_;
};

/// Normal numbers, the same every time. Made on the host once and repeated: a large tensor is filled on its device.
Tensor random_tensor(const Shape& shape, const Bench& bench, double scale = 1);
Tensor random_tensor(const Shape& shape, DType dtype, Device device, double scale = 1);

}  // namespace blockstate::apps
