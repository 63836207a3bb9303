// SPDX-License-Identifier: Apache-2.0
// Checks of the causal convolution, and what happens at the ends of its rows: the state handed on and its gradient.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/causal_conv1d.h"
#include "kernels/view_check.h"

namespace blockstate::kernels {

inline constexpr int64_t kMaxTaps = 8;

template <class Args>
void check_conv_inputs(const char* op, const Args& args) {
  const int64_t batch = args.x.size[0], length = args.x.size[1], width = args.x.size[2], taps = args.weight.size[1];
  require(taps >= 1 && taps <= kMaxTaps, op, " takes a kernel of 1 to ", kMaxTaps, " steps, found ", taps);
  check_view(op, "x", args.x, {batch, length, width});
  check_view(op, "weight", args.weight, {width, taps});
  check_optional_view(op, "bias", args.bias, {width});
  check_optional_view(op, "initial", args.initial, {batch, taps - 1, width});
  check_optional_view(op, "position", args.position, {batch, length});
  require(unit_stride(args.x) && (!args.initial || unit_stride(args.initial)), op,
          " wants x and initial with neighbouring channels side by side in memory");
}

/// Where the state after a row comes from: state k is input first + k of the chunk (negative: of `initial`), for k at
/// least `begin`; before that it is 0.
struct ConvRowEnd {
  int64_t first;
  int64_t begin;
};

template <class Args>
ConvRowEnd find_row_end(const Args& args, int64_t b) {
  const int64_t kept = args.weight.size[1] - 1;
  int64_t end = args.x.size[1] - 1;
  while (args.position && end >= 0 && args.position(b, end) < 0) {
    --end;
  }
  if (!args.position || end < 0) {
    return {end + 1 - kept, 0};
  }
  return {end + 1 - kept, std::max<int64_t>(0, kept - 1 - args.position(b, end))};
}

template <class T>
void write_conv_final(const CausalConv1dForward<T>& args) {
  const int64_t kept = args.weight.size[1] - 1;
  const int64_t width = args.x.size[2];
  for (int64_t b = 0; args.final && b < args.x.size[0]; ++b) {
    const ConvRowEnd row = find_row_end(args, b);
    for (int64_t k = 0; k < kept; ++k) {  // upwards: `final` may be `initial`
      const int64_t t = row.first + k;
      T* to = &args.final(b, k, 0);
      if (k >= row.begin && t >= 0) {
        std::copy_n(&args.x(b, t, 0), width, to);
      } else if (k >= row.begin && args.initial) {
        std::copy_n(&args.initial(b, kept + t, 0), width, to);
      } else {
        std::fill_n(to, width, T{0});
      }
    }
  }
}

template <class T>
void add_conv_final_gradient(const CausalConv1dBackward<T>& args) {
  const int64_t kept = args.weight.size[1] - 1;
  for (int64_t b = 0; args.dfinal && b < args.x.size[0]; ++b) {
    const ConvRowEnd row = find_row_end(args, b);
    for (int64_t k = row.begin; k < kept; ++k) {
      const int64_t t = row.first + k;
      for (int64_t c = 0; c < args.x.size[2]; ++c) {
        if (t >= 0) {
          args.dx(b, t, c) += args.dfinal(b, k, c);
        } else if (args.dinitial) {
          args.dinitial(b, kept + t, c) += args.dfinal(b, k, c);
        }
      }
    }
  }
}

template <class T, class P>
void check_causal_conv1d(const CausalConv1dForward<T, P>& args) {
  const char* op = "causal_conv1d";
  const int64_t batch = args.x.size[0], length = args.x.size[1], width = args.x.size[2], taps = args.weight.size[1];
  check_conv_inputs(op, args);
  check_view(op, "y", args.y, {batch, length, width});
  check_optional_view(op, "final", args.final, {batch, taps - 1, width});
  require(unit_stride(args.y) && (!args.final || unit_stride(args.final)), op,
          " wants y and final with neighbouring channels side by side in memory");
}

template <class T, class P>
void check_causal_conv1d(const CausalConv1dBackward<T, P>& args) {
  const char* op = "causal_conv1d backward";
  const int64_t batch = args.x.size[0], length = args.x.size[1], width = args.x.size[2], taps = args.weight.size[1];
  check_conv_inputs(op, args);
  check_view(op, "dx", args.dx, {batch, length, width});
  check_view(op, "dy", args.dy, {batch, length, width});
  check_view(op, "dweight", args.dweight, {width, taps});
  check_optional_view(op, "dbias", args.dbias, {width});
  check_optional_view(op, "dinitial", args.dinitial, {batch, taps - 1, width});
  check_optional_view(op, "dfinal", args.dfinal, {batch, taps - 1, width});
  require(unit_stride(args.dx) && unit_stride(args.dy) && (!args.dinitial || unit_stride(args.dinitial)), op,
          " wants dx, dy and dinitial with neighbouring channels side by side in memory");
}

}  // namespace blockstate::kernels
