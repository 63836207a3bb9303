// SPDX-License-Identifier: Apache-2.0
#include "apps/bench/timing.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "core/autograd/ops.h"
#include "core/base/random.h"
#include "core/tensor/tensor.h"
#include "kernels/cuda_exec.h"

namespace blockstate::apps {
namespace {

constexpr int64_t kWarmUps = 3;
constexpr double kLongRun = 0.5;  // seconds

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median_of(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

constexpr int64_t kDistinct = (1 << 20) + 7;

bool on_gpu(Device device) { return device.kind == DeviceKind::kCuda; }

}  // namespace

Tensor random_tensor(const Shape& shape, DType dtype, Device device, double scale) {
  const int64_t count = element_count(shape);
  const int64_t distinct = std::min(count, kDistinct);
  RandomStream random(7);
  std::vector<double> values(static_cast<size_t>(distinct));
  for (double& value : values) {
    value = scale * random.normal();
  }
  const Tensor first = Tensor::from({distinct}, values).to(DType::kFloat32).to(device).to(dtype);
  Tensor flat = Tensor::empty({count}, dtype, device);
  for (int64_t begin = 0; begin < count; begin += distinct) {
    const int64_t length = std::min(distinct, count - begin);
    flat.slice(0, begin, begin + length).copy_from(first.slice(0, 0, length));
  }
  return flat.reshape(shape);
}

Tensor random_tensor(const Shape& shape, const Bench& bench, double scale) {
  return random_tensor(shape, bench.dtype(), bench.device(), scale);
}

Bench::Bench(Device device, DType dtype, int64_t repetitions)
    : device_(device), dtype_(dtype), repetitions_(repetitions) {
  const int64_t cache = on_gpu(device) ? kernels::cuda::device_properties(device.index).l2_cache : int64_t{64} << 20;
  larger_than_cache_ = Variable(Tensor::zeros({std::max<int64_t>(cache, 1 << 20)}, DType::kFloat32, device));
  ceilings_ = measure_ceilings();
}

// Read, not written: what is measured would have to wait for the cache to be written back.
void Bench::flush() const {
  GradMode off(false);
  ops::weighted_sum(larger_than_cache_, Tensor());
}

double Bench::median(const std::function<void()>& prepare, const std::function<void()>& run) const {
  std::vector<double> times;
  std::vector<std::unique_ptr<kernels::cuda::StreamClock>> clocks;
  for (int64_t i = -kWarmUps; i < repetitions_; ++i) {
    if (prepare) {
      prepare();
    }
    flush();
    if (!on_gpu(device_)) {
      const double begin = now();
      run();
      if (i >= 0) {
        times.push_back(now() - begin);
      }
      continue;
    }
    // The flush keeps the GPU busy while the host queues what is measured: launches cost no time of it.
    auto clock = std::make_unique<kernels::cuda::StreamClock>(kernels::cuda::exec(device_.index));
    clock->start();
    run();
    clock->stop();
    if (i >= 0) {
      clocks.push_back(std::move(clock));
    }
  }
  for (const auto& clock : clocks) {
    times.push_back(clock->seconds());
  }
  return median_of(times);
}

double Bench::median_wall(const std::function<void()>& run, int64_t repetitions) const {
  std::vector<double> times;
  for (int64_t i = -kWarmUps; i < repetitions; ++i) {
    const double begin = now();
    run();
    if (on_gpu(device_)) {
      kernels::cuda::synchronize(kernels::cuda::exec(device_.index));
    }
    const double seconds = now() - begin;
    if (i >= 0) {
      times.push_back(seconds);
    } else if (seconds > kLongRun) {
      i = -1;  // a run this long is warm at its end
    }
  }
  return median_of(times);
}

Ceilings Bench::measure_ceilings() const {
  GradMode off(false);
  Ceilings found;
  const int64_t bytes = on_gpu(device_) ? int64_t{1} << 30 : int64_t{1} << 27;
  Tensor from = Tensor::zeros({bytes}, DType::kUInt8, device_);
  Tensor to = Tensor::empty({bytes}, DType::kUInt8, device_);
  found.copy = 2 * static_cast<double>(bytes) / median({}, [&] { to.copy_from(from); });

  const int64_t n = on_gpu(device_) ? 8192 : 1024;
  const Variable a(random_tensor({n, n}, *this)), weight(random_tensor({n, n}, *this));
  Variable y;
  const double n3 = static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
  found.product = 2 * n3 / median({}, [&] { y = ops::linear(a, weight); });
  return found;
}

}  // namespace blockstate::apps
