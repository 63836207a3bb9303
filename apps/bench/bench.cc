// SPDX-License-Identifier: Apache-2.0
// Ops and models, timed against what the device can do at most: a table on standard output, JSON where asked for.
#include <cstdio>
#include <fstream>

#include "apps/bench/cases.h"
#include "apps/format.h"
#include "apps/session.h"
#include "apps/verbs.h"
#include "core/base/check.h"
#include "core/config/value.h"
#include "core/tensor/choose_device.h"
#include "kernels/cuda_exec.h"

namespace blockstate::apps {
namespace {

using config::Value;

bool wanted(const std::string& filter, const std::string& text) {
  return filter.empty() || text.find(filter) != std::string::npos;
}

/// Exponentials per second of the special-function units; 0 where that is no limit.
double exponential_rate(Device device) {
  if (device.kind == DeviceKind::kCpu) {
    return 0;
  }
  const auto properties = kernels::cuda::device_properties(device.index);
  return 16.0 * properties.multiprocessors * 1e3 * properties.clock_khz;
}

class Table {
 public:
  Table(const Bench& bench, double exponentials) : bench_(bench), exponentials_(exponentials) {}

  void add_op(const OpCase& op, const char* pass, double seconds, const Work& work) {
    const double memory = work.bytes / bench_.ceilings().copy;
    const double product = work.flops / bench_.ceilings().product;
    const double special = exponentials_ > 0 ? work.exponentials / exponentials_ : 0;
    const double bound = std::max({memory, product, special});
    const char* limit = bound == special ? "exp" : bound == product ? "product" : "copy";
    std::printf("%-24s %-8s %-26s %9.4f ms %7.1f GB/s %8.1f GFLOP/s  %5.1f %% of %s\n", op.op.c_str(), pass,
                op.shape.c_str(), 1e3 * seconds, 1e-9 * work.bytes / seconds, 1e-9 * work.flops / seconds,
                100 * bound / seconds, limit);
    std::fflush(stdout);
    Value row;
    row.set("op", Value(op.op));
    row.set("pass", Value(std::string(pass)));
    row.set("shape", Value(op.shape));
    row.set("milliseconds", Value(1e3 * seconds));
    row.set("gigabytes_per_second", Value(1e-9 * work.bytes / seconds));
    row.set("teraflops", Value(1e-12 * work.flops / seconds));
    row.set("share_of_bound", Value(bound / seconds));
    row.set("bound", Value(std::string(limit)));
    ops.push_back(std::move(row));
  }

  void add_model(const ModelCase& model, const ModelResult& result) {
    std::printf("%-20s %-15s %-26s %10.3f ms %12.0f tokens/s %10s\n", model.model.c_str(), model.what.c_str(),
                model.shape.c_str(), 1e3 * result.seconds, result.tokens_per_second,
                format_bytes(result.peak_bytes).c_str());
    std::fflush(stdout);
    Value row;
    row.set("model", Value(model.model));
    row.set("what", Value(model.what));
    row.set("shape", Value(model.shape));
    row.set("milliseconds", Value(1e3 * result.seconds));
    row.set("tokens_per_second", Value(result.tokens_per_second));
    row.set("peak_bytes", Value(result.peak_bytes));
    models.push_back(std::move(row));
  }

  Value::Array ops, models;

 private:
  const Bench& bench_;
  double exponentials_;
};

void run_op(const OpCase& op, const Bench& bench, Table& table) {
  const OpRun run = op.make(bench);
  std::vector<Variable> outputs;
  const auto forward = [&] { outputs = run.forward(); };
  table.add_op(op, "forward", bench.median([&] { outputs.clear(); }, forward), run.forward_work);
  const double seconds = bench.median(
      [&] {
        outputs = run.forward();
        for (Variable leaf : run.leaves) {
          leaf.clear_grad();
        }
      },
      [&] { backward(outputs, run.output_grads); });
  table.add_op(op, "backward", seconds, run.backward_work);
}

}  // namespace

int run_bench(const BenchArguments& arguments) {
  const Device device = choose_device(arguments.device);
  const DType dtype = parse_dtype(!arguments.dtype.empty()           ? arguments.dtype
                                  : device.kind == DeviceKind::kCuda ? "bfloat16"
                                                                     : "float32");
  require(dtype != DType::kBFloat16 || device.kind == DeviceKind::kCuda,
          "--dtype bfloat16 needs --device cuda; on the CPU use float32");
  const Bench bench(device, dtype, arguments.repetitions);
  const std::string name =
      device.kind == DeviceKind::kCuda ? kernels::cuda::device_properties(device.index).name : "CPU";
  std::printf("%s (%s), %s; ceilings: copy %.0f GB/s, product %.1f GFLOP/s\n", name.c_str(),
              device_name(device).c_str(), std::string(dtype_name(dtype)).c_str(), 1e-9 * bench.ceilings().copy,
              1e-9 * bench.ceilings().product);
  Table table(bench, exponential_rate(device));
  int skipped = 0;
  // One case that does not fit must not cost the others.
  const auto attempt = [&](const std::string& what, const auto& body) {
    try {
      body();
    } catch (const Error& problem) {
      std::printf("%s: %s\n", what.c_str(), problem.what());
      ++skipped;
    }
    release_cached_memory(device);
  };
  if (arguments.what == "ops" || arguments.what == "all") {
    for (const OpCase& op : op_cases(device)) {
      if (!stop_requested() && wanted(arguments.filter, op.op + " " + op.shape)) {
        attempt(op.op + " " + op.shape, [&] { run_op(op, bench, table); });
      }
    }
  }
  if (arguments.what != "ops") {
    for (const ModelCase& model : arguments.what == "lengths" ? length_cases(device) : model_cases(device)) {
      if (!stop_requested() && wanted(arguments.filter, model.model + " " + model.what + " " + model.shape)) {
        attempt(model.model + " " + model.shape, [&] { table.add_model(model, model.run(bench)); });
      }
    }
  }
  require(!table.ops.empty() || !table.models.empty() || skipped > 0 || stop_requested(), "--filter ", arguments.filter,
          ": no op or model has this in its name or shape");
  if (!arguments.json.empty()) {
    Value all;
    all.set("device", Value(name));
    all.set("dtype", Value(std::string(dtype_name(dtype))));
    all.set("copy_gigabytes_per_second", Value(1e-9 * bench.ceilings().copy));
    all.set("product_teraflops", Value(1e-12 * bench.ceilings().product));
    all.set("ops", Value(std::move(table.ops)));
    all.set("models", Value(std::move(table.models)));
    std::ofstream file(arguments.json);
    file << config::to_json(all);
    file.close();
    require(file.good(), arguments.json, ": cannot be written");
  }
  return stop_requested() ? kInterrupted : skipped > 0 ? 1 : 0;
}

}  // namespace blockstate::apps
