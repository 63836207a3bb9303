// SPDX-License-Identifier: Apache-2.0
// Tensors of very different sizes are cut into chunks, a block a chunk. The table of tensors travels with the launch: a
// few hundred of them fit its arguments, more take several launches. Three steps: sums of squares of the chunks, in
// double; one block that adds them in order and makes the step's constants; the update, which reads these.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/adamw.h"
#include "kernels/cuda_packs.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr const char* kOp = "adamw_step";
constexpr int kThreads = 256;
constexpr int64_t kChunk = 8192;  // elements
// What a launch's arguments may hold; 4 KiB before CUDA 12.1.
constexpr int kTableBytes = CUDART_VERSION >= 12010 ? 32000 : 3800;

struct Entry {
  float* parameter;
  float* m;
  float* v;
  const float* gradient;
  int64_t count;
  int64_t first_chunk;  // counted over all tensors
  float learning_rate, weight_decay;
};
constexpr int kEntries = kTableBytes / static_cast<int>(sizeof(Entry));

struct Table {
  int64_t first_chunk, chunks;
  int count;
  Entry entry[kEntries];
};

/// The constants of one step, made in double.
struct Step {
  float scale, beta1, rest1, beta2, rest2, correction1, correction2, epsilon;
  int skipped;
};

/// The tensor that a chunk belongs to: the last whose first chunk is not after it.
__device__ inline const Entry& find_entry(const Table& table, int64_t chunk) {
  int low = 0, high = table.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (table.entry[middle].first_chunk <= chunk ? low : high) = middle;
  }
  return table.entry[low];
}

__device__ inline double warp_sum_double(double value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
}

/// Sum over the block; thread 0 has it.
template <int kBlock>
__device__ inline double block_sum_double(double value) {
  __shared__ double shared[kBlock / 32];
  value = warp_sum_double(value);
  if (threadIdx.x % 32 == 0) {
    shared[threadIdx.x / 32] = value;
  }
  __syncthreads();
  double sum = 0;
  for (int warp = 0; threadIdx.x == 0 && warp < kBlock / 32; ++warp) {
    sum += shared[warp];
  }
  return sum;
}

__device__ inline bool quads_fit(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

__global__ void __launch_bounds__(kThreads) squares_kernel(const __grid_constant__ Table table, double* sums) {
  const int64_t chunk = table.first_chunk + blockIdx.x;
  const Entry& entry = find_entry(table, chunk);
  const int64_t begin = (chunk - entry.first_chunk) * kChunk;
  const int count = static_cast<int>(entry.count - begin < kChunk ? entry.count - begin : kChunk);
  const float* g = entry.gradient + begin;
  double sum = 0;
  const auto add = [&sum](float v) { sum = fma(static_cast<double>(v), static_cast<double>(v), sum); };
  int done = 0;
  if (quads_fit(g)) {
    done = count / 4 * 4;
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x) * 4; i < done; i += kThreads * 4) {
      const float4 v = *reinterpret_cast<const float4*>(g + i);
      add(v.x), add(v.y), add(v.z), add(v.w);
    }
  }
  for (int i = done + static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    add(g[i]);
  }
  sum = block_sum_double<kThreads>(sum);
  if (threadIdx.x == 0) {
    sums[chunk] = sum;
  }
}

constexpr int kDecideThreads = 1024;

__global__ void __launch_bounds__(kDecideThreads)
    decide_kernel(const double* sums, int64_t chunks, AdamWOptions options, double clip, Step* step,
                  AdamWReport* report) {
  double sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < chunks; i += kDecideThreads) {
    sum += sums[i];
  }
  sum = block_sum_double<kDecideThreads>(sum);
  if (threadIdx.x != 0) {
    return;
  }
  const double squares = sum * options.gradient_scale * options.gradient_scale;
  report->squared_norm = squares;
  step->skipped = !isfinite(squares);
  if (step->skipped) {
    return;
  }
  const int64_t taken = ++report->step;
  const double norm = sqrt(squares), t = static_cast<double>(taken);
  step->scale =
      static_cast<float>(clip > 0 && norm > clip ? options.gradient_scale * clip / norm : options.gradient_scale);
  step->beta1 = static_cast<float>(options.beta1);
  step->rest1 = static_cast<float>(1 - options.beta1);
  step->beta2 = static_cast<float>(options.beta2);
  step->rest2 = static_cast<float>(1 - options.beta2);
  step->correction1 = static_cast<float>(1 / (1 - pow(options.beta1, t)));
  step->correction2 = static_cast<float>(1 / (1 - pow(options.beta2, t)));
  step->epsilon = static_cast<float>(options.epsilon);
}

__device__ inline void update_one(const Step& step, const Entry& entry, float g, float& p, float& m, float& v) {
  g *= step.scale;
  m = fmaf(step.beta1, m, step.rest1 * g);
  v = fmaf(step.beta2, v, step.rest2 * (g * g));
  const float spread = sqrtf(v * step.correction2) + step.epsilon;
  const float move = fmaf(entry.weight_decay, p, m * step.correction1 / spread);
  p = fmaf(-entry.learning_rate, move, p);
}

__global__ void __launch_bounds__(kThreads) update_kernel(const __grid_constant__ Table table, const Step* given) {
  const Step step = *given;
  if (step.skipped) {
    return;
  }
  const int64_t chunk = table.first_chunk + blockIdx.x;
  const Entry& entry = find_entry(table, chunk);
  const int64_t begin = (chunk - entry.first_chunk) * kChunk;
  const int count = static_cast<int>(entry.count - begin < kChunk ? entry.count - begin : kChunk);
  float *p = entry.parameter + begin, *m = entry.m + begin, *v = entry.v + begin;
  const float* g = entry.gradient + begin;
  int done = 0;
  if (quads_fit(p) && quads_fit(m) && quads_fit(v) && quads_fit(g)) {
    done = count / 4 * 4;
#pragma unroll 2
    for (int i = static_cast<int>(threadIdx.x) * 4; i < done; i += kThreads * 4) {
      const float4 g4 = *reinterpret_cast<const float4*>(g + i);
      float4 p4 = *reinterpret_cast<const float4*>(p + i);
      float4 m4 = *reinterpret_cast<const float4*>(m + i);
      float4 v4 = *reinterpret_cast<const float4*>(v + i);
      update_one(step, entry, g4.x, p4.x, m4.x, v4.x);
      update_one(step, entry, g4.y, p4.y, m4.y, v4.y);
      update_one(step, entry, g4.z, p4.z, m4.z, v4.z);
      update_one(step, entry, g4.w, p4.w, m4.w, v4.w);
      *reinterpret_cast<float4*>(p + i) = p4;
      *reinterpret_cast<float4*>(m + i) = m4;
      *reinterpret_cast<float4*>(v + i) = v4;
    }
  }
  for (int i = done + static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    update_one(step, entry, g[i], p[i], m[i], v[i]);
  }
}

/// Calls launch(table) for tables that cover all tensors that have elements.
template <class Launch>
void for_tables(const AdamWTensor<float>* tensors, int64_t tensor_count, Launch launch) {
  Table table;
  int64_t chunk = 0;
  int64_t t = 0;
  while (t < tensor_count) {
    table.count = 0;
    table.first_chunk = chunk;
    for (; t < tensor_count && table.count < kEntries; ++t) {
      const AdamWTensor<float>& tensor = tensors[t];
      if (tensor.count > 0) {
        table.entry[table.count++] = {tensor.parameter,
                                      tensor.m,
                                      tensor.v,
                                      tensor.gradient,
                                      tensor.count,
                                      chunk,
                                      static_cast<float>(tensor.learning_rate),
                                      static_cast<float>(tensor.weight_decay)};
        chunk += ceil_div(tensor.count, kChunk);
      }
    }
    table.chunks = chunk - table.first_chunk;
    if (table.chunks > 0) {
      launch(table);
    }
  }
}

}  // namespace

template <>
void adamw_step(const Exec& exec, const AdamWTensor<float>* tensors, int64_t tensor_count, const AdamWOptions& options,
                double clip, AdamWReport* report) {
  int64_t chunks = 0;
  for (int64_t t = 0; t < tensor_count; ++t) {
    require(tensors[t].count >= 0, kOp, ": tensor ", t, " has ", tensors[t].count, " elements");
    chunks += ceil_div(tensors[t].count, kChunk);
  }
  const Scratch<double> sums(exec, chunks);
  const Scratch<Step> step(exec, 1);
  for_tables(tensors, tensor_count, [&](const Table& table) {
    squares_kernel<<<static_cast<unsigned>(table.chunks), kThreads, 0, stream_of(exec)>>>(table, sums.get());
    check_launch(exec, kOp);
  });
  decide_kernel<<<1, kDecideThreads, 0, stream_of(exec)>>>(sums.get(), chunks, options, clip, step.get(), report);
  check_launch(exec, kOp);
  for_tables(tensors, tensor_count, [&](const Table& table) {
    update_kernel<<<static_cast<unsigned>(table.chunks), kThreads, 0, stream_of(exec)>>>(table, step.get());
    check_launch(exec, kOp);
  });
}

}  // namespace blockstate::kernels::cuda
