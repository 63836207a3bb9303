// SPDX-License-Identifier: Apache-2.0
// Random single steps of a projection and the convolution of its first channels.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/support/fill.h"
#include "tests/support/naive_causal_conv1d.h"

namespace blockstate::test {

template <class T>
struct ProjectedInputs {
  ConvInputs<T> conv;                ///< L = 1, without x
  int64_t inputs = 1, channels = 1;  ///< of the projection
  std::vector<T> input, weight;
};

template <class T>
ProjectedInputs<T> random_projected(uint64_t key, int64_t B, int64_t inputs, int64_t D, int64_t rest, int64_t K = 4) {
  ProjectedInputs<T> in;
  in.inputs = inputs;
  in.channels = D + rest;
  in.input = random_normal<T>(key + 1, B * inputs);
  in.weight = random_normal<T>(key + 2, in.channels * inputs, 1 / std::sqrt(static_cast<double>(inputs)));
  in.conv.B = B, in.conv.D = D, in.conv.K = K;
  in.conv.weight = random_normal<T>(key + 3, D * K);
  in.conv.bias = random_normal<T>(key + 4, D);
  in.conv.initial = random_normal<T>(key + 5, B * (K - 1) * D);
  return in;
}

/// input weight^T, (B, channels).
template <class T>
std::vector<double> naive_projection(const ProjectedInputs<T>& in) {
  std::vector<double> p;
  for (int64_t b = 0; b < in.conv.B; ++b) {
    for (int64_t c = 0; c < in.channels; ++c) {
      double sum = 0;
      for (int64_t i = 0; i < in.inputs; ++i) {
        sum += static_cast<double>(in.input[static_cast<size_t>(b * in.inputs + i)]) *
               static_cast<double>(in.weight[static_cast<size_t>(c * in.inputs + i)]);
      }
      p.push_back(sum);
    }
  }
  return p;
}

/// The first channels of p, (B, D): what is convolved.
template <class T>
std::vector<double> convolved_channels(const ProjectedInputs<T>& in, const std::vector<double>& p) {
  std::vector<double> x;
  for (int64_t b = 0; b < in.conv.B; ++b) {
    const auto row = p.begin() + b * in.channels;
    x.insert(x.end(), row, row + in.conv.D);
  }
  return x;
}

}  // namespace blockstate::test
