// SPDX-License-Identifier: Apache-2.0
#include "audio/quantise.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"

namespace blockstate::audio {
namespace {

constexpr double kMu = 255.0;

/// NaN is a caller's mistake (readers refuse it) and must not become a code by accident.
double clipped(float sample) {
  require(!std::isnan(sample), "quantising: wanted finite samples, found NaN");
  return std::clamp(static_cast<double>(sample), -1.0, 1.0);
}

/// c in [-1, 1] to its code.
int64_t code_of(double c) { return std::min<int64_t>(kZeroCode + std::lround(128.0 * c), kCodes - 1); }

double level_of(int64_t code) {
  require(code >= 0 && code < kCodes, "dequantising: wanted codes from 0 to 255, found ", code);
  return static_cast<double>(code - kZeroCode) / 128.0;
}

template <class To, class From, class Function>
std::vector<To> each(std::span<const From> values, Function function) {
  std::vector<To> out(values.size());
  std::transform(values.begin(), values.end(), out.begin(), function);
  return out;
}

}  // namespace

int64_t mulaw_encode(float sample) {
  const double x = clipped(sample);
  static const double kScale = 1.0 / std::log1p(kMu);
  return code_of(std::copysign(std::log1p(kMu * std::abs(x)) * kScale, x));
}

float mulaw_decode(int64_t code) {
  const double c = level_of(code);
  return static_cast<float>(std::copysign((std::pow(1.0 + kMu, std::abs(c)) - 1.0) / kMu, c));
}

int64_t linear8_encode(float sample) { return code_of(clipped(sample)); }

float linear8_decode(int64_t code) { return static_cast<float>(level_of(code)); }

std::vector<int64_t> mulaw_encode(std::span<const float> samples) {
  return each<int64_t>(samples, [](float x) { return mulaw_encode(x); });
}

std::vector<float> mulaw_decode(std::span<const int64_t> codes) {
  return each<float>(codes, [](int64_t code) { return mulaw_decode(code); });
}

std::vector<int64_t> linear8_encode(std::span<const float> samples) {
  return each<int64_t>(samples, [](float x) { return linear8_encode(x); });
}

std::vector<float> linear8_decode(std::span<const int64_t> codes) {
  return each<float>(codes, [](int64_t code) { return linear8_decode(code); });
}

}  // namespace blockstate::audio
