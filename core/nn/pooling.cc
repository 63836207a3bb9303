// SPDX-License-Identifier: Apache-2.0
#include "core/nn/pooling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/autograd/ops.h"

namespace blockstate::nn {
namespace {

/// Type and device of the sums over the steps of x: never bfloat16.
struct Exact {
  DType dtype;
  Device device;
};

Exact exact(const Variable& x) {
  return {x.dtype() == DType::kBFloat16 ? DType::kFloat32 : x.dtype(), x.value().device()};
}

/// A tensor filled by a rule over doubles.
template <class Rule>
Tensor make(const Shape& shape, const Exact& like, const Rule& rule) {
  std::vector<double> values(static_cast<size_t>(element_count(shape)));
  rule(values);
  return Tensor::from(shape, values).to(like.dtype).to(like.device);
}

/// Elements of a float tensor, on the CPU.
Tensor on_host(const Tensor& tensor) {
  const Tensor here = tensor.to(Device{});
  return (here.dtype() == DType::kBFloat16 ? here.to(DType::kFloat32) : here).to(DType::kFloat64).packed();
}

/// (B, L): 1 at valid steps.
Tensor valid_steps(const Sequence& sequence, const Exact& like) {
  const int64_t* record = sequence.host_record.data<int64_t>();
  return make(sequence.record.shape(), like, [&](std::vector<double>& values) {
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = record[i] >= 0 ? 1 : 0;
    }
  });
}

/// Total of the carried and the chunk's part; either may be absent.
Variable total(const Variable& past, const Variable& now) { return past.defined() ? ops::add(past, now) : now; }

}  // namespace

Pooling::Pooling(PoolingKind kind, int64_t width, const Initialiser& init) : kind_(kind) {
  if (kind == PoolingKind::kAttention) {
    score_ = add_child("score", std::make_unique<Linear>(width, 1, false, init.child("score")));
  }
}

Variable Pooling::forward(const Variable& x, const Sequence& sequence, const Carry& carry) const {
  switch (kind_) {
    case PoolingKind::kMean:
      return mean(x, sequence, carry);
    case PoolingKind::kLast:
      return last(x, sequence, carry);
    case PoolingKind::kAttention:
      break;
  }
  return attention(x, sequence, carry);
}

Variable Pooling::mean(const Variable& x, const Sequence& sequence, const Carry& carry) const {
  const Tensor valid = valid_steps(sequence, exact(x));
  const Variable sum = total(carry.get("sum"), ops::pool(x, Variable(valid), sequence.record, sequence.records));
  std::vector<double> counts(static_cast<size_t>(sequence.records), 0);
  for (int64_t i = 0; i < sequence.record.elements(); ++i) {
    const int64_t record = sequence.host_record.data<int64_t>()[i];
    if (record >= 0) {
      counts[static_cast<size_t>(record)] += 1;
    }
  }
  const Variable count = total(
      carry.get("count"), Variable(Tensor::from({sequence.records}, counts).to(exact(x).dtype).to(exact(x).device)));
  carry.set("sum", sum);
  carry.set("count", count);
  // A record that has had no step yet gives 0 rather than 0/0.
  const Tensor divisor = make({sequence.records}, exact(x), [&](std::vector<double>& values) {
    const Tensor seen = on_host(count.value());
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = 1 / std::max(1.0, seen.data<double>()[i]);
    }
  });
  return ops::scale_rows(sum, divisor);
}

Variable Pooling::last(const Variable& x, const Sequence& sequence, const Carry& carry) const {
  const int64_t B = x.size(0), L = x.size(1), R = sequence.records;
  std::vector<int64_t> latest(static_cast<size_t>(R), -1);  // flat index of the record's latest step in this chunk
  for (int64_t i = 0; i < B * L; ++i) {
    const int64_t record = sequence.host_record.data<int64_t>()[i];
    if (record >= 0) {
      latest[static_cast<size_t>(record)] = i;
    }
  }
  const Tensor weight = make({B, L}, exact(x), [&](std::vector<double>& values) {
    for (const int64_t at : latest) {
      if (at >= 0) {
        values[static_cast<size_t>(at)] = 1;
      }
    }
  });
  Variable result = ops::pool(x, Variable(weight), sequence.record, R);
  const Variable past = carry.get("last");
  if (past.defined()) {
    const Tensor keep = make({R}, exact(x), [&](std::vector<double>& values) {
      for (size_t r = 0; r < values.size(); ++r) {
        values[r] = latest[r] < 0 ? 1 : 0;
      }
    });
    result = ops::add(result, ops::scale_rows(past, keep));
  }
  carry.set("last", result);
  return result;
}

Variable Pooling::attention(const Variable& x, const Sequence& sequence, const Carry& carry) const {
  const int64_t B = x.size(0), L = x.size(1), R = sequence.records;
  const Variable score = ops::reshape(score_->forward(x), {B, L});
  // The running maximum only keeps exp in range; it cancels in the quotient, so it carries no gradient.
  const Variable past_max = carry.get("max");
  const Tensor before = past_max.defined() ? on_host(past_max.value()) : Tensor();
  std::vector<double> peak(static_cast<size_t>(R), -std::numeric_limits<double>::infinity());
  if (before.defined()) {
    std::copy_n(before.data<double>(), R, peak.begin());
  }
  const Tensor scores = on_host(score.value());
  for (int64_t i = 0; i < B * L; ++i) {
    const int64_t record = sequence.host_record.data<int64_t>()[i];
    if (record >= 0) {
      double& highest = peak[static_cast<size_t>(record)];
      highest = std::max(highest, scores.data<double>()[i]);
    }
  }
  const Tensor shift = make({R}, exact(x), [&](std::vector<double>& values) {
    for (size_t r = 0; r < values.size(); ++r) {
      values[r] = std::isfinite(peak[r]) ? peak[r] : 0;
    }
  });
  const Variable weight = ops::pool_weights(score, sequence.record, shift);
  Variable sum = ops::pool(x, weight, sequence.record, R);
  Variable mass =
      ops::pool(ops::reshape(weight, {B, L, 1}), Variable(valid_steps(sequence, exact(x))), sequence.record, R);
  if (before.defined()) {
    const Tensor fade = make({R}, exact(x), [&](std::vector<double>& values) {
      for (size_t r = 0; r < values.size(); ++r) {
        const double old = before.data<double>()[r];
        values[r] = std::isfinite(old) ? std::exp(old - peak[r]) : 0;
      }
    });
    sum = ops::add(sum, ops::scale_rows(carry.get("sum"), fade));
    mass = ops::add(mass, ops::scale_rows(carry.get("weight"), fade));
  }
  carry.set("sum", sum);
  carry.set("weight", mass);
  carry.set("max", Variable(Tensor::from({R}, peak).to(exact(x).dtype).to(exact(x).device)));
  // A record that has had no step yet has mass 0; divide it by 1.
  const Tensor nothing = make({R, 1}, exact(x), [&](std::vector<double>& values) {
    for (size_t r = 0; r < values.size(); ++r) {
      values[r] = std::isfinite(peak[r]) ? 0 : 1;
    }
  });
  return ops::divide_rows(sum, ops::reshape(ops::add(mass, Variable(nothing)), {R}));
}

}  // namespace blockstate::nn
