// SPDX-License-Identifier: Apache-2.0
// One step of the causal convolution by a thread for kWidth neighbouring channels, shared by the kernels that make it.
#pragma once

#include "kernels/causal_conv1d_cuda.cuh"

namespace blockstate::kernels::cuda {

__device__ inline float conv_silu(float a) { return __fdividef(a, 1.0f + __expf(-a)); }

/// load() reads all but x, so that it can be under way before x is there. `final` may be `initial`: all that is
/// overwritten has been read.
template <class T, int kTaps, int kWidth>
struct ConvStep {
  float tap[kTaps][kWidth], constant[kWidth], past[kTaps][kWidth];
  int64_t at;  ///< steps since the start of the record, or as many as count

  __device__ void load(const CausalConv1dForward<T, float>& args, int64_t b, int64_t channel) {
    const int kept = static_cast<int>(args.weight.size[1]) - 1;
    at = args.position ? args.position(b, 0) : kept;
    load_taps(args.weight, args.bias, channel, tap, constant);
    load_past(View<const T, 3>(), args.initial, kept, b, 0, channel, past);
  }

  /// Writes y and final.
  __device__ void finish(const CausalConv1dForward<T, float>& args, int64_t b, int64_t channel,
                         const float (&x)[kWidth]) {
    const int kept = static_cast<int>(args.weight.size[1]) - 1;
    float out[kWidth];
#pragma unroll
    for (int c = 0; c < kWidth; ++c) {
      past[0][c] = x[c];
      float a = constant[c];
#pragma unroll
      for (int j = kTaps - 1; j >= 0; --j) {
        past[j][c] = at >= 0 && j > at ? 0.0f : past[j][c];
        a = fmaf(tap[j][c], past[j][c], a);
      }
      out[c] = at < 0 ? 0.0f : args.silu ? conv_silu(a) : a;
    }
    store_raw<T, kWidth>(&args.y(b, 0, channel), out);
    if (args.final) {
      const int moved = at < 0 ? 1 : 0;  // padding hands the state on
#pragma unroll
      for (int j = 0; j < kTaps; ++j) {
        const int k = kept - 1 - j + moved;
        if (k >= 0 && k < kept) {
          store_raw<T, kWidth>(&args.final(b, k, channel), past[j]);
        }
      }
    }
  }
};

}  // namespace blockstate::kernels::cuda
