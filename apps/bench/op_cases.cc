// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "apps/bench/cases.h"
#include "core/autograd/ops.h"
#include "core/base/check.h"
#include "core/base/random.h"
#include "core/nn/attention_range.h"

namespace blockstate::apps {
namespace {

std::string sizes(const std::vector<std::pair<const char*, int64_t>>& named) {
  std::string text;
  for (const auto& [name, size] : named) {
    text += join(text.empty() ? "" : " ", name, size);
  }
  return text;
}

double count(std::initializer_list<int64_t> sizes) {
  double product = 1;
  for (const int64_t size : sizes) {
    product *= static_cast<double>(size);
  }
  return product;
}

double width(const Bench& bench) { return static_cast<double>(dtype_size(bench.dtype())); }

Variable leaf(const Tensor& value) { return Variable(value, true); }

/// A parameter or state: float32 whatever the activations are.
Variable exact(const Shape& shape, const Bench& bench, double scale) {
  return leaf(random_tensor(shape, DType::kFloat32, bench.device(), scale));
}

/// Biases with which the channels' steps are log-uniform in 0.001 .. 0.1, as models are started with.
std::vector<float> step_size_biases(int64_t D) {
  RandomStream random(5);
  std::vector<float> bias(static_cast<size_t>(D));
  for (float& value : bias) {
    const double dt = 0.001 * std::pow(100.0, random.uniform());
    value = static_cast<float>(dt + std::log(-std::expm1(-dt)));  // softplus of it is dt
  }
  return bias;
}

/// Step sizes decide how long states live, and that how much a row cut into pieces costs: with `model_steps` they are
/// as in models, else a state is forgotten within some hundred steps.
OpCase scan_case(int64_t B, int64_t L, int64_t D, bool model_steps = false) {
  constexpr int64_t kStates = 16;
  const std::string op = model_steps ? "selective_scan dt 0.001-0.1" : "selective_scan";
  return {op, sizes({{"B", B}, {"D", D}, {"L", L}}), [=](const Bench& bench) {
            ops::SelectiveScanInputs in;
            in.u = leaf(random_tensor({B, L, D}, bench));
            in.delta = leaf(random_tensor({B, L, D}, bench, model_steps ? 0.1 : 0.5));
            in.z = leaf(random_tensor({B, L, D}, bench));
            in.B = leaf(random_tensor({B, L, kStates}, bench));
            in.C = leaf(random_tensor({B, L, kStates}, bench));
            std::vector<float> a(static_cast<size_t>(D * kStates));
            for (size_t i = 0; i < a.size(); ++i) {
              a[i] = -static_cast<float>(i % kStates + 1);
            }
            in.A = leaf(Tensor::from({D, kStates}, a).to(bench.device()));
            in.D = exact({D}, bench, 1);
            const std::vector<float> bias =
                model_steps ? step_size_biases(D) : std::vector<float>(static_cast<size_t>(D), -4.F);
            in.delta_bias = leaf(Tensor::from({D}, bias).to(bench.device()));
            OpRun run;
            run.leaves = {in.u, in.delta, in.z, in.B, in.C, in.A, in.D, in.delta_bias};
            run.output_grads = {random_tensor({B, L, D}, bench)};
            run.forward = [in] { return std::vector<Variable>{ops::selective_scan(in, {}, false).y}; };
            const double elements = count({B, L, D}), shared = 2 * count({B, L, kStates});
            run.forward_work = {width(bench) * (4 * elements + shared), 0, 19 * elements};
            run.backward_work = {width(bench) * (7 * elements + 2 * shared), 0, 21 * elements};
            return run;
          }};
}

OpCase conv_case(int64_t B, int64_t L, int64_t D) {
  return {"causal_conv1d + silu", sizes({{"B", B}, {"D", D}, {"L", L}}), [=](const Bench& bench) {
            const Variable x = leaf(random_tensor({B, L, D}, bench));
            const Variable weight = exact({D, 4}, bench, 0.5), bias = exact({D}, bench, 0.5);
            OpRun run;
            run.leaves = {x, weight, bias};
            run.output_grads = {random_tensor({B, L, D}, bench)};
            run.forward = [=] {
              return std::vector<Variable>{ops::causal_conv1d(x, weight, bias, {}, {}, true, false).y};
            };
            run.forward_work.bytes = 2 * width(bench) * count({B, L, D});
            run.backward_work.bytes = 3 * width(bench) * count({B, L, D});
            return run;
          }};
}

OpCase attention_case(int64_t B, int64_t L, int64_t H, int64_t P, int64_t window) {
  const std::string shape = sizes({{"B", B}, {"H", H}, {"L", L}, {"Dh", P}});
  return {window > 0 ? join("window attention W", window) : "causal attention", shape, [=](const Bench& bench) {
            const Variable q = leaf(random_tensor({B, L, H, P}, bench)), k = leaf(random_tensor({B, L, H, P}, bench));
            const Variable v = leaf(random_tensor({B, L, H, P}, bench));
            const nn::Sequence sequence = nn::plain_sequence(B, L, 0, bench.device());
            const ops::AttentionRange range = nn::sliding_range(sequence, 0, window, true);
            OpRun run;
            run.leaves = {q, k, v};
            run.output_grads = {random_tensor({B, L, H, P}, bench)};
            run.forward = [=] {
              return std::vector<Variable>{ops::attention(q, k, v, {}, range, 1 / std::sqrt(static_cast<double>(P)))};
            };
            const double w = window > 0 ? static_cast<double>(std::min(window, L)) : static_cast<double>(L);
            const double pairs = w * (static_cast<double>(L) - (w - 1) / 2) * count({B, H});
            run.forward_work = {4 * width(bench) * count({B, L, H, P}), 4 * pairs * static_cast<double>(P), pairs};
            run.backward_work = {8 * width(bench) * count({B, L, H, P}), 10 * pairs * static_cast<double>(P), pairs};
            return run;
          }};
}

OpCase norm_case(int64_t rows, int64_t D) {
  return {"rms_norm + residual", sizes({{"rows", rows}, {"D", D}}), [=](const Bench& bench) {
            const Variable x = leaf(random_tensor({rows, D}, bench));
            const Variable residual = exact({rows, D}, bench, 1), weight = exact({D}, bench, 1);
            OpRun run;
            run.leaves = {x, residual, weight};
            run.output_grads = {random_tensor({rows, D}, bench), residual.value()};
            run.forward = [=] {
              const ops::Normed normed = ops::norm(x, residual, weight, {}, false, 1e-5);
              return std::vector<Variable>{normed.y, normed.h};
            };
            run.forward_work.bytes = (2 * width(bench) + 8) * count({rows, D});
            run.backward_work.bytes = (2 * width(bench) + 12) * count({rows, D});
            return run;
          }};
}

OpCase cross_entropy_case(int64_t rows, int64_t V) {
  return {"cross entropy", sizes({{"rows", rows}, {"V", V}}), [=](const Bench& bench) {
            const Variable logits = leaf(random_tensor({rows, V}, bench));
            std::vector<int64_t> ids(static_cast<size_t>(rows));
            RandomStream random(3);
            for (int64_t& id : ids) {
              id = static_cast<int64_t>(random.below(static_cast<uint64_t>(V)));
            }
            const Tensor targets = Tensor::from({rows}, ids).to(bench.device());
            OpRun run;
            run.leaves = {logits};
            run.output_grads = {random_tensor({rows}, DType::kFloat32, bench.device())};
            run.forward = [=] { return std::vector<Variable>{ops::cross_entropy(logits, targets, 0)}; };
            run.forward_work.bytes = width(bench) * count({rows, V}) + 16 * count({rows});
            run.backward_work.bytes = 2 * width(bench) * count({rows, V}) + 16 * count({rows});
            return run;
          }};
}

OpCase diagonal_case(int64_t B, int64_t L, int64_t D, int64_t states) {
  return {"s4d recurrence", sizes({{"B", B}, {"D", D}, {"N", 2 * states}, {"L", L}}), [=](const Bench& bench) {
            const Variable u = leaf(random_tensor({B, L, D}, bench));
            std::vector<float> poles(static_cast<size_t>(D * states * 2));
            for (size_t i = 0; i < poles.size(); i += 2) {
              const double angle = 0.003 * static_cast<double>(i / 2 % static_cast<size_t>(states));
              poles[i] = static_cast<float>(0.999 * std::cos(angle));
              poles[i + 1] = static_cast<float>(0.999 * std::sin(angle));
            }
            const Variable a = leaf(Tensor::from({D, states, 2}, poles).to(bench.device()));
            const Variable c = exact({D, states, 2}, bench, 0.1), skip = exact({D}, bench, 1);
            OpRun run;
            run.leaves = {u, a, c, skip};
            run.output_grads = {random_tensor({B, L, D}, bench)};
            run.forward = [=] { return std::vector<Variable>{ops::diagonal_scan(u, a, c, skip, {}, {}, false).y}; };
            run.forward_work.bytes = 2 * width(bench) * count({B, L, D});
            run.backward_work.bytes = 3 * width(bench) * count({B, L, D});
            return run;
          }};
}

OpCase linear_case(int64_t rows, int64_t in, int64_t out) {
  return {"linear", sizes({{"rows", rows}, {"in", in}, {"out", out}}), [=](const Bench& bench) {
            const Variable x = leaf(random_tensor({rows, in}, bench)), weight = exact({out, in}, bench, 0.05);
            OpRun run;
            run.leaves = {x, weight};
            run.output_grads = {random_tensor({rows, out}, bench)};
            run.forward = [=] { return std::vector<Variable>{ops::linear(x, weight)}; };
            const double traffic = width(bench) * (count({rows, in}) + count({rows, out}));
            run.forward_work = {traffic, 2 * count({rows, in, out}), 0};
            run.backward_work = {2 * traffic, 4 * count({rows, in, out}), 0};
            return run;
          }};
}

}  // namespace

std::vector<OpCase> op_cases(Device device) {
  if (device.kind == DeviceKind::kCpu) {
    return {scan_case(1, 2048, 256),
            scan_case(4, 1024, 128),
            conv_case(4, 2048, 256),
            attention_case(2, 1024, 4, 32, 0),
            attention_case(2, 1024, 4, 32, 256),
            norm_case(8192, 256),
            cross_entropy_case(8192, 256),
            diagonal_case(1, 2048, 128, 32),
            linear_case(2048, 256, 512)};
  }
  constexpr int64_t kMillion = 1 << 20;
  return {scan_case(8, 2048, 1536),
          scan_case(8, 8192, 1536),
          scan_case(1, 131072, 1536),
          scan_case(1, kMillion, 1536),
          scan_case(1, kMillion, 512),
          scan_case(1, kMillion, 256),
          scan_case(64, 1024, 256),
          scan_case(1, 131072, 512, true),
          scan_case(1, 32768, 1536, true),
          conv_case(8, 2048, 1536),
          conv_case(8, 8192, 1536),
          conv_case(1, kMillion, 512),
          attention_case(8, 2048, 12, 64, 0),
          attention_case(1, 65536, 12, 64, 0),
          attention_case(8, 2048, 12, 64, 512),
          attention_case(1, 65536, 12, 64, 512),
          norm_case(16384, 768),
          norm_case(65536, 256),
          norm_case(kMillion, 256),
          cross_entropy_case(kMillion, 16),
          cross_entropy_case(kMillion, 256),
          diagonal_case(1, kMillion, 512, 32),
          linear_case(16384, 768, 3072),
          linear_case(65536, 256, 1024)};
}

}  // namespace blockstate::apps
